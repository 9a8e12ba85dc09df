"""One question per file; `ORDER` is the order in which they are asked."""

ORDER = (
    "spawn", "unbuffered", "buffered", "yield_two", "select2", "mutex", "pipeline",
    "fan", "skynet", "sleepers", "context", "parked_memory", "million",
)  # fmt: skip
