import struct
from itertools import product

import pytest
from PIL import Image

from app.exif import orientation

ENTRY = "HHIHH"


def block(order: str, *entries: tuple[int, int, int, int], prefix: bytes = b"Exif\0\0") -> bytes:
    """An EXIF block of (tag, type, count, value) entries."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    directory = struct.pack(f"{order}H", len(entries))
    for entry in entries:
        directory += struct.pack(order + ENTRY, *entry, 0)
    return prefix + head + directory + bytes(4)


@pytest.mark.parametrize(
    ("order", "value", "prefix"), list(product("<>", range(1, 9), (b"", b"Exif\0\0")))
)
def test_both_byte_orders_are_read(order: str, value: int, prefix: bytes) -> None:
    content = block(order, (0x010F, 2, 4, 0), (0x0112, 3, 1, value), prefix=prefix)
    assert orientation(content) == value


def test_what_others_write_is_read() -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = 6
    assert orientation(exif.tobytes()) == 6


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Exif\0\0",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff\x01\x12",
        b"no EXIF at all",
        block("<"),
        block("<", (0x0112, 3, 1, 0)),
        block("<", (0x0112, 3, 1, 9)),
        block("<", (0x0112, 4, 1, 6)),
        block("<", (0x0112, 3, 2, 6)),
        block("<", *[(0, 3, 1, 1)] * 1000, (0x0112, 3, 1, 6)),
    ],
)
def test_a_block_that_names_none_leaves_the_image_upright(content: bytes) -> None:
    assert orientation(content) == 1
