/* pyctx_builtins.c - builtins that must know of goroutines, replaced in place.
 *
 * In place: the C function in their PyMethodDef becomes one of ours, which calls
 * it. Whoever has the Python function already, and the interpreter's specialised
 * calls, get ours too.
 *
 * The parser, the compiler and marshal get a large stack. CPython 3.11 to 3.13
 * bound their recursion by constants of their own, chosen for a thread's 8 MiB:
 * 6,000 levels of the parser (800 KB), 2,000 of marshal (600 KB), 10,000 of the
 * compiler of 3.13 (1.9 MB). None of these is counted where the warning zone of a
 * goroutine's stack (stack.c) could end it. So these few builtins, called in a
 * goroutine, run on a stack that is borrowed for the call. What they call there
 * (the code of a source text given to exec or eval, audit hooks) may park and move
 * to another OS thread: the large stack is the goroutine's until the call returns.
 * A code object given to exec or eval borrows none. From 3.14 on CPython looks at
 * the stack pointer, and they are left alone.
 *
 * faulthandler would take SIGSEGV away from the warning zone: enabled after gort
 * was imported, by coming before it; disabled, by putting back what was there
 * before gort. So it finds what it would find without gort, and gort comes back
 * before it.
 *
 * The GIL guards everything here.
 */
#include "pycompat.h"
#include "pyctx.h"

/* ---- large stacks ----------------------------------------------------------------- */
#if PYC_COUNTS_C

#define LARGE ((size_t)8 << 20)
#define KEPT 4                  /* large stacks kept, with what they have touched */

static char *kept[KEPT];
static int nkept;

static char *large_take(void)
{
    if (nkept) return kept[--nkept];
    char *lo = os_reserve(LARGE);
    if (lo && os_guard(lo, os_page_size(), 0, 1) != 0) {
        os_release(lo, LARGE);
        lo = NULL;
    }
    return lo;
}

static void large_put(char *lo)
{
    if (nkept < KEPT) kept[nkept++] = lo;
    else os_release(lo, LARGE);
}

typedef struct call {
    PyCFunction fn;
    int flags;
    PyObject *self, *const *args;
    Py_ssize_t n;
    PyObject *kwnames, *result;
} call;

static void run(void *arg)
{
    call *c = arg;
    void *fn = (void *)c->fn;
    if (c->flags & METH_KEYWORDS) c->result = ((_PyCFunctionFastWithKeywords)fn)(c->self, c->args, c->n, c->kwnames);
    else if (c->flags & METH_FASTCALL) c->result = ((_PyCFunctionFast)fn)(c->self, c->args, c->n);
    else c->result = c->fn(c->self, c->args[0]);
}

static PyObject *call_deep(call *c, bool runs)
{
    M *m = getm();
    G *g = m ? m->curg : NULL;
    char *here = __builtin_frame_address(0), *lo;
    if (!g || here < g->stack_lo || here >= g->stack_hi || (runs && c->n && PyCode_Check(c->args[0])) ||
        !(lo = large_take())) {
        run(c);
        return c->result;
    }
    if (g->deep) pyctx_shallow(g); /* no count that is cut for the small stack */
    gort_call_on(lo + LARGE, run, c);
    large_put(lo);
    return c->result;
}

/* A function of C does not know which Python function it is: one of ours for each. */
static struct { const char *module, *name; bool runs; PyCFunction fn; int flags; } deep[] = {
    { "builtins", "compile", false, NULL, 0 }, { "builtins", "exec", true, NULL, 0 },
    { "builtins", "eval", true, NULL, 0 },     { "marshal", "loads", false, NULL, 0 },
    { "marshal", "load", false, NULL, 0 },     { "marshal", "dumps", false, NULL, 0 },
    { "marshal", "dump", false, NULL, 0 },
};
#define DEEP ((int)(sizeof deep / sizeof *deep))

#define OURS(i)                                                                                            \
    static PyObject *one##i(PyObject *self, PyObject *arg)                                                 \
    {                                                                                                      \
        call c = { deep[i].fn, deep[i].flags, self, &arg, 1, NULL, NULL };                                 \
        return call_deep(&c, deep[i].runs);                                                              \
    }                                                                                                      \
    static PyObject *fast##i(PyObject *self, PyObject *const *args, Py_ssize_t n)                          \
    {                                                                                                      \
        call c = { deep[i].fn, deep[i].flags, self, args, n, NULL, NULL };                                 \
        return call_deep(&c, deep[i].runs);                                                              \
    }                                                                                                      \
    static PyObject *keywords##i(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames)   \
    {                                                                                                      \
        call c = { deep[i].fn, deep[i].flags, self, args, n, kwnames, NULL };                              \
        return call_deep(&c, deep[i].runs);                                                              \
    }
OURS(0) OURS(1) OURS(2) OURS(3) OURS(4) OURS(5) OURS(6)

#define THREE(i) { (void *)one##i, (void *)fast##i, (void *)keywords##i }
static void *const ours[][3] = { THREE(0), THREE(1), THREE(2), THREE(3), THREE(4), THREE(5), THREE(6) };

static int deepen(int i)
{
    PyObject *module = PyImport_ImportModule(deep[i].module);
    PyObject *f = module ? PyObject_GetAttrString(module, deep[i].name) : NULL;
    Py_XDECREF(module);
    if (!f) return -1;
    if (PyCFunction_CheckExact(f)) { /* else somebody else has replaced it: leave it alone */
        PyMethodDef *def = ((PyCFunctionObject *)f)->m_ml;
        int flags = def->ml_flags & ~METH_STATIC;
        int kind = flags == METH_O ? 0 : flags == METH_FASTCALL ? 1 : flags == (METH_FASTCALL | METH_KEYWORDS) ? 2 : -1;
        if (kind >= 0) {
            deep[i].fn = def->ml_meth;
            deep[i].flags = flags;
            def->ml_meth = (PyCFunction)ours[i][kind];
        }
    }
    Py_DECREF(f);
    return 0;
}

static int deepen_all(void)
{
    for (int i = 0; i < DEEP; i++)
        if (!deep[i].fn && deepen(i) < 0) return -1;
    return 0;
}
#else
static int deepen_all(void) { return 0; }
#endif

/* ---- faulthandler --------------------------------------------------------------- */
static PyCFunction their_enable, their_disable;

static PyObject *enable(PyObject *self, PyObject *args, PyObject *kwargs)
{
    fatal_leave_faults();
    PyObject *r = ((PyCFunctionWithKeywords)(void *)their_enable)(self, args, kwargs);
    fatal_take_faults();
    return r;
}

static PyObject *disable(PyObject *self, PyObject *arg)
{
    fatal_leave_faults();
    PyObject *r = their_disable(self, arg);
    fatal_take_faults();
    return r;
}

static int replace_in(PyObject *module, const char *name, int flags, PyCFunction *theirs, PyCFunction mine)
{
    PyObject *f = PyObject_GetAttrString(module, name);
    if (!f) return -1;
    if (PyCFunction_CheckExact(f) && !*theirs && ((PyCFunctionObject *)f)->m_ml->ml_flags == flags) {
        *theirs = ((PyCFunctionObject *)f)->m_ml->ml_meth;
        ((PyCFunctionObject *)f)->m_ml->ml_meth = mine;
    }
    Py_DECREF(f);
    return 0;
}

int pyctx_builtins_init(void)
{
    PyObject *module = PyImport_ImportModule("faulthandler");
    if (!module) return -1;
    int r = replace_in(module, "enable", METH_VARARGS | METH_KEYWORDS, &their_enable, (PyCFunction)(void *)enable);
    if (r == 0) r = replace_in(module, "disable", METH_NOARGS, &their_disable, disable);
    Py_DECREF(module);
    return r < 0 ? r : deepen_all();
}
