"""Memory that was freed, given back to the operating system.

onnxruntime frees a model in thousands of pieces, between others that live on, and glibc keeps them:
a process that reloads its models would hold twice what it needs. Other allocators are left alone.
"""

import ctypes
import gc
from collections.abc import Callable

_MIB = 1024 * 1024

# Numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def _glibc(name: str) -> Callable[..., object] | None:
    """A function of the allocator; None where the C library is another."""
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    found: Callable[..., object] | None = getattr(library, name, None)
    return found if hasattr(library, "malloc_trim") else None


_MALLOPT = _glibc("mallopt")
_MALLOC_TRIM = _glibc("malloc_trim")


def limit_slack() -> None:
    """Let the allocator keep 8 MiB for each thread, instead of what the largest weights had.

    By itself it raises both limits to the largest piece that was ever freed, up to 32 and 64 MiB.
    The images and batches of a request stay below them, so that they are found without the system.
    """
    if _MALLOPT is not None:
        _MALLOPT(_M_MMAP_THRESHOLD, 4 * _MIB)
        _MALLOPT(_M_TRIM_THRESHOLD, 8 * _MIB)


def settle_objects() -> None:
    """Keep the garbage collector from going through what lives as long as the process.

    Each of its full rounds would stop every request for as long as it takes to look at all modules,
    routes and models: tens of milliseconds.
    """
    gc.collect()
    gc.freeze()


def trim_memory() -> None:
    """Give back what the allocator keeps; other threads go on, for the interpreter is released."""
    if _MALLOC_TRIM is not None:
        _MALLOC_TRIM(0)
