"""gort measured beside its peers. Start with README.md, then _harness.py.

Layout: `_workload.py` says what a workload is, `workloads/` holds one question
per file, `go/` and `native/` hold the Go and C programs, `_child.py` measures
one workload on one peer in a process of its own, `_harness.py` runs them all in
turn, `_report.py` prints, saves and plots, `micro/` is for pytest-benchmark.
"""
