#!/usr/bin/env bash
# aarch64_test.sh [TEST...]: cross-build libgort and tests/c for aarch64 and run
# them under qemu's user-mode emulation. Installs the two from apt if missing.
# With names (test_chan ...) only those are built and run.
#
# It checks the context switch and the memory orders as written, not as a weakly
# ordered processor would run them: qemu on x86-64 is stricter than the hardware.
set -euo pipefail
cd "$(dirname "$0")/.."
cc=aarch64-linux-gnu-gcc
# The C library for static programs lives with the cross compiler.
if ! command -v $cc >/dev/null || ! command -v qemu-aarch64-static >/dev/null; then
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static; } >/dev/null ||
        { echo "aarch64_test.sh: apt-get could not install $cc and qemu-user-static" >&2; exit 1; }
fi

build=build/aarch64
tests=()
for t in "$@"; do tests+=("$build/ctest/$t"); done
# Emulation is some ten times slower, so stress tests are shorter.
# Tests that start themselves anew need to be told of the emulator.
CTEST_RUN=$(command -v qemu-aarch64-static) \
    GORT_STRESS_SCALE=${GORT_STRESS_SCALE:-0.05} exec make --no-print-directory ctest \
    BUILD=$build CC=$cc AR=aarch64-linux-gnu-ar LDFLAGS=-static RUN=qemu-aarch64-static CTEST_TIMEOUT=900 \
    ${tests:+CTESTS="${tests[*]}"}
