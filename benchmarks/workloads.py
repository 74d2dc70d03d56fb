"""What is sent: images that the project made itself, as raw bodies and as forms.

The photographs are cut from one of scikit-image's, given to the public domain (CC0). Sensor noise
is added, because an enlarged picture without any compresses far better than a camera's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
from PIL import Image

Body = Literal["raw", "multipart"]

_BOUNDARY = "limbeck-benchmark"
_NOISE_LEVELS = 3.0


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of image.

    Attributes:
        name: as on the command line.
        title: as in the table.
        bundle: the name of the bundle that it is sent to.
        media_type: of the files.
        make: makes the files; several, so that nothing gains by remembering one.
        exact: whether every server must give the same answer: no resizing is involved.
    """

    name: str
    title: str
    bundle: str
    media_type: str
    make: Callable[[], list[bytes]]
    exact: bool = False


def http_request(path: str, content: bytes, media_type: str, body: Body) -> bytes:
    """A whole HTTP/1.1 request that uploads one file.

    Args:
        path: with its query.
        content: the file.
        media_type: of the file.
        body: the file itself, or a form with the file as its part `file`.
    """
    if body == "multipart":
        head = (
            f"--{_BOUNDARY}\r\n"
            'Content-Disposition: form-data; name="file"; filename="image"\r\n'
            f"Content-Type: {media_type}\r\n\r\n"
        )
        content = head.encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode()
        media_type = f"multipart/form-data; boundary={_BOUNDARY}"
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Accept: application/json",
        f"Content-Type: {media_type}",
        f"Content-Length: {len(content)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def broken_files(whole: Sequence[bytes]) -> list[bytes]:
    """Files that begin like the given PNGs and cannot be decoded, and one that is no image."""
    return [
        whole[0][: len(whole[0]) // 2],  # truncated
        whole[1][:60] + bytes(len(whole[1]) - 60),  # its pixels overwritten
        b"no image at all",
    ]


def _small() -> list[bytes]:
    photograph = _photograph()
    corners = [(60 + 100 * column, 60 + 90 * row) for column in range(4) for row in range(4)]
    return [_encoded(photograph.crop((x, y, x + 32, y + 32)), "PNG") for x, y in corners]


def _medium() -> list[bytes]:
    return [_large_jpeg((640, 480), seed) for seed in range(4)]


def _large() -> list[bytes]:
    return [_large_jpeg((4000, 3000), seed) for seed in range(2)]


def _digits() -> list[bytes]:
    from training.digits import draw_digits

    return [_encoded(Image.fromarray(digit), "PNG") for digit in draw_digits(range(10))[:, 0]]


def _photograph() -> Image.Image:
    from skimage import data

    return Image.fromarray(data.coffee())  # type: ignore[no-untyped-call]  # 600 x 400, RGB


def _large_jpeg(size: tuple[int, int], seed: int) -> bytes:
    photograph = _photograph()
    height = photograph.height
    cut = photograph.crop((seed, 0, seed + height * size[0] // size[1], height))
    pixels = np.asarray(cut.resize(size, Image.Resampling.BICUBIC), np.int16)
    # A tile of noise, repeated: drawing 36 million numbers would take longer than a measurement.
    tile = np.random.default_rng(seed).normal(0, _NOISE_LEVELS, (250, 320, 3)).astype(np.int16)
    noise = np.tile(tile, (size[1] // 250 + 1, size[0] // 320 + 1, 1))[: size[1], : size[0]]
    noisy = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    return _encoded(Image.fromarray(noisy), "JPEG", quality=90)


def _encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


WORKLOADS = (
    Workload("png", "32x32 PNG", "random", "image/png", _small, exact=True),
    Workload("jpeg", "640x480 JPEG", "random", "image/jpeg", _medium),
    Workload("photo", "4000x3000 JPEG", "random", "image/jpeg", _large),
    Workload("digit", "28x28 PNG, mnist", "mnist", "image/png", _digits, exact=True),
)
