"""Orders on their way through a shop: a pipeline with business errors, hedged lookups, batches and news.

Orders are checked and priced by several goroutines at once, and written in
batches. The price server answers every other question late, so a second attempt
starts soon; an order that fails is reported as a web service would answer. Who
wants to know what was written subscribes.

    python examples/patterns/orders.py
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import gort
from gort import atomic, errors, patterns
from gort.context import Context

STOCK = {"tea": 3.5, "bread": 2.0, "salt": 1.0}
questions = atomic.Int64()


@dataclass(frozen=True)
class Order:
    number: int
    item: str
    count: int
    price: float = 0.0


def orders() -> Iterator[Order]:
    for number in range(1, 41):
        item = ("tea", "bread", "salt", "gold")[number % 13 % 4]
        yield Order(number, item, number % 10)


def price_of(ctx: Context, item: str) -> float | None:
    """Ask the server, which takes for ever whenever the number of the question is odd."""
    gort.sleep(3600 if questions.add(1) % 2 else 0.001)
    return STOCK.get(item)


def priced(order: Order) -> Order | errors.Error:
    """The order with its price, or why it has none: a pipeline goes on, whatever an order is like."""
    try:
        if order.count == 0:
            raise errors.bad_request("EMPTY_ORDER", f"order {order.number} is empty")
        price = patterns.hedge(lambda ctx: price_of(ctx, order.item), delay=0.01, n=20)
        if price is None:
            raise errors.not_found("NO_SUCH_ITEM", f"we sell no {order.item}").with_metadata({"item": order.item})
        return replace(order, price=price * order.count)
    except Exception as e:
        return errors.from_error(e)


def main() -> None:
    broker = patterns.Broker[list[Order]]()
    refused: dict[tuple[int, str], int] = {}

    def accounts(news: patterns.Subscription[patterns.Message[list[Order]]]) -> tuple[int, float]:
        written = [order for message in news for order in message.value]
        return len(written), sum(order.price for order in written)

    accountant = gort.go(accounts, broker.subscribe("written", buffer=1))
    results = patterns.pipeline(orders(), (priced, 8))
    with broker, patterns.batch(results, size=8, seconds=0.5) as batches:
        for batch in batches:
            good = [order for order in batch if isinstance(order, Order)]
            for bad in batch:
                if isinstance(bad, errors.Error):
                    status, body = errors.to_http(bad)
                    key = status, body["reason"]
                    refused[key] = refused.get(key, 0) + 1
            broker.publish("written", good)

    count, total = accountant.join()
    print(f"{count} orders written, worth {total:.2f}")
    for (status, reason), times in sorted(refused.items()):
        print(f"{times} refused with {status} {reason}")


if __name__ == "__main__":
    main()
