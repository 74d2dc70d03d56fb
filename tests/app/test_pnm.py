import struct
import tracemalloc

import numpy as np
import pytest

from app.errors import BodyTooLarge, CorruptImage
from app.pnm import MAX_COMMENTS, MAX_TEXT_BYTES, read_header, read_samples


def samples(content: bytes) -> list[object]:
    return list(read_samples(content, read_header(content)).tolist())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"P1\n3 2\n1 0 1\n0 1 0\n", [[0, 255, 0], [255, 0, 255]]),
        (b"P1 3 2 101010", [[0, 255, 0], [255, 0, 255]]),
        (b"P1\n2 1\n1 # one\n0\n", [[0, 255]]),
        (b"P2\n2 1\n255\n7 255\n", [[7, 255]]),
        (b"P2\n# a comment\n2 # width\n1\n15\n0 15", [[0, 255]]),
        (b"P2 2 1 65535 0 65535", [[0, 255]]),
        (b"P3\n1 1\n255\n1 2 3\n", [[[1, 2, 3]]]),
        (b"P4\n10 2\n\xff\x80\x00\x40", [[0] * 9 + [255], [255] * 9 + [0]]),
        (b"P5\n2 1\n255\n\x07\xff", [[7, 255]]),
        (b"P5\n2 1\n100\n\x32\x64", [[128, 255]]),
        (b"P5\n2 1\n65535\n" + struct.pack(">HH", 257 * 9 + 128, 257 * 9 + 129), [[9, 10]]),
        (b"P6\n1 1\n255\n\x01\x02\x03", [[[1, 2, 3]]]),
        (b"P6\n1 1\n65535\n" + struct.pack(">HHH", 0, 257, 65535), [[[0, 1, 255]]]),
        (b"Pf\n1 2\n-1.0\n" + struct.pack("<ff", 0.0, 1.0), [[255], [0]]),
        (b"Pf\n1 1\n1.0\n" + struct.pack(">f", 0.5), [[128]]),
        (b"PF\n1 1\n-1\n" + struct.pack("<fff", 0, 0.2, 1), [[[0, 51, 255]]]),
    ],
)
def test_every_variant_is_read(content: bytes, expected: list[object]) -> None:
    assert samples(content) == expected


@pytest.mark.parametrize(
    "content",
    [
        b"P5",
        b"P5\n2",
        b"P5\n2 2\n",
        b"P5\n2 x\n255\n",
        b"P5\n-1 2\n255\n",
        b"P5\n1 1\n0\n\x00",
        b"P5\n1 1\n65536\n\x00\x00",
        b"P5\n#" + b"x" * 9000 + b"\n1 1\n255\n\x00",
        b"P5\n1 1\n" + b"9" * 30 + b"\n\x00",
        b"Pf\n1 1\n0\n\0\0\0\0",
        b"Pf\n1 1\nnan\n\0\0\0\0",
    ],
)
def test_senseless_headers_are_refused(content: bytes) -> None:
    with pytest.raises(CorruptImage):
        read_header(content)


@pytest.mark.parametrize(
    "content",
    [
        b"P1\n2 1\n1",
        b"P1\n2 1\n1 2",
        b"P2\n2 1\n255\n",
        b"P2\n2 1\n255\n7",
        b"P2\n1 1\n255\n256",
        b"P2\n1 1\n255\n99999999999999999999999",
        b"P2\n1 1\n255\n-1",
        b"P2\n1 1\n255\nx",
        b"P4\n9 1\n\xff",
        b"P5\n2 1\n255\n\x07",
        b"P5\n1 1\n100\n\x65",
        b"P6\n1 1\n65535\n\0\0\0",
        b"Pf\n1 1\n-1\n\0\0\0",
        b"Pf\n1 1\n-1\n" + struct.pack("<f", 1.5),
        b"Pf\n1 1\n-1\n" + struct.pack("<f", float("nan")),
    ],
)
def test_missing_and_impossible_samples_are_refused(content: bytes) -> None:
    with pytest.raises(CorruptImage):
        samples(content)


def test_eight_bit_samples_are_not_touched() -> None:
    levels = np.arange(256, dtype=np.uint8)
    content = b"P5\n256 1\n255\n" + levels.tobytes()
    assert samples(content) == [levels.tolist()]


@pytest.mark.parametrize("filling", [b"11 ", b"1 ", b"1\n"])
def test_a_bitmap_in_text_costs_memory_like_its_file(filling: bytes) -> None:
    content = b"P1\n1 1\n" + filling * 500_000
    header = read_header(content)
    tracemalloc.start()
    read_samples(content, header)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(content)


def test_numbers_are_read_whole_wherever_a_piece_of_them_ends() -> None:
    numbers = np.arange(90_000).reshape(300, 300) % 65_536
    text = b"P2\n300 300\n65535\n" + b" \n\t ".join(b"%05d" % n for n in numbers.ravel())
    found = read_samples(text, read_header(text))
    assert (found == (numbers * 255 + 32_767) // 65_535).all()
    assert samples(b"P2\n1 1\n255\n" + b"0" * 200_000 + b"7") == [[7]]
    with pytest.raises(CorruptImage, match="truncated"):
        samples(text[:-6])


@pytest.mark.parametrize("magic", [b"P1", b"P2", b"P3"])
def test_much_text_is_refused(magic: bytes) -> None:
    content = magic + b"\n1 1\n255\n" + b" 1" * (MAX_TEXT_BYTES // 2)
    with pytest.raises(BodyTooLarge, match="4194304"):
        samples(content)


@pytest.mark.parametrize("magic", [b"P1", b"P2", b"P3"])
def test_countless_comments_are_refused(magic: bytes) -> None:
    with pytest.raises(CorruptImage, match="comments"):
        samples(magic + b"\n1 1\n1" + b"\n#" * (MAX_COMMENTS + 1) + b"\n1 1 1")
