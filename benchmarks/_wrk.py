"""Load an HTTP server with wrk, from the cores that the caller is not pinned to, and print one line of numbers:

requests, seconds, median and 99th percentile of the latency in us, errors

    python3 benchmarks/_wrk.py PORT CONNECTIONS SECONDS

Needs nothing but Python's standard library: the server in Go runs it too.
"""

import os
import shutil
import subprocess
import sys
import tempfile

SCRIPT = """
done = function(summary, latency, requests)
   local e = summary.errors
   io.write(string.format("RESULT %d %.6f %.1f %.1f %d\\n", summary.requests, summary.duration / 1e6,
      latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def go_elsewhere() -> None:
    """To the other cores that may be used, if there are any."""
    here = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    if others := os.sched_getaffinity(0) - here:
        os.sched_setaffinity(0, others)
    else:
        os.sched_setaffinity(0, here)


def main() -> None:
    port, connections, seconds = sys.argv[1:]
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("no wrk (apt-get install wrk)")
    go_elsewhere()
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT)
        script.flush()
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script.name, f"http://127.0.0.1:{port}/"]
        done = subprocess.run(command, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            print(line[7:])
            return
    raise SystemExit(f"wrk failed: {done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
