"""Memory that was freed, given back to the operating system."""

import ctypes
from collections.abc import Callable


def _trim() -> Callable[[int], object] | None:
    """The allocator's own function; None where it has none, as it is an extension of glibc."""
    try:
        found: Callable[[int], object] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):
        return None
    return found


_MALLOC_TRIM = _trim()


def trim_memory() -> None:
    """Give back what glibc keeps of freed memory; elsewhere nothing.

    onnxruntime frees a model in many pieces between others that live on, and glibc would keep them
    all: without this the process holds about half a model more after the first few reloads. Other
    threads go on meanwhile: the interpreter is released.
    """
    if _MALLOC_TRIM is not None:
        _MALLOC_TRIM(0)
