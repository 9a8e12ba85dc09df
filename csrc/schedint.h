/* schedint.h - what sched.c, proc.c and sysmon.c share among themselves. */
#ifndef GORT_SCHEDINT_H
#define GORT_SCHEDINT_H
#include "runtime.h"

/* sched.c */
void sched_set_m(M *m);
void sched_wakep(Dom *d);
void sched_move(G *g);
void sched_rejoin(G *g);
bool sched_movable(G *g);       /* to another OS thread, in the midst of a call */
void sched_submit(G *g);        /* a member of a bubble whose turn it is */
int sched_adopt(M *m, G *g);
int sched_adopt_main(void *ts); /* the calling thread becomes M0, and goroutine 1 what it runs */
void sched_g0_here(M *m);       /* the calling thread's stack is m's g0 */
_Noreturn void sched_loop(M *m);
void gort_g0_tramp(void);
_Noreturn void g_entry(void);
_Noreturn void g0_entry(void);

/* wait.c */
void waiters_init(void);

/* proc.c; "locked": dom.lock is held */
P *pidle_get(Dom *d);                           /* locked */
void pidle_put(Dom *d, P *p);                   /* locked */
void p_acquire(M *m, P *p);
void p_release(M *m);                           /* locked */
void p_retire(M *m);
void p_handoff(M *m);
bool m_start(Dom *d, P *p, bool spinning);
bool m_ensure(Dom *d);
void m_stop(M *m, bool recheck, bool look);
void m_stop_locked(M *m);
bool m_start_locked(M *m, G *g);
void m_run_without_p(Dom *d, G *g);
static inline void p_owner(P *p, M *m)          /* handed over, m->p comes later */
{
    atomic_store(&p->m, m);
    atomic_store(&p->status, P_RUNNING);
}

/* sysmon.c */
void sysmon_start(void);
void sysmon_wake(void);
void sysmon_nudge(void);
void sysmon_promote(M *m);
void sysmon_slice(void);
#endif
