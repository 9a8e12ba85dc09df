"""redis-py: a pool for everybody, a pipeline, optimistic transactions, blocking pops, publish and subscribe.

Nothing to set. One Redis object, with its connection pool, may be used by any number of goroutines. Give it a
BlockingConnectionPool: the default one raises an error for more than `max_connections`, which is 100 in redis-py 8.
"""

from __future__ import annotations

import recipe

recipe.patch_if_asked()

import redis
import servers
from redis.backoff import ConstantBackoff
from redis.retry import Retry

import gort
from gort.sync import WaitGroup

ACCOUNTS = 50


def client(server: servers.Server, connections: int = 50, **options: object) -> redis.Redis:
    pool = redis.BlockingConnectionPool(
        host="127.0.0.1", port=server.port, max_connections=connections, timeout=60, decode_responses=True, **options
    )
    return redis.Redis.from_pool(pool)  # closes it too


def shared_pool(r: redis.Redis) -> None:
    def work(i: int) -> None:
        for k in range(5):
            r.set(f"key:{i}:{k}", f"value {i * k}")
            assert r.get(f"key:{i}:{k}") == f"value {i * k}"
            r.incr("counter")
        with r.pipeline() as pipe:
            pipe.rpush("list", i).hset("hash", str(i), i * i).incr("counter")
            pipe.execute()

    recipe.each(work)
    assert r.get("counter") == str(recipe.GOROUTINES * 6)
    assert sorted(map(int, r.lrange("list", 0, -1))) == list(range(recipe.GOROUTINES))
    assert r.hgetall("hash") == {str(i): str(i * i) for i in range(recipe.GOROUTINES)}


def transactions(r: redis.Redis) -> None:
    """WATCH and MULTI: moves between accounts, begun anew if somebody else was quicker; nothing is lost on the way."""
    r.mset({f"account:{n}": 100 for n in range(ACCOUNTS)})

    def work(i: int) -> None:
        giver, taker = f"account:{i % ACCOUNTS}", f"account:{(i * 7 + 1) % ACCOUNTS}"

        def move(pipe: redis.client.Pipeline) -> None:
            left, right = int(pipe.get(giver)), int(pipe.get(taker))
            pipe.multi()
            pipe.set(giver, left - 1)
            if giver != taker:
                pipe.set(taker, right + 1)
            else:
                pipe.set(giver, left)

        r.transaction(move, giver, taker)

    recipe.each(work)
    balances = [int(b) for b in r.mget([f"account:{n}" for n in range(ACCOUNTS)])]
    assert sum(balances) == 100 * ACCOUNTS
    expected = [100] * ACCOUNTS
    for i in range(recipe.GOROUTINES):
        expected[i % ACCOUNTS] -= 1
        expected[(i * 7 + 1) % ACCOUNTS] += 1
    assert balances == expected


def queue(server: servers.Server) -> None:
    """100 goroutines wait in BLPOP, 100 others push: each item comes out once."""
    r = client(server, connections=recipe.GOROUTINES)

    def work(i: int) -> list[int]:
        if i % 2:
            for k in range(5):
                r.rpush("jobs", i * 5 + k)
            return []
        return [int(r.blpop("jobs", timeout=30)[1]) for _ in range(5)]

    items = sorted(item for items in recipe.each(work) for item in items)
    assert items == sorted(i * 5 + k for i in range(1, recipe.GOROUTINES, 2) for k in range(5))
    r.close()


def publish_subscribe(server: servers.Server) -> None:
    """Each of 200 subscribers gets all the messages, in their order."""
    r = client(server, connections=recipe.GOROUTINES + 1)
    subscribed = WaitGroup()
    subscribed.add(recipe.GOROUTINES)

    def subscriber(i: int) -> list[str]:
        with r.pubsub(ignore_subscribe_messages=False) as pubsub:
            pubsub.subscribe("news")
            received = []
            for message in pubsub.listen():
                if message["type"] == "subscribe":
                    subscribed.done()
                elif message["data"] == "end":
                    return received
                else:
                    received.append(message["data"])
        raise AssertionError("the subscription ended")

    def publisher() -> None:
        subscribed.wait()
        for n in range(20):
            assert r.publish("news", n) == recipe.GOROUTINES
        r.publish("news", "end")

    publishing = gort.go(publisher)
    for received in recipe.each(subscriber):
        assert received == [str(n) for n in range(20)]
    publishing.join()
    r.close()


def timeouts(server: servers.Server) -> None:
    r = client(server, connections=recipe.GOROUTINES, socket_timeout=0.2, retry=Retry(ConstantBackoff(0), 0))

    def work(i: int) -> None:
        with recipe.raises(redis.TimeoutError):
            r.blpop(f"never:{i}", timeout=30)  # the server would answer later than the client waits

    recipe.each(work)
    r.close()


def killed(server: servers.Server) -> None:
    """The server is killed while 200 wait for an answer: an error for each, and the same pool works afterwards."""
    r = client(server, connections=recipe.GOROUTINES, retry=Retry(ConstantBackoff(0), 0))
    r.set("kept", "yes")
    waiting = WaitGroup()
    waiting.add(recipe.GOROUTINES)

    def work(i: int) -> None:
        with r.client() as own:  # one connection
            own.ping()
            waiting.done()
            with recipe.raises(redis.ConnectionError):
                own.blpop(f"never:{i}", timeout=60)

    def killer() -> None:
        waiting.wait()
        server.kill()

    killing = gort.go(killer)
    recipe.each(work)
    killing.join()
    with recipe.raises(redis.ConnectionError):
        r.ping()
    server.restart()
    assert recipe.each(lambda i: r.get("kept")) == ["yes"] * recipe.GOROUTINES
    r.close()


def main() -> None:
    with servers.start("redis") as server:
        r = client(server)
        with recipe.step("a pool of 50 connections"):
            shared_pool(r)
        with recipe.step("optimistic transactions"):
            transactions(r)
        r.close()
        with recipe.step("BLPOP and RPUSH"):
            queue(server)
        with recipe.step("publish and subscribe"):
            publish_subscribe(server)
        with recipe.step("timeouts"):
            timeouts(server)
        with recipe.step("server killed"):
            killed(server)


recipe.run(main, "redis")
