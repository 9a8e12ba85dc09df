/* fatal.c - the end: Go's kind of report, then abort.
 *
 * A goroutine that runs into its guard page, a segfault, a broken invariant:
 * print what happened, then every goroutine's stack, as far as it can be had in
 * a signal handler, and abort. The handlers run on an alternate stack of their
 * thread. A fault in the warning zone of a stack opens it (stack.c), and the
 * program goes on. One that is not ours goes to whoever had the signal before us
 * (faulthandler, the default action), after a goroutine report.
 *
 * SIGQUIT, unless the program has its own handler or ignores it, prints the same
 * stacks and exits.
 *
 * Everything here is async-signal-safe: no malloc, no lock, write() only.
 */
#define _GNU_SOURCE
#include "runtime.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define ALTSTACK ((size_t)64 << 10)

static struct sigaction old_segv, old_bus;
static _Atomic int dying;

static void out(const char *s)
{
    size_t n = strlen(s);
    while (n) {
        ssize_t k = write(2, s, n);
        if (k <= 0) return;
        s += k;
        n -= (size_t)k;
    }
}

static void out_num(uint64_t v)
{
    char buf[24], *p = buf + sizeof buf;
    *--p = 0;
    do *--p = (char)('0' + v % 10);
    while (v /= 10);
    out(p);
}

static void out_hex(uintptr_t v)
{
    char buf[20], *p = buf + sizeof buf;
    *--p = 0;
    do *--p = "0123456789abcdef"[v % 16];
    while (v /= 16);
    out("0x");
    out(p);
}

void gort_warn(const char *msg)
{
    out(msg);
    out("\n");
}

const char *g_status_name(G *g)
{
    static const char *const names[] = { "idle", "runnable", "running", "syscall", "waiting", "dead" };
    return names[atomic_load_explicit(&g->status, memory_order_relaxed)];
}

static int print_g(G *g, void *arg)
{
    int *left = arg;
    uint8_t st = atomic_load_explicit(&g->status, memory_order_relaxed);
    if (st == G_IDLE || st == G_DEAD) return true;
    if ((*left)-- <= 0) {
        out("\n...additional goroutines elided...\n");
        return false;
    }
    out("\ngoroutine ");
    out_num(g->id);
    out(" [");
    out(st == G_WAITING && g->reason < R_COUNT_ ? gort_reasons[g->reason] : g_status_name(g));
    int64_t mins = (atomic_load_explicit(&gort_coarse_ns, memory_order_relaxed) - g->wait_since) / 60000000000;
    if (st == G_WAITING && mins >= 1) {
        out(", ");
        out_num((uint64_t)mins);
        out(" minutes");
    }
    out(g->kind == GK_NATIVE ? ", native]:\n" : "]:\n");
    if (g->kind == GK_PYTHON && g->ts && gort_py) gort_py->dump(2, g);
    return true;
}

void fatal_print_goroutines(int fd)
{
    (void)fd;
    int left = 100;
    if (gort_main_g && !gort_main_g->stack_lo) print_g(gort_main_g, &left); /* else it is among them */
    stack_each(gort_python.stacks, print_g, &left);
    stack_each(gort_native.stacks, print_g, &left);
}

static _Noreturn void die(void)
{
    signal(SIGABRT, SIG_DFL);
    abort();
}

/* Only one thread reports; a fault within the report ends it at once. */
static bool enter(void)
{
    static _Atomic(pthread_t) owner;
    int zero = 0;
    if (atomic_compare_exchange_strong(&dying, &zero, 1)) {
        atomic_store(&owner, pthread_self());
        return true;
    }
    if (pthread_equal(atomic_load(&owner), pthread_self())) return false;
    for (;;) pause();
}

_Noreturn void gort_throw(const char *msg)
{
    if (enter()) {
        out("fatal error: ");
        out(msg);
        out("\n");
        fatal_print_goroutines(2);
    }
    die();
}

_Noreturn void gort_fatal(const char *fmt, ...)
{
    char buf[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    gort_throw(buf);
}

static void report_overflow(G *g, const void *addr)
{
    out("runtime: goroutine stack exceeds ");
    out_num((uint64_t)gort_stack_bytes);
    out("-byte limit\nfault address ");
    out_hex((uintptr_t)addr);
    out(", stack=[");
    out_hex((uintptr_t)g->stack_lo);
    out(", ");
    out_hex((uintptr_t)g->stack_hi);
    out("]\nfatal error: stack overflow\n\ngoroutine ");
    out_num(g->id);
    out(" [running]:\n");
    if (g->ts && gort_py) gort_py->dump(2, g);
}

static const void *stack_pointer(const ucontext_t *uc)
{
#if defined(__x86_64__)
    return (const void *)(uintptr_t)uc->uc_mcontext.gregs[REG_RSP];
#elif defined(__aarch64__)
    return (const void *)(uintptr_t)uc->uc_mcontext.sp;
#endif
}

static void on_fault(int sig, siginfo_t *info, void *uc)
{
    int saved = errno;
    const char *addr = info->si_addr;
    bool real = info->si_code > 0; /* not kill() or raise(), which leave no address */
    M *m = getm();
    G *g = NULL;
    if (real && m && !(g = stack_owner(gort_python.stacks, addr))) g = stack_owner(gort_native.stacks, addr);
    if (g && (g == m->curg || g == m->prev)) { /* prev: just about to leave its stack */
        if (stack_deep(g, addr, stack_pointer(uc))) { /* RecursionError is on its way */
            errno = saved;
            return;
        }
        if (addr < g->stack_lo) {
            if (enter()) {
                report_overflow(g, addr);
                out("\nother goroutines:\n");
                fatal_print_goroutines(2);
            }
            die();
        }
    }
    if (m && m->curg && m->curg != gort_main_g && enter()) {
        out(sig == SIGBUS ? "SIGBUS: bus error\n" : "SIGSEGV: segmentation violation\n");
        out("fault address ");
        out_hex((uintptr_t)addr);
        out(", in goroutine ");
        out_num(m->curg->id);
        out("\n");
        fatal_print_goroutines(2);
        atomic_store(&dying, 0);
    }
    /* Not ours to judge: restore what was there, and let the fault happen again. */
    struct sigaction *old = sig == SIGBUS ? &old_bus : &old_segv;
    sigaction(sig, old, NULL);
    memset(old, 0, sizeof *old); /* SIG_DFL, should they pass it on to us */
    if (!real) raise(sig); /* which no returning brings about again */
}

/* As in Go: `kill -QUIT` and Ctrl-\ show what every goroutine does, and end the process. */
static void on_quit(int sig)
{
    (void)sig;
    if (enter()) {
        out("SIGQUIT: quit\n");
        fatal_print_goroutines(2);
    }
    _exit(2);
}

void fatal_altstack(void)
{
    stack_t have, ss = { .ss_size = ALTSTACK };
    if (sigaltstack(NULL, &have) == 0 && !(have.ss_flags & SS_DISABLE)) return;
    ss.ss_sp = mmap(NULL, ALTSTACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ss.ss_sp != MAP_FAILED) sigaltstack(&ss, NULL);
}

void fatal_take_faults(void)
{
#if !GORT_SANITIZE_FIBERS /* the sanitizers report faults themselves */
    struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
    sigemptyset(&sa.sa_mask);
    sigaction(SIGSEGV, &sa, &old_segv);
    sigaction(SIGBUS, &sa, &old_bus);
#else
    (void)on_fault;
#endif
}

void fatal_install(void)
{
    fatal_take_faults();
#if !GORT_SANITIZE_FIBERS
    struct sigaction quit = { .sa_handler = on_quit, .sa_flags = SA_ONSTACK }, was;
    sigemptyset(&quit.sa_mask);
    if (sigaction(SIGQUIT, NULL, &was) == 0 && was.sa_handler == SIG_DFL) sigaction(SIGQUIT, &quit, NULL);
#else
    (void)on_quit;
#endif
}

static void leave(int sig, struct sigaction *old)
{
    struct sigaction now;
    if (sigaction(sig, NULL, &now) == 0 && now.sa_sigaction == on_fault) sigaction(sig, old, NULL);
}

void fatal_leave_faults(void)
{
    leave(SIGSEGV, &old_segv);
    leave(SIGBUS, &old_bus);
}
