"""Decoding and encoding off the event loop, where that pays.

A 32 x 32 PNG is decoded in less time than handing it to a thread and back would take, so small
images are worked on where they are. The others go to a few threads, and large ones to a thread of
their own, one after the other: each may need hundreds of megabytes for a moment.
"""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.bundle import InputSpec
from app.errors import DeadlineExceeded
from app.images import DecodedImage, decode_image, header_size
from app.memory import trim_memory

P = ParamSpec("P")
T = TypeVar("T")

# About as many pixels as are decoded in half the time of a thread hop and back.
_INLINE_PIXELS = 128 * 128
_INLINE_BYTES = 32 * 1024
_LARGE_PIXELS = 4_000_000
_LARGE_BYTES = 4 * 1024 * 1024
_TRIM_AFTER_S = 5.0


class CodecPool:
    """Threads that decode and encode images.

    Args:
        max_pixels: images with more are refused.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        threads = min(4, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(threads, "codec")
        self._large = ThreadPoolExecutor(1, "codec-large")
        self._trimming: asyncio.TimerHandle | None = None

    async def decode(self, content: bytes, spec: InputSpec, deadline: float) -> DecodedImage:
        """The image in `content`; see `decode_image`.

        Raises:
            DeadlineExceeded: `deadline` (`time.monotonic()`) came first.
        """
        size = header_size(content)
        pixels = size[0] * size[1] if size else 0
        if size and pixels <= _INLINE_PIXELS and len(content) <= _INLINE_BYTES:
            return decode_image(content, spec, max_pixels=self._max_pixels)
        large = pixels > _LARGE_PIXELS or len(content) > _LARGE_BYTES
        if large:
            self._trim_later()
        pool = self._large if large else self._threads
        return await _in(pool, deadline, decode_image, content, spec, max_pixels=self._max_pixels)

    async def png(self, purified: npt.NDArray[np.float32], deadline: float) -> bytes:
        """A purified image as a PNG; see `encode_png`."""
        if purified.size <= _INLINE_PIXELS:
            return encode_png(purified)
        return await _in(self._threads, deadline, encode_png, purified)

    def _trim_later(self) -> None:
        """Give back what large images needed, once none has come for a while.

        At once would cost each of them a seventh of its time.
        """
        if self._trimming is not None:
            self._trimming.cancel()
        loop = asyncio.get_running_loop()
        self._trimming = loop.call_later(_TRIM_AFTER_S, self._large.submit, trim_memory)

    def close(self) -> None:
        """Let the threads end; what has not begun is dropped."""
        if self._trimming is not None:
            self._trimming.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._large.shutdown(wait=False, cancel_futures=True)


def encode_png(purified: npt.NDArray[np.float32]) -> bytes:
    """A purified image as an 8-bit PNG.

    Shape:
        purified: (C, H, W), float32; clipped to [0, 1].
    """
    levels = np.rint(np.clip(purified, 0, 1) * 255).astype(np.uint8)
    samples = levels[0] if levels.shape[0] == 1 else levels.transpose(1, 2, 0)
    file = BytesIO()
    # Level 1: a third of the time of the default for a few per cent more bytes.
    Image.fromarray(np.ascontiguousarray(samples)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def encode_npy(purified: npt.NDArray[np.float32]) -> bytes:
    """Purified images in NumPy's file format, float32."""
    file = BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(purified), allow_pickle=False)
    return file.getvalue()


async def _in(
    pool: ThreadPoolExecutor,
    deadline: float,
    work: Callable[P, T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run `work` in a pool; what has not begun by the deadline never will."""

    def in_time() -> T:
        if time.monotonic() > deadline:
            raise DeadlineExceeded("The request expired before its image was decoded.")
        return work(*args, **kwargs)

    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return await loop.run_in_executor(pool, in_time)
    except TimeoutError as error:
        raise DeadlineExceeded("The request expired while an image was decoded.") from error
