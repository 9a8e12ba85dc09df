"""Timers and tickers, as in Go's `time`; durations and times are seconds."""

from gort._core._runtime import Ticker, Timer, after, after_func, now, sleep, tick

__all__ = ["Ticker", "Timer", "after", "after_func", "now", "sleep", "tick"]
