/* os_linux.c - Linux: futex, mmap, guard pages, threads, time; see os.h.
 *
 * Owns no state but the fault-injection counters and two answers that are
 * asked for once (page size, whether MADV_GUARD_INSTALL works).
 */
#define _GNU_SOURCE
#include "os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define GMUTEX_SPIN 40          /* pauses before the futex; some 0.5 us */
#define MADV_GUARD_INSTALL_ 102 /* Linux 6.13 */
#define MADV_GUARD_REMOVE_ 103
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#define PIDFD_SELF_ (-10000)     /* Linux 6.14, as is process_madvise for oneself with any advice */
#define MADV_NONSENSE_ 0x7fff   /* qemu's user mode says yes to any advice, and does nothing */

static struct { _Atomic int64_t after, times; } fails[OS_FAIL_COUNT_];
static _Atomic bool fail_any;

void os_fail_set(int what, int64_t after, int64_t times)
{
    atomic_store(&fails[what].times, times);
    atomic_store(&fails[what].after, after);
    bool any = false;
    for (int i = 0; i < OS_FAIL_COUNT_; i++) any |= atomic_load(&fails[i].times) > 0;
    atomic_store(&fail_any, any);
}

bool os_fail(int what)
{
    if (__builtin_expect(!atomic_load_explicit(&fail_any, memory_order_relaxed), 1)) return false;
    if (atomic_load(&fails[what].times) <= 0) return false;
    if (atomic_fetch_sub(&fails[what].after, 1) > 1) return false;
    return atomic_fetch_sub(&fails[what].times, 1) > 0;
}

void *os_malloc(size_t n) { return os_fail(OS_FAIL_MALLOC) ? NULL : malloc(n); }

int os_futex_wait(_Atomic uint32_t *addr, uint32_t val, int64_t timeout_ns)
{
    struct timespec ts, *tp = NULL;
    if (timeout_ns >= 0) {
        ts.tv_sec = timeout_ns / 1000000000;
        ts.tv_nsec = timeout_ns % 1000000000;
        tp = &ts;
    }
    return (int)syscall(SYS_futex, addr, FUTEX_WAIT_PRIVATE, val, tp, NULL, 0);
}

void os_futex_wake(_Atomic uint32_t *addr, int n)
{
    syscall(SYS_futex, addr, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

void gmutex_lock_slow(gmutex *m)
{
    if (os_ncpu() > 1)
        for (int i = 0; i < GMUTEX_SPIN; i++) {
            os_pause();
            if (atomic_load_explicit(&m->v, memory_order_relaxed) == 0 && gmutex_trylock(m)) return;
        }
    while (atomic_exchange_explicit(&m->v, 2, memory_order_acquire) != 0)
        os_futex_wait(&m->v, 2, -1);
}

void gmutex_unlock_slow(gmutex *m) { os_futex_wake(&m->v, 1); }

void *os_reserve(size_t bytes)
{
    if (os_fail(OS_FAIL_MMAP)) { errno = ENOMEM; return NULL; }
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (p == MAP_FAILED) return NULL;
    madvise(p, bytes, MADV_NOHUGEPAGE); /* one page a goroutine, not 512 */
    return p;
}

void os_release(void *p, size_t bytes) { munmap(p, bytes); }
void os_discard(void *p, size_t bytes) { madvise(p, bytes, MADV_DONTNEED); }

static int guard_one(char *p, size_t bytes)
{
    static _Atomic int have_guard = -1;
    if (atomic_load_explicit(&have_guard, memory_order_relaxed) < 0)
        atomic_store(&have_guard, madvise(p, os_page_size(), MADV_NONSENSE_) != 0);
    if (atomic_load_explicit(&have_guard, memory_order_relaxed)) {
        if (madvise(p, bytes, MADV_GUARD_INSTALL_) == 0) return 0;
        if (errno != EINVAL) return -1;
        atomic_store(&have_guard, 0);
    }
    return mprotect(p, bytes, PROT_NONE);
}

int os_guard(char *p, size_t bytes, size_t apart, size_t n)
{
    static _Atomic bool one_by_one;
    if (os_fail(OS_FAIL_GUARD)) return -1;
    if (n > 1 && !atomic_load_explicit(&one_by_one, memory_order_relaxed)) {
        struct iovec v[OS_GUARDS];
        for (size_t i = 0; i < n; i++) v[i] = (struct iovec){ p + i * apart, bytes };
        if (syscall(SYS_process_madvise, PIDFD_SELF_, v, n, MADV_GUARD_INSTALL_, 0) == (long)(n * bytes)) return 0;
        atomic_store(&one_by_one, true); /* older kernels, emulators; a guard twice does no harm */
    }
    for (size_t i = 0; i < n; i++)
        if (guard_one(p + i * apart, bytes) != 0) return -1;
    return 0;
}

int os_unguard(char *p, size_t bytes)
{
    madvise(p, bytes, MADV_GUARD_REMOVE_); /* whichever kind it is */
    return mprotect(p, bytes, PROT_READ | PROT_WRITE);
}

size_t os_page_size(void)
{
    static _Atomic size_t size;
    size_t s = atomic_load_explicit(&size, memory_order_relaxed);
    if (!s) atomic_store(&size, s = (size_t)sysconf(_SC_PAGESIZE));
    return s;
}

int os_ncpu(void)
{
    static _Atomic int n;
    int v = atomic_load_explicit(&n, memory_order_relaxed);
    if (v) return v;
    cpu_set_t set;
    v = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    if (v < 1) v = 1;
    atomic_store(&n, v);
    return v;
}

int os_gettid(void) { return (int)syscall(SYS_gettid); }

static void nothing(int sig) { (void)sig; }

void os_interrupt(int tid)
{   /* SIGURG is nobody's, and ignored by default (Go's choice) */
    struct sigaction sa;
    if (sigaction(SIGURG, NULL, &sa) == 0 && (sa.sa_handler == SIG_DFL || sa.sa_handler == SIG_IGN)) {
        memset(&sa, 0, sizeof sa);
        sa.sa_handler = nothing;
        sigaction(SIGURG, &sa, NULL);
    }
    syscall(SYS_tgkill, getpid(), tid, SIGURG);
}

int64_t os_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void os_yield_cpu(void) { sched_yield(); }

/* How long the kernel shall let a thread (0: the calling one) run before others of its kind
 * get their turn, 0 ns: as long as it does by itself. EEVDF takes sched_runtime for that
 * from Linux 6.12 on, and there a thread that wakes up preempts those with a longer
 * slice; earlier ones leave it alone. */
void os_slice(int tid, int64_t ns)
{
    struct { /* struct sched_attr, which glibc has from 2.41 on */
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } a = {0};
    if (syscall(SYS_sched_getattr, tid, &a, sizeof a, 0) < 0) return;
    if (a.policy != SCHED_OTHER && a.policy != SCHED_BATCH) return; /* a real-time thread's is another matter */
    if (a.nice < 0) return; /* it goes before others already; the flag would reset that too */
    a.flags |= 1; /* SCHED_FLAG_RESET_ON_FORK: threads and processes it starts begin as usual */
    a.runtime = (uint64_t)ns;
    if (syscall(SYS_sched_setattr, tid, &a, 0) < 0) return;
}

bool os_thread_runs(int tid)
{
    char buf[256], *state = NULL;
    snprintf(buf, sizeof buf, "/proc/self/task/%d/stat", tid);
    int fd = open(buf, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, buf, sizeof buf - 1);
    close(fd);
    if (n > 0) {
        buf[n] = 0;
        state = strrchr(buf, ')'); /* "12 (name) R ..." */
    }
    return state && state[1] == ' ' && state[2] == 'R';
}

int os_thread_start(void *(*fn)(void *), void *arg, size_t stack)
{
    if (os_fail(OS_FAIL_THREAD)) return EAGAIN;
    pthread_attr_t attr;
    pthread_t th;
    sigset_t all, old;
    int e = pthread_attr_init(&attr);
    if (e) return e;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (stack < (size_t)PTHREAD_STACK_MIN * 4) stack = (size_t)PTHREAD_STACK_MIN * 4;
    pthread_attr_setstacksize(&attr, stack);
    /* Signals belong to the main thread; faults must stay deliverable here. */
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGABRT);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    e = pthread_create(&th, &attr, fn, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return e;
}
