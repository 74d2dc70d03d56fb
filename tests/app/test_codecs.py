import asyncio
import threading
import time
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.bundle import InputSpec
from app.codecs import CodecPool, encode_npy, encode_png
from app.errors import CorruptImage, DeadlineExceeded
from tests.images import encoded, gradient, noise

SPEC = InputSpec(channels=3, height=32, width=32)
FAR = 60.0


@pytest.mark.parametrize(
    "content",
    [encoded(gradient(40, 30)), encoded(gradient(900, 700)), encoded(gradient(2100, 2000), "JPEG")],
    ids=["inline", "pool", "large"],
)
def test_an_image_is_decoded_wherever_it_pays(content: bytes) -> None:
    pool = CodecPool(10_000_000)
    decoded = asyncio.run(pool.decode(content, SPEC, time.monotonic() + FAR))
    assert decoded.pixels.shape == SPEC.shape
    pool.close()


def test_what_a_thread_raises_arrives() -> None:
    pool = CodecPool(10_000_000)
    with pytest.raises(CorruptImage):
        asyncio.run(pool.decode(encoded(gradient(900, 700))[:-900], SPEC, time.monotonic() + FAR))
    pool.close()


def test_an_expired_image_is_not_decoded() -> None:
    pool = CodecPool(10_000_000)
    with pytest.raises(DeadlineExceeded):
        asyncio.run(pool.decode(encoded(gradient(900, 700)), SPEC, time.monotonic() - 1))
    pool.close()


@pytest.mark.parametrize("size", [8, 200])
def test_a_png_of_any_size_is_written(size: int) -> None:
    purified = np.divide(noise(size, size).transpose(2, 0, 1), 255, dtype=np.float32)
    pool = CodecPool(1)
    png = asyncio.run(pool.png(purified, time.monotonic() + FAR))
    pool.close()
    assert (np.asarray(Image.open(BytesIO(png))) == noise(size, size)).all()


def test_levels_are_rounded_and_clipped() -> None:
    purified = np.array([[[-0.5, 0.4999 / 255, 0.5001 / 255, 1.5]]], np.float32)
    image = Image.open(BytesIO(encode_png(purified)))
    assert (image.mode, np.asarray(image).tolist()) == ("L", [[0, 0, 1, 255]])


def test_numpy_files_are_read_back() -> None:
    purified = noise(4, 4).astype(np.float32).transpose(2, 0, 1)
    assert (np.load(BytesIO(encode_npy(purified)), allow_pickle=False) == purified).all()


class Noticing(bytes):
    """A file that counts how often its beginning is looked at, which decoding begins with."""

    looks = 0

    def startswith(self, *arguments: Any) -> bool:
        self.looks += 1
        return super().startswith(*arguments)


def test_an_image_that_nobody_waits_for_any_more_is_never_decoded() -> None:
    pool = CodecPool(10_000_000)
    content = Noticing(encoded(gradient(2100, 2000), "JPEG"))
    begun, gate = threading.Event(), threading.Event()

    def occupy() -> None:
        begun.set()
        assert gate.wait(FAR)

    async def scenario() -> None:
        # Large images have one thread, which is busy, so that this one has to wait for it.
        busy = pool._large.submit(occupy)
        await asyncio.to_thread(begun.wait, FAR)
        decoding = asyncio.create_task(pool.decode(content, SPEC, time.monotonic() + FAR))
        while not content.looks:  # to judge its size
            await asyncio.sleep(0)
        looks = content.looks
        decoding.cancel()
        await asyncio.gather(decoding, return_exceptions=True)
        gate.set()
        await asyncio.to_thread(busy.result)
        await asyncio.to_thread(pool._large.submit(int).result)  # behind it in the queue
        assert content.looks == looks

    asyncio.run(scenario())
    pool.close()
