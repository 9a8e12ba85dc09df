"""Tests of concurrent code: a fake clock, leak checks, seeded schedules, a pytest plugin.

`synctest.run(fn)` runs a test in a bubble whose clock jumps from timer to timer;
`explore(fn)` runs it under many schedules and replays the first that fails;
`no_leaks()` fails if goroutines are left; the pytest plugin `gort.testing.plugin`
does it for each test.
"""

from gort.testing import synctest
from gort.testing._explore import ExploreError, Failure, Step, explore, replay
from gort.testing._leaks import LeakError, no_leaks

__all__ = ["ExploreError", "Failure", "LeakError", "Step", "explore", "no_leaks", "replay", "synctest"]
