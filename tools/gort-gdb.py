"""Goroutines in gdb: of a live process, or of a core file.

    gdb -p PID -x gort-gdb.py        gdb PYTHON CORE -x gort-gdb.py

    info goroutines [MAX]   number, state, for how long, name and innermost Python frame; MAX
                            of them (200 unless said otherwise, 0 for all)
    info gort               OS threads (M), processors (P) and queues of the scheduler
    goroutine N bt          Python and C stack of goroutine N; `all` for every one
    goroutine N COMMAND     any command of gdb, with the C stack of goroutine N
    goroutine N wait        its wait word, see csrc/runtime.h
    gort-chan CHAN          a gort_chan *: its state and who waits
    gort-waitq QUEUE        a waitq *: who waits, such as gort-waitq &m->q for a Mutex

Nothing in the process is called or written, so that it may be in any state, and
CPython's own debug information is not needed: gort's has what is read here of
CPython's structures. gort must not be stripped. gdb 10 or later, x86-64 and aarch64.
"""

from __future__ import annotations

import re
import time

import gdb
import gdb.unwinder

STATES = ["idle", "runnable", "running", "syscall", "waiting", "dead"]  # G_*
IDLE, RUNNABLE, RUNNING, SYSCALL, WAITING, DEAD = range(6)
PYTHON, NATIVE, THREAD, G0, FRESH = range(1, 6)  # GK_*
CODES = ["not claimed", "ok", "closed", "timeout", "kill", "deadlock", "interrupted", "context", "no memory"]
P_STATES = ["idle", "running", "dead"]
MAX_FRAMES = 200
BACKTRACE = r"(bt|backtrace|where)\b"

# Where gort_switch leaves the registers of who calls it: (register, bytes above G.sp); and how
# far above it the caller's stack ends. See switch_*.S.
SAVED = {
    "x86-64": ([("rip", 48), ("rbp", 40), ("rbx", 32), ("r12", 24), ("r13", 16), ("r14", 8), ("r15", 0)], "rsp", 56),
    "aarch64": (
        [("pc", 8), ("x29", 0), ("x30", 8), *((f"x{n}", 16 + 8 * (n - 19)) for n in range(19, 29))],
        "sp",
        160,
    ),
}


# ---- what gort's debug information knows ------------------------------------------------
class Runtime:
    """gort's extension module in the program, its variables and types."""

    def __init__(self) -> None:
        found = [o for o in gdb.objfiles() if o.filename and "_runtime." in o.filename] or gdb.objfiles()
        for objfile in found:
            symbol = objfile.lookup_global_symbol("gort_python")
            if symbol is not None:
                break
        else:
            raise gdb.GdbError(
                "gort is not loaded in this program, or its extension module is stripped: "
                "`goroutine` and `info goroutines` need its debug information"
            )
        self.objfile = objfile
        self.python = symbol.value()
        self.native = self.variable("gort_native")
        self.reasons = self.variable("gort_reasons")
        self.g_type = self.python.type["stacks"].type  # any type of that file leads to the others
        self.scope = symbol.symtab.static_block()
        self.g_type = self.type("struct G")
        seam = objfile.lookup_static_symbol("main_ts")
        self.py_scope = seam.symtab.static_block() if seam is not None else None
        self.word = gdb.lookup_type("unsigned long")

    def variable(self, name: str) -> gdb.Value:
        symbol = self.objfile.lookup_global_symbol(name) or self.objfile.lookup_static_symbol(name)
        if symbol is None:
            raise gdb.GdbError(f"gort's debug information lacks {name}")
        return symbol.value()

    def type(self, name: str) -> gdb.Type:
        return gdb.lookup_type(name, self.scope)

    def py_type(self, name: str) -> gdb.Type:
        return gdb.lookup_type(name, self.py_scope)

    def now(self) -> int:
        """On the clock of G.wait_since; of a core the time that sysmon last saw."""
        target = gdb.selected_inferior().connection
        if target is not None and target.type == "native":
            return time.monotonic_ns()
        return int(self.variable("gort_coarse_ns"))


runtime: Runtime | None = None


def rt() -> Runtime:
    """Found anew in a program that was started, or attached to, since."""
    global runtime
    if runtime is None or not runtime.objfile.is_valid():
        runtime = Runtime()
    return runtime


def forget(_event: object) -> None:
    global runtime
    runtime = None


gdb.events.new_objfile.connect(forget)
gdb.events.clear_objfiles.connect(forget)


def chain(first: gdb.Value, link: str):
    """The members of a linked list; a damaged one ends."""
    seen = set()
    while int(first) and int(first) not in seen:
        seen.add(int(first))
        yield first.dereference()
        first = first[link]


# ---- Python's objects and frames, read from memory -----------------------------------------
def py_str(pointer: gdb.Value) -> str:
    """The text of a str object."""
    address = int(pointer)
    if not address:
        return "?"
    head = rt().py_type("PyASCIIObject")
    text = gdb.Value(address).cast(head.pointer()).dereference()
    length, kind = int(text["length"]), int(text["state"]["kind"])
    if not 0 <= length <= 100_000 or kind not in (1, 2, 4) or not int(text["state"]["compact"]):
        return "?"
    body = address + (head if int(text["state"]["ascii"]) else rt().py_type("PyCompactUnicodeObject")).sizeof
    raw = gdb.selected_inferior().read_memory(body, min(length, 500) * kind).tobytes()
    return raw.decode({1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}[kind], "replace")


def py_type_name(pointer: gdb.Value) -> str:
    return pointer["ob_type"]["tp_name"].string()


def py_function_name(fn: gdb.Value) -> str:
    """What Goroutine.name says of a callable, as far as it can be read."""
    kind = py_type_name(fn)
    if kind == "method":
        fn = fn.cast(rt().py_type("PyMethodObject").pointer())["im_func"]
        kind = py_type_name(fn)
    if kind == "function":
        return py_str(fn.cast(rt().py_type("PyFunctionObject").pointer())["func_qualname"])
    if kind == "builtin_function_or_method":
        return fn.cast(rt().py_type("PyCFunctionObject").pointer())["m_ml"]["ml_name"].string()
    if kind == "str":  # after its end: the name itself
        return py_str(fn)
    return kind.rsplit(".", 1)[-1]


def varint(data: bytes, at: int) -> tuple[int, int]:
    value, shift = data[at] & 63, 0
    while data[at] & 64:
        at, shift = at + 1, shift + 6
        value |= (data[at] & 63) << shift
    return value, at + 1


def py_line(code: gdb.Value, offset: int) -> int:
    """The line of the instruction at `offset` bytes, from co_linetable (Objects/locations.md)."""
    line = int(code["co_firstlineno"])
    table = code["co_linetable"].cast(rt().py_type("PyBytesObject").pointer())
    size = int(table["ob_base"]["ob_size"])
    data = gdb.selected_inferior().read_memory(int(table["ob_sval"].address), size).tobytes()
    at = end = 0
    while at < size:
        kind, units = data[at] >> 3 & 15, (data[at] & 7) + 1
        end += 2 * units
        if kind in (13, 14):
            delta, _ = varint(data, at + 1)
            line += -(delta >> 1) if delta & 1 else delta >> 1
        elif 10 <= kind <= 12:
            line += kind - 10
        if offset < end:
            return line if kind != 15 else 0
        at += 1
        while at < size and not data[at] & 128:
            at += 1
    return 0


def py_frames(ts: gdb.Value, limit: int = MAX_FRAMES) -> list[tuple[str, str, int]]:
    """(function, file, line) of a thread state's frames, innermost first."""
    if rt().py_scope is None or not int(ts):
        return []
    state = ts.cast(rt().py_type("PyThreadState").pointer())
    fields = {f.name for f in state.dereference().type.fields()}
    if "current_frame" in fields:  # 3.13
        frame = state["current_frame"]
    else:
        frame = state["cframe"]["current_frame"] if int(state["cframe"]) else gdb.Value(0)
    frames: list[tuple[str, str, int]] = []
    for f in chain(frame, "previous") if int(frame) else ():
        names = {x.name for x in f.type.fields()}
        if int(f["owner"]) >= 3:
            continue  # the interpreter's own entry frame
        where = f["f_executable"] if "f_executable" in names else f["f_code"]
        if where.type.strip_typedefs().code != gdb.TYPE_CODE_PTR:  # 3.14: a tagged word
            where = gdb.Value(int(where["bits"]) & ~3)
        where = where.cast(rt().py_type("PyObject").pointer())
        if not int(where) or py_type_name(where) != "code":
            continue
        code = where.cast(rt().py_type("PyCodeObject").pointer())
        instr = int(f["instr_ptr"] if "instr_ptr" in names else f["prev_instr"])
        line = py_line(code, instr - int(code["co_code_adaptive"].address))
        frames.append((py_str(code["co_qualname"]), py_str(code["co_filename"]), line))
        if len(frames) >= limit:
            break
    return frames


# ---- goroutines ------------------------------------------------------------------------------
class Goroutine:
    def __init__(self, g: gdb.Value) -> None:
        self.g = g
        self.id = int(g["id"])
        self.kind = int(g["kind"])
        self.fresh = self.kind == FRESH  # only the head of a G
        self.status = int(g["status"])
        self.system = bool(g["system"])

    @property
    def python(self) -> bool:
        return not self.fresh and self.kind != NATIVE

    def name(self) -> str:
        if self.kind == NATIVE:
            fn = gdb.execute(f"info symbol {int(self.g['fn']):#x}", to_string=True).split(" ", 1)[0]
            return "native" if fn == "No" else fn
        if not self.fresh and bool(self.g["main"]):
            return "main"
        handle = int(self.g["handle"])
        if not handle:
            return "?"
        try:
            handle_type = rt().py_type("struct __pyx_obj_4gort_5_core_8_runtime_Goroutine")
            h = gdb.Value(handle).cast(handle_type.pointer()).dereference()
            none = "NoneType"
            if int(h["_name"]) and py_type_name(h["_name"]) != none:
                return py_str(h["_name"])
            return py_function_name(h["what"])
        except gdb.error:
            return "?"

    def why(self) -> str:
        """What a header of gort.stack() says in brackets."""
        if self.fresh:
            return "runnable"
        if self.status != WAITING:
            return STATES[self.status] if self.status < len(STATES) else f"status {self.status}"
        return rt().reasons[int(self.g["reason"])].string() or "waiting"

    def since(self) -> str:
        if self.fresh or self.status != WAITING:
            return ""
        ns = rt().now() - int(self.g["wait_since"])
        if ns < 0:
            return "0s"
        s = ns / 1e9
        if s < 60:
            return f"{s:.0f}s"
        return f"{s / 60:.0f}m" if s < 3600 else f"{s / 3600:.1f}h"

    def frames(self, limit: int = MAX_FRAMES) -> list[tuple[str, str, int]]:
        if not self.python:
            return []
        try:
            return py_frames(self.g["ts"], limit)
        except gdb.error:
            return [("<unreadable>", "?", 0)]

    def thread(self) -> gdb.InferiorThread | None:
        """The OS thread on which it runs now."""
        m = self.g["m"] if not self.fresh else gdb.Value(0)
        if self.status not in (RUNNING, SYSCALL) or not int(m) or int(m["curg"]) != int(self.g.address):
            return None
        for t in gdb.selected_inferior().threads():
            if t.ptid[1] == int(m["tid"]):
                return t
        return None


def fresh_in(dom: gdb.Value):
    """Python goroutines that have not started: they are in a queue only."""
    heads = []
    for i in range(int(dom["nallp"])):
        p = dom["allp"][i]
        heads.append(p["runnext"])
        size = p["runq"].type.sizeof // 8
        heads += [p["runq"][k % size] for k in range(int(p["runq_head"]), int(p["runq_tail"]))]
    heads += [g.address for g in chain(dom["runq_first"], "link")]
    for b in chain(rt().variable("all"), "all_next") if int(dom["kind"]) == PYTHON else ():
        heads += [b["ready"][i] for i in range(int(b["nready"]))]
    return [h.dereference() for h in heads if int(h) and int(h["kind"]) == FRESH]


def with_stack(dom: gdb.Value):
    """The Gs of a domain's stack pool that live; the layout of a slot is stack.c's."""
    if not int(dom["stacks"]):
        return
    pool = dom["stacks"].dereference()
    size = int(pool["size"])
    at = size - int(pool["ds_tail"]) - int(pool["ds_head"]) - (rt().g_type.sizeof + 63) // 64 * 64
    pointer = rt().g_type.pointer()
    for slab in chain(pool["first"], "next"):
        base = int(slab["base"])
        for i in range(int(slab["used"])):
            g = gdb.Value(base + i * size + at).cast(pointer).dereference()
            if int(g["status"]) not in (IDLE, DEAD):
                yield g


def goroutines() -> list[Goroutine]:
    found = [rt().variable("gort_main_g").dereference()] if int(rt().variable("gort_main_g")) else []
    for dom in (rt().python, rt().native):
        found += with_stack(dom)
        found += fresh_in(dom)
    return sorted(map(Goroutine, found), key=lambda g: g.id)


def by_id(n: int) -> Goroutine:
    for g in goroutines():
        if g.id == n:
            return g
    raise gdb.GdbError(f"there is no goroutine {n}: `info goroutines` shows them")


# ---- the C stack of a goroutine that does not run ---------------------------------------------
class FrameId:
    def __init__(self, sp: gdb.Value, pc: gdb.Value) -> None:
        self.sp, self.pc = sp, pc


class ParkedUnwinder(gdb.unwinder.Unwinder):
    """While `g` is set, the selected thread's innermost frame was called by that goroutine.

    So its stack is frames 1 and up: nothing is written, and it works on a core.
    """

    def __init__(self) -> None:
        super().__init__("gort parked goroutine")
        self.g: Goroutine | None = None
        self.top = 0

    def __call__(self, pending: gdb.PendingFrame):
        if self.g is None:
            return None
        registers, sp_name, above = SAVED["x86-64" if "x86-64" in pending.architecture().name() else "aarch64"]
        real = pending.read_register(sp_name)
        if int(real) != self.top:
            return None
        sp = int(self.g.g["sp"])
        word = rt().word.pointer()
        # The id is on the goroutine's stack, for gdb wants callers above those they call.
        here = gdb.Value(sp).cast(real.type)
        info = pending.create_unwind_info(FrameId(here, pending.read_register("pc")))
        for name, offset in registers:
            value = gdb.Value(sp + offset).cast(word).dereference()
            info.add_saved_register(name, value.cast(pending.read_register(name).type))
        info.add_saved_register(sp_name, gdb.Value(sp + above).cast(real.type))
        return info


unwinder = ParkedUnwinder()
gdb.unwinder.register_unwinder(None, unwinder, replace=True)


def newest_physical() -> gdb.Frame:
    frame = gdb.newest_frame()
    while frame.type() == gdb.INLINE_FRAME:
        frame = frame.older()
    return frame


def parked(g: Goroutine, command: str) -> str:
    """What gdb says to `command` on the C stack of g."""
    sp_name = SAVED["x86-64" if "x86-64" in gdb.selected_frame().architecture().name() else "aarch64"][1]
    before = gdb.selected_thread()
    try:
        unwinder.top = int(gdb.newest_frame().read_register(sp_name))
        unwinder.g = g
        gdb.invalidate_cached_frames()
        inner = newest_physical()
        first = inner.older()
        if first is None:
            why = gdb.frame_stop_reason_string(inner.unwind_stop_reason())
            raise gdb.GdbError(f"gdb finds no C stack of goroutine {g.id}: {why}")
        first.select()
        skip = first.level()
        if re.match(BACKTRACE, command):  # a count is of frames shown
            command = re.sub(r"\s(\d+)$", lambda m: f" {int(m[1]) + skip}", command)
        text = gdb.execute(command, to_string=True)
        if re.match(BACKTRACE, command):
            text = re.sub(rf"(?ms)\A.*?(?=^#{skip}\s)", "", text)
            text = re.sub(r"(?m)^#(\d+)( *)", lambda m: f"#{int(m[1]) - skip:<3}", text)
        return text
    finally:
        unwinder.g = None
        gdb.invalidate_cached_frames()
        before.switch()
        gdb.newest_frame().select()


def c_stack(g: Goroutine, command: str) -> str:
    if g.fresh:
        return "it has not started: no stack yet\n"
    thread = g.thread()
    if thread is None:
        return parked(g, command)
    before = gdb.selected_thread()
    try:
        thread.switch()
        gdb.newest_frame().select()
        return gdb.execute(command, to_string=True)
    finally:
        before.switch()


# ---- commands -----------------------------------------------------------------------------------
def wait_word(g: gdb.Value) -> str:
    w = int(g["wake"])
    code, index = w >> 1 & 0x7F, w >> 8 & 0xFFFF
    claim = CODES[code] if code < len(CODES) else f"code {code}"
    claim = claim if code == 0 else f"claimed: {claim}, index {index}"
    return f"seq {w >> 24:#x}, {claim}, {'parked' if w & 1 else 'not parked'}"


def header(g: Goroutine) -> str:
    since = g.since()
    return f"goroutine {g.id} [{g.why()}{', ' + since if since else ''}] {g.name()}"


class InfoGoroutines(gdb.Command):
    """List goroutines: info goroutines [MAX], 200 unless said otherwise, 0 for all.

    Number (* if it runs on an OS thread now), state or what it waits for, for how long, name,
    and its innermost Python frame. A native goroutine has none.
    """

    def __init__(self) -> None:
        super().__init__("info goroutines", gdb.COMMAND_STATUS)

    def invoke(self, arg: str, from_tty: bool) -> None:
        most = int(arg) if arg.strip() else 200
        every = goroutines()
        for g in every[: most or None]:
            frames = g.frames(1)
            where = f"{frames[0][1]}:{frames[0][2]} in {frames[0][0]}" if frames else ""
            mark = "*" if g.thread() is not None else " "
            why = ", ".join(filter(None, [g.why(), g.since()]))
            kind = ", native" if g.kind == NATIVE else ", system" if g.system else ""
            print(f"{mark} {g.id:<5} [{why}{kind}] {g.name()}  {where}".rstrip())
        if most and len(every) > most:
            print(f"... and {len(every) - most} more: `info goroutines 0`")


class InfoGort(gdb.Command):
    """Show gort's scheduler: its OS threads (M), processors (P) and queues, for both domains."""

    def __init__(self) -> None:
        super().__init__("info gort", gdb.COMMAND_STATUS)

    def invoke(self, arg: str, from_tty: bool) -> None:
        for name, dom in (("Python", rt().python), ("native", rt().native)):
            timer_m = f", M{int(dom['timer_m']['id'])} sleeps for the timers" if int(dom["timer_m"]) else ""
            print(
                f"{name}: global queue {int(dom['runqsize'])}, idle Ps {int(dom['npidle'])}, "
                f"idle Ms {int(dom['nmidle'])}, spinning {int(dom['nmspinning'])}{timer_m}"
            )
            for i in range(int(dom["nallp"])):
                self.p(dom["allp"][i])
            for m in chain(dom["allm"], "alllink"):
                self.m(m)

    @staticmethod
    def p(p: gdb.Value) -> None:
        queue = int(p["runq_tail"]) - int(p["runq_head"])
        line = f"  P{int(p['id'])} {P_STATES[int(p['status'])]} tick {int(p['schedtick'])}, queue {queue}"
        line += f", timers {int(p['tm']['n'])}"
        if int(p["m"]):
            line += f", of M{int(p['m']['id'])}"
        if int(p["runnext"]):
            line += f", next goroutine {int(p['runnext']['id'])}"
        print(line)

    @staticmethod
    def m(m: gdb.Value) -> None:
        words = [
            ("idle", m["idle"]),
            ("spinning", m["spinning"]),
            ("runs goroutine {}", m["curg"]),
            ("owns P{}", m["p"]),
            ("has a thread state attached", m["ts"]),
            ("locked to goroutine {}", m["lockedg"]),
            ("gets P{}", m["nextp"]),
            ("gets goroutine {}", m["nextg"]),
        ]
        said = [text.format(int(v["id"])) if "{}" in text else text for text, v in words if int(v)]
        said.append(f"note {int(m['note'])}")
        print(f"  M{int(m['id'])} thread {int(m['tid'])}: {', '.join(said)}")


class GoroutineCommand(gdb.Command):
    """Look at one goroutine: goroutine N bt, goroutine all bt, goroutine N wait, goroutine N COMMAND.

    `bt` prints its Python frames, innermost first, and the C stack; it takes gdb's arguments.
    Any other command of gdb is carried out in the innermost frame of its C stack.
    """

    def __init__(self) -> None:
        super().__init__("goroutine", gdb.COMMAND_STACK)

    def invoke(self, arg: str, from_tty: bool) -> None:
        which, _, command = arg.strip().partition(" ")
        if not which or not (which == "all" or which.isdigit()):
            raise gdb.GdbError("goroutine N COMMAND: `goroutine 7 bt`, `goroutine all bt`, `goroutine 7 info locals`")
        for g in goroutines() if which == "all" else [by_id(int(which))]:
            print(header(g))
            self.one(g, command.strip() or "bt")

    @staticmethod
    def one(g: Goroutine, command: str) -> None:
        if command == "wait":
            print("not started" if g.fresh else wait_word(g.g))
            return
        if re.match(BACKTRACE, command):
            for name, file, line in g.frames():
                print(f"    {file}:{line} in {name}")
        print(c_stack(g, command))


def sudogs(queue: gdb.Value) -> None:
    for s in chain(queue["first"], "next"):
        g = s["g"].dereference()
        who = f"goroutine {int(g['id'])}" if int(g["kind"]) != THREAD else "an OS thread"
        print(f"  {who}: ticket {int(s['ticket']) >> 24:#x} index {int(s['index'])}; {wait_word(g)}")


class GortWaitq(gdb.Command):
    """Show who waits on a queue: gort-waitq WAITQ-POINTER."""

    def __init__(self) -> None:
        super().__init__("gort-waitq", gdb.COMMAND_DATA)

    def invoke(self, arg: str, from_tty: bool) -> None:
        queue = gdb.parse_and_eval(arg)
        sudogs(gdb.Value(int(queue)).cast(rt().type("waitq").pointer()).dereference())


class GortChan(gdb.Command):
    """Show a channel and who waits on it: gort-chan CHAN-POINTER (or its address: Chan.ptr)."""

    def __init__(self) -> None:
        super().__init__("gort-chan", gdb.COMMAND_DATA)

    def invoke(self, arg: str, from_tty: bool) -> None:
        c = gdb.Value(int(gdb.parse_and_eval(arg))).cast(rt().type("gort_chan").pointer()).dereference()
        print(", ".join(f"{f} {int(c[f])}" for f in ("dtype", "cap", "count", "closed", "shared")))
        print("receivers:")
        sudogs(c["recvq"])
        print("senders:")
        sudogs(c["sendq"])


for command in (InfoGoroutines, InfoGort, GoroutineCommand, GortWaitq, GortChan):
    command()
