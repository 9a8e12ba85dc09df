"""What do contexts cost: a tree of them built and cancelled, one made and cancelled, one asked?

- `ctx_tree`: 10,000 contexts, each but the root derived from one that has ten such children;
- `ctx_done`: the same, and the done channel of each is asked for while the tree is made;
- `ctx_wide`: 10,000 children of one;
- `ctx_deep`: a chain of 10,000.

Of each, `build` is the time to make it and `cancel` the time to cancel its root, divided by 10,000; all
contexts are kept and found cancelled afterwards. `ctx_cancel` and `ctx_timeout` derive one from a living
parent that can be cancelled, and cancel it; `ctx_err` asks a living one for its error.
"""

from collections.abc import Callable
from time import perf_counter

from benchmarks._workload import Metric, Workload, check, per_op

CONTEXTS, CONTEXTS_QUICK = 10_000, 1_000


def _tree(name: str, shape: str) -> Workload:
    metrics = (
        Metric("build", "ns per context", "wall time to make all, divided by their number"),
        Metric("cancel", "ns per context", "wall time to cancel the root, divided by their number"),
    )
    question = f"make 10,000 contexts, {shape}, and cancel the root"
    return Workload(name, question, metrics, n=CONTEXTS, n_quick=CONTEXTS_QUICK, repeat=5)


TREE = _tree("ctx_tree", "ten children each")
DONE = _tree("ctx_done", "ten children each, with their done channels")
WIDE = _tree("ctx_wide", "all children of one")
DEEP = _tree("ctx_deep", "each the child of the one before")
CANCEL = per_op("ctx_cancel", "derive a context and cancel it", "with_cancel + cancel")
TIMEOUT = per_op("ctx_timeout", "derive a context with a deadline and cancel it", "with_timeout + cancel")
ERR = per_op("ctx_err", "ask a living context for its error", "err")


def _build_and_cancel(n: int, parent_of: Callable[[int], int], done: bool = False) -> dict[str, float]:
    from gort.context import background, with_cancel

    start = perf_counter()
    root, cancel = with_cancel(background())
    contexts = [root]
    for i in range(1, n):
        ctx, _ = with_cancel(contexts[parent_of(i)])
        contexts.append(ctx)
        if done:
            ctx.done()
    built = perf_counter()
    cancel()
    end = perf_counter()
    check(sum(ctx.err() is not None for ctx in contexts), n)
    return {"build": (built - start) * 1e9 / n, "cancel": (end - built) * 1e9 / n}


@TREE.peer("gort")
def _tree_gort(n: int) -> dict[str, float]:
    return _build_and_cancel(n, lambda i: (i - 1) // 10)


@DONE.peer("gort")
def _done_gort(n: int) -> dict[str, float]:
    return _build_and_cancel(n, lambda i: (i - 1) // 10, done=True)


@WIDE.peer("gort")
def _wide_gort(n: int) -> dict[str, float]:
    return _build_and_cancel(n, lambda i: 0)


@DEEP.peer("gort")
def _deep_gort(n: int) -> dict[str, float]:
    return _build_and_cancel(n, lambda i: i - 1)


@CANCEL.peer("gort")
def _cancel_gort(n: int) -> float:
    from gort.context import background, with_cancel

    parent, end = with_cancel(background())
    start = perf_counter()
    for _ in range(n):
        _ctx, cancel = with_cancel(parent)
        cancel()
    took = perf_counter() - start
    end()
    return took


@TIMEOUT.peer("gort")
def _timeout_gort(n: int) -> float:
    from gort.context import background, with_cancel, with_timeout

    parent, end = with_cancel(background())
    start = perf_counter()
    for _ in range(n):
        _ctx, cancel = with_timeout(parent, 3600)
        cancel()
    took = perf_counter() - start
    end()
    return took


@ERR.peer("gort")
def _err_gort(n: int) -> float:
    from gort.context import background, with_cancel

    ctx, end = with_cancel(background())
    alive = 0
    start = perf_counter()
    for _ in range(n):
        if ctx.err() is None:
            alive += 1
    took = perf_counter() - start
    check(alive, n)
    end()
    return took
