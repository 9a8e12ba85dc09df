/* native.c - gort.h's goroutine, time and runtime calls. */
#include "runtime.h"
#include "schedint.h"

#include <stdlib.h>

int64_t gort_now_ns(void) { return os_now_ns(); }

/* As gort_go; the new goroutine's id is in *id before it runs. */
static int start(void (*fn)(void *), void *arg, _Atomic uint64_t *id)
{
    if (unlikely(!fn)) return GORT_EINVAL;
    M *m = getm();
    if (unlikely(!m || m->dom != &gort_native)) {
        int r = gort_init();
        if (r) return r;
        if (!m_ensure(&gort_native)) return GORT_ENOMEM;
    }
    G *g = g_new(&gort_native);
    if (unlikely(!g)) return GORT_ENOMEM;
    g->id = g_new_id();
    if (id) atomic_store(id, g->id);
    g->fn = fn;
    g->arg = arg;
    g_start(g);
    return GORT_OK;
}

int gort_go(void (*fn)(void *), void *arg) { return start(fn, arg, NULL); }

void gort_yield(void)
{
    M *m = getm();
    if (m && m->curg && m->curg->kind == GK_NATIVE) g_yield();
    else os_yield_cpu();
}

uint64_t gort_goid(void)
{
    M *m = getm();
    return m && m->curg ? m->curg->id : 0;
}

int sleep_until(int64_t when, const waitopt *o)
{
    waitopt w = *o;
    w.deadline = when;
    waitq q = {0};
    sudog s;
    int code = wait_on(&q, &s, getg_waiter(o->python), NULL, false, R_SLEEP | R_DURABLE, &w, false);
    return code == WC_TIMEOUT ? GORT_OK : wait_error(code);
}

int gort_sleep_ns(int64_t ns)
{
    if (ns <= 0) {
        gort_yield();
        return GORT_OK;
    }
    int64_t now = gort_now_ns();
    return sleep_until(ns > GORT_FOREVER - 1 - now ? GORT_FOREVER - 1 : now + ns, &wait_forever_native);
}

int gort_maxprocs(int n)
{
    if (gort_init()) return GORT_ENOMEM;
    if (n < 1) return atomic_load(&gort_native.nprocs);
    return sched_set_procs(&gort_native, n);
}

int64_t gort_num_native(void) { return sched_ngo(&gort_native); }

/* ---- jobs: native goroutines that somebody may join ------------------------ */
static void job_main(void *p)
{
    native_job *j = p;
    j->fn(j->arg);
    lock_if(&j->n);
    j->done = true;
    gmutex_unlock(&j->n.lock);
    notify_wake(&j->n, true);
    job_unref(j);
}

native_job *job_start(void (*fn)(void *), void *arg)
{
    native_job *j = os_malloc(sizeof *j);
    if (!j) return NULL;
    *j = (native_job){ .fn = fn, .arg = arg };
    j->n.shared = true;
    atomic_init(&j->n.gen, gort_fork_gen);
    atomic_init(&j->refs, 2);
    if (start(job_main, j, &j->id) == 0) return j;
    free(j);
    return NULL;
}

/* It ran in the process that this one was forked from. */
static bool job_gone(native_job *j) { return atomic_load(&j->n.gen) != gort_fork_gen; }

void native_fork(G *g)
{
    if (g->fn == job_main) fork_check(&((native_job *)g->arg)->n); /* it goes on here */
}

int job_join(native_job *j, const waitopt *o)
{
    if (unlikely(job_gone(j))) return GORT_OK;
    gmutex_lock(&j->n.lock);
    if (!j->done) return notify_wait(&j->n, R_JOIN, o);
    gmutex_unlock(&j->n.lock);
    return GORT_OK;
}

bool job_done(native_job *j)
{
    if (unlikely(job_gone(j))) return true;
    gmutex_lock(&j->n.lock);
    bool d = j->done;
    gmutex_unlock(&j->n.lock);
    return d;
}

void job_unref(native_job *j)
{
    if (atomic_fetch_sub(&j->refs, 1) == 1) free(j);
}
