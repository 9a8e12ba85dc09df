/* os.h - what gort asks of the operating system, and its low-level lock.
 *
 * Lowest layer: knows nothing of G, M and P. Fault injection for tests hooks in
 * here (os_fail_*), so every caller's failure path can be forced.
 */
#ifndef GORT_OS_H
#define GORT_OS_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define GORT_SANITIZE_FIBERS 1
#else
#define GORT_SANITIZE_FIBERS 0
#endif

/* A futex mutex (Drepper, "Futexes are tricky", mutex2): 0 free, 1 held,
 * 2 held and maybe waited for. Held for some tens of instructions only. */
typedef struct gmutex { _Atomic uint32_t v; } gmutex;
void gmutex_lock_slow(gmutex *m);
void gmutex_unlock_slow(gmutex *m);

static inline bool gmutex_trylock(gmutex *m)
{
    uint32_t zero = 0;
    return atomic_compare_exchange_strong_explicit(&m->v, &zero, 1, memory_order_acquire,
                                                   memory_order_relaxed);
}
static inline void gmutex_lock(gmutex *m)
{
    if (__builtin_expect(!gmutex_trylock(m), 0)) gmutex_lock_slow(m);
}
static inline void gmutex_unlock(gmutex *m)
{
    if (__builtin_expect(atomic_exchange_explicit(&m->v, 0, memory_order_release) == 2, 0))
        gmutex_unlock_slow(m);
}

/* Wait while *addr == val; timeout_ns < 0: for ever. Returns -1 with errno. */
int os_futex_wait(_Atomic uint32_t *addr, uint32_t val, int64_t timeout_ns);
void os_futex_wake(_Atomic uint32_t *addr, int n);

void *os_reserve(size_t bytes);             /* zeroed, no swap reserved; NULL */
void os_release(void *p, size_t bytes);     /* back to the kernel for good */
void os_discard(void *p, size_t bytes);     /* contents gone, reads as zeros */
#define OS_GUARDS 64
/* Make n guards of `bytes` bytes, `apart` bytes from each other; -1: not all could be. */
int os_guard(char *p, size_t bytes, size_t apart, size_t n);
int os_unguard(char *p, size_t bytes); /* async-signal-safe */
size_t os_page_size(void);
int os_ncpu(void);
int os_gettid(void);
void os_interrupt(int tid);      /* end the system call that this thread of ours is in with EINTR */
int64_t os_now_ns(void);
void os_slice(int tid, int64_t ns);
bool os_thread_runs(int tid);    /* or would if it got a processor; false: it waits, or nobody knows */
/* A detached thread with all signals blocked but the synchronous ones. */
int os_thread_start(void *(*fn)(void *), void *arg, size_t stack);
void os_yield_cpu(void);
static inline void os_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("yield");
#endif
}

/* Fault injection: the n-th call from now on fails, and m-1 more; 0 = never. */
enum { OS_FAIL_MMAP = 0, OS_FAIL_THREAD, OS_FAIL_GUARD, OS_FAIL_MALLOC, OS_FAIL_COUNT_ };
void os_fail_set(int what, int64_t after, int64_t times);
bool os_fail(int what);
void *os_malloc(size_t n);                  /* malloc with fault injection */
#endif
