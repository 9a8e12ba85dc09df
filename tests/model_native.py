"""The C side of the native tests: a few goroutine bodies against gort.h, compiled when the tests run."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path
from typing import Any

import gort
import gort.native

SOURCE = r"""
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "gort.h"

/* As Job in model_native.py. */
typedef struct {
    gort_chan *in, *out;
    int64_t first, count, sum, status, timeout_ns;
    uint8_t *seen;              /* one counter per possible value */
    _Atomic int64_t shared;
} job;

static int64_t seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec;
}

void set_flag(void *p) { atomic_store((_Atomic int32_t *)p, 1); }
void nothing(void *p) { (void)p; }

/* Spins for at most 60 s, not giving the GIL up when called through PyDLL. */
int32_t spin_until_set(_Atomic int32_t *flag)
{
    for (int64_t end = seconds() + 60; !atomic_load(flag);)
        if (seconds() > end) return 0;
    return 1;
}

void produce(void *p)
{
    job *j = p;
    for (int64_t v = j->first; v < j->first + j->count; v++, j->sum++)
        if ((j->status = gort_chan_send(j->out, &v))) break;
    atomic_store(&j->shared, 1); /* the last look at *j */
}

void produce_f64(void *p)
{
    job *j = p;
    for (int64_t i = 0; i < j->count; i++) {
        double v = (double)j->first + 0.5 * (double)i;
        if ((j->status = gort_chan_send(j->out, &v))) return;
    }
}

void produce_u8(void *p)
{
    job *j = p;
    for (int64_t i = 0; i < j->count; i++) {
        uint8_t v = (uint8_t)(j->first + i);
        if ((j->status = gort_chan_send(j->out, &v))) return;
    }
}

void produce_ptr(void *p)
{
    job *j = p;
    for (int64_t i = 0; i < j->count; i++) {
        void *v = (void *)(uintptr_t)(j->first + i);
        if ((j->status = gort_chan_send(j->out, &v))) return;
    }
}

/* Count and add up until the channel is closed. */
void consume(void *p)
{
    job *j = p;
    int64_t v;
    while ((j->status = gort_chan_recv(j->in, &v)) == GORT_OK) {
        j->count++;
        j->sum += v;
        if (j->seen) atomic_fetch_add((_Atomic uint8_t *)j->seen + v, 1);
    }
    j->first = v;               /* zeroed at the end */
}

void relay(void *p)
{
    job *j = p;
    int64_t v;
    while ((j->status = gort_chan_recv(j->in, &v)) == GORT_OK) {
        v = v * 2 + 1;
        if (gort_chan_send(j->out, &v)) return;
        j->count++;
    }
    gort_chan_close(j->out);
}

/* Receives from `in` or sends consecutive numbers to `out` until one of them is closed. */
void select_loop(void *p)
{
    job *j = p;
    int64_t in, out = j->first;
    for (;;) {
        gort_case cases[3] = {
            { j->in, GORT_RECV, &in, 0 }, { NULL, GORT_RECV, &in, 0 }, { j->out, GORT_SEND, &out, 0 },
        };
        int i = gort_select(cases, 3, j->timeout_ns ? j->timeout_ns : GORT_FOREVER);
        if (i < 0 || !cases[i].ok) {
            j->status = i;
            return;
        }
        if (i == 0) { j->count++; j->sum += in; }
        else out++;
        j->first = out;
    }
}

void recv_timeout(void *p) { job *j = p; j->status = gort_chan_recv_timeout(j->in, &j->sum, j->timeout_ns); }
void send_timeout(void *p) { job *j = p; j->status = gort_chan_send_timeout(j->out, &j->first, j->timeout_ns); }
void try_recv(void *p) { job *j = p; j->status = gort_chan_try_recv(j->in, &j->sum); }
void try_send(void *p) { job *j = p; j->status = gort_chan_try_send(j->out, &j->first); }
void close_chan(void *p) { job *j = p; j->status = gort_chan_close(j->out); }
void measure(void *p)
{
    job *j = p;
    j->first = (int64_t)gort_chan_elemsize(j->in);
    j->count = (int64_t)gort_chan_len(j->in);
    j->sum = (int64_t)gort_chan_cap(j->in);
}

void sleep_for(void *p)
{
    job *j = p;
    int64_t start = gort_now_ns();
    j->status = gort_sleep_ns(j->timeout_ns);
    j->sum = gort_now_ns() - start;
}

void goid(void *p) { ((job *)p)->sum = (int64_t)gort_goid(); }

/* Takes part in an exchange nobody waits in: needs `count` processors at once. */
void rendezvous(void *p)
{
    job *j = p;
    atomic_fetch_add(&j->shared, 1);
    for (int64_t end = seconds() + 60; atomic_load(&j->shared) < j->count;)
        if (seconds() > end) { j->status = -1; return; }
}

typedef struct { job *j; gort_wg *wg; int64_t depth; } twig;

static void grow(void *p)
{
    twig *t = p;
    atomic_fetch_add(&t->j->shared, 1);
    for (int i = 0; t->depth && i < 2; i++) {
        twig *child = malloc(sizeof *child);
        *child = (twig){ t->j, t->wg, t->depth - 1 };
        gort_wg_add(t->wg, 1);
        if (gort_go(grow, child)) { gort_wg_done(t->wg); free(child); t->j->status = GORT_ENOMEM; }
    }
    if (atomic_load(&t->j->shared) % 16 == 0) gort_yield();
    gort_wg_done(t->wg);
    free(t);
}

/* A binary tree of goroutines, `count` deep; leaves their number in `shared`. */
void grow_tree(void *p)
{
    job *j = p;
    gort_wg *wg = gort_wg_new();
    twig *t = malloc(sizeof *t);
    *t = (twig){ j, wg, j->count };
    gort_wg_add(wg, 1);
    gort_go(grow, t);
    gort_wg_wait(wg);
    gort_wg_free(wg);
    j->sum = atomic_load(&j->shared);
}

/* Makes a channel and two goroutines of its own; all in C. */
static void double_it(void *p)
{
    gort_chan **c = p;
    int64_t v;
    while (gort_chan_recv(c[0], &v) == GORT_OK) {
        v *= 2;
        gort_chan_send(c[1], &v);
    }
    gort_chan_close(c[1]);
}

void all_in_c(void *p)
{
    job *j = p;
    gort_chan *c[2] = { gort_chan_new(GORT_I64, 0), gort_chan_new(GORT_I64, 4) };
    gort_go(double_it, c);
    for (int64_t i = 0, v; i < j->count; i++) {
        gort_chan_send(c[0], &i);
        gort_chan_recv(c[1], &v);
        j->sum += v;
    }
    gort_chan_close(c[0]);
    int64_t v;
    j->status = gort_chan_recv(c[1], &v);
    gort_chan_unref(c[0]);
    gort_chan_unref(c[1]);
}

/* Racing timeouts: send `count` numbers from `first` on, each with a timeout; `seen` marks those sent. */
void send_racing(void *p)
{
    job *j = p;
    for (int64_t v = j->first; v < j->first + j->count; v++)
        if (gort_chan_send_timeout(j->out, &v, j->timeout_ns) == GORT_OK) {
            j->sum++;
            j->seen[v] = 1;
        }
}

static int64_t burn(volatile char *above, int64_t n)
{
    volatile char page[2048];
    page[0] = above ? above[0] : 1;
    return n ? burn(page, n - 1) + page[0] : page[0];
}

void overflow(void *p) { (void)p; burn(NULL, INT64_C(1) << 40); }
"""


class Job(ctypes.Structure):
    """`job` of SOURCE. Keep it alive while a goroutine uses it."""

    _fields_ = [
        ("inp", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("first", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("sum", ctypes.c_int64),
        ("status", ctypes.c_int64),
        ("timeout_ns", ctypes.c_int64),
        ("seen", ctypes.c_void_p),
        ("shared", ctypes.c_int64),
    ]


OK, ECLOSED, EAGAIN, ETIMEDOUT = 0, -1, -2, -3


def load(folder: Path) -> Any:
    """Compile SOURCE in `folder` and load it; gort_* resolve to the extension module's."""
    source, library = folder / "bodies.c", folder / "libbodies.so"
    source.write_text(SOURCE)
    subprocess.run(
        [os.environ.get("CC", "cc"), "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        + ["-I", gort.get_include(), str(source), "-o", str(library)],
        check=True,
    )
    ctypes.CDLL(gort.native.lib_path(), mode=ctypes.RTLD_GLOBAL)
    lib = ctypes.CDLL(str(library))
    lib.spin_until_set.argtypes = [ctypes.c_void_p]
    return lib


def start(fn: Any, job: Any) -> Any:
    """Run the C function as a native goroutine on `job`."""
    return gort.native.go(fn, ctypes.addressof(job))
