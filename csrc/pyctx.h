/* pyctx.h - the seam between the scheduler and CPython's thread states. */
#ifndef GORT_PYCTX_H
#define GORT_PYCTX_H
#include <Python.h>
#include "runtime.h"

/* Make the calling thread goroutine 1. 0, or -1 with an exception set. */
int pyctx_init(void);
/* Run the handlers of signals that came in; main goroutine only. 0 or -1. */
int pyctx_check_signals(void);
/* "fast" or "stock": how thread states are swapped. */
const char *pyctx_swap_name(void);
unsigned long pyctx_main_ident(void); /* of the main thread, for threading */
void pyctx_use_stock_swap(void);
/* In a fork's child, when CPython is itself again. 0, or -1 with an exception set. */
int pyctx_forked(void);
/* At exit: nothing of ours touches Python any more but the calling thread. */
void pyctx_stop(void);
/* Free the thread states of all dead goroutines. */
void pyctx_free_pool(void);
PyObject *pyctx_frame_or_none(G *g); /* g's innermost Python frame; new reference */
/* Replace what must know of goroutines. 0, or -1 with an exception set. */
int pyctx_builtins_init(void);
void pyctx_shallow(G *g);       /* as pyhooks.shallow */
void pyctx_dead(G *g);          /* reset the thread state of the G that ends */
#endif
