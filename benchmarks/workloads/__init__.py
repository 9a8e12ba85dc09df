"""One question per file; `ORDER` is the order in which they are asked."""

ORDER = (
    "spawn", "unbuffered", "buffered", "yield_two", "select2", "mutex", "pipeline",
    "fan", "skynet", "sleepers", "context", "library", "parked_memory", "million",
    "ticker", "hogs", "interrupts", "beside", "files", "echo", "http",
)  # fmt: skip
