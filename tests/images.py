"""Image files for tests."""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

PGM_TYPE = {"Content-Type": "image/x-portable-graymap"}


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """The image as a file."""
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pgm(level: int, side: int = 8) -> bytes:
    """A square of one grey level (0 to 255) as a binary PGM."""
    return b"P5\n%d %d\n255\n" % (side, side) + bytes([level]) * side * side


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Random pixels, (H, W, C) or (H, W)."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def gradient(width: int, height: int) -> Image.Image:
    """A smooth colour image, red to the right and green to the bottom."""
    columns = np.linspace(0, 255, width)[np.newaxis, :].repeat(height, axis=0)
    rows = np.linspace(0, 255, height)[:, np.newaxis].repeat(width, axis=1)
    return Image.fromarray(np.stack([columns, rows, 255 - columns], axis=2).astype(np.uint8))


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """One PNG chunk with its check sum."""
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that announces any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(bytes(1000)))
        + png_chunk(b"IEND", b"")
    )


def jpeg_with(content: bytes, *segments: tuple[int, bytes]) -> bytes:
    """A JPEG with more segments, (marker, content) each, before its own."""
    extra = b"".join(
        b"\xff%c%s%s" % (marker, struct.pack(">H", len(block) + 2), block)
        for marker, block in segments
    )
    return content[:2] + extra + content[2:]


def exif_bomb(entries: int, size: int) -> bytes:
    """An EXIF block whose every entry claims the same `size` bytes of it."""
    directory = struct.pack("<H", entries) + b"".join(
        struct.pack("<HHII", 1000 + number, 7, size, 8) for number in range(entries)
    )
    block = b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory + bytes(4)
    return block.ljust(size + 20, b"\0")


def many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG, grey, whose last scan is there again and again."""
    content = encoded(Image.new("L", (side, side), 99), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * (scans - content.count(b"\xff\xda")) + content[-2:]


def bmp_run_lengths(side: int, depth: int = 8) -> bytes:
    """A BMP in run lengths of two pixels each, the most work for its bytes."""
    runs = b"\x02\x07" * (side * side // 2)
    colours = b"".join(bytes([level] * 3 + [0]) for level in range(1 << depth))
    head = struct.pack(
        "<IiiHHIIiiII", 40, side, side, 1, depth, 1 if depth == 8 else 2, len(runs), 0, 0, 0, 0
    )
    offset = 54 + len(colours)
    return b"BM" + struct.pack("<IHHI", offset + len(runs), 0, 0, offset) + head + colours + runs


def multipart(*parts: tuple[str, bytes], boundary: str = "limit") -> tuple[bytes, dict[str, str]]:
    """A form of (name, content) parts, with its headers."""
    body = b"".join(
        b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="f"\r\n\r\n%s\r\n'
        % (boundary.encode(), name.encode(), content)
        for name, content in parts
    )
    body += b"--%s--\r\n" % boundary.encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}
