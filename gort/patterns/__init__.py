"""Go's concurrency patterns: pipelines, fan-out and fan-in, bounded maps, pools, publish and subscribe.

What a function here returns owns the goroutines that it starts. They are gone
when it is exhausted, or has raised its error, or is closed; and they end, killed
where they wait, when nobody holds it any more. So a loop may be left early:

>>> from itertools import count
>>> from gort import patterns
>>> for square in patterns.map(lambda n: n * n, count(), workers=4):
...     if square > 50:
...         break
>>> square
64

An error in a goroutine is raised in whoever receives its results; one that
nobody receives goes to `gort.excepthook`. A function that is killed gets
`GoroutineExit` where it waits, and its `finally` blocks run. `ctx=` takes a
context, whose end ends everything with its error.

`_stream.py` has the goroutines and what holds them, `_flow.py` and `_timing.py`
the streams, `_calls.py` limited and racing calls, `_pool.py` and `_broker.py`
what their names say. After "Go Concurrency Patterns: Pipelines and cancellation"
(go.dev/blog/pipelines), sourcegraph/conc and concurrent.futures.
"""

from __future__ import annotations

from gort.patterns._broker import Broker, Message, Policy, SlowConsumer, Subscription
from gort.patterns._calls import first, hedge, with_timeout
from gort.patterns._flow import fan_in, fan_out, for_each, generate, map, merge, pipeline, stage, tee
from gort.patterns._pool import Task, WorkerPool
from gort.patterns._stream import Stream
from gort.patterns._timing import batch, debounce, or_done, throttle

__all__ = [
    "Broker",
    "Message",
    "Policy",
    "SlowConsumer",
    "Stream",
    "Subscription",
    "Task",
    "WorkerPool",
    "batch",
    "debounce",
    "fan_in",
    "fan_out",
    "first",
    "for_each",
    "generate",
    "hedge",
    "map",
    "merge",
    "or_done",
    "pipeline",
    "stage",
    "tee",
    "throttle",
    "with_timeout",
]

for _name in __all__:
    if _name != "Policy":
        globals()[_name].__module__ = __name__
del _name
