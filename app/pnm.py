"""The portable any-map family (PBM, PGM, PPM, PFM), read with NumPy alone.

Pillow reads some of these one pixel at a time in Python, which lets a small upload buy seconds of
work; here every variant is a few array operations, whatever its depth.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import BodyTooLarge, CorruptImage

# Samples written as text cost ten times the time of binary ones, and nobody sends photographs so.
MAX_TEXT_BYTES = 4 * 1024 * 1024

# Taking them out costs far more than the two bytes that each may have.
MAX_COMMENTS = 10_000

# Numbers of about so many bytes are parsed in one go, which keeps other threads waiting.
_PIECE_BYTES = 64 * 1024

_TOKEN = re.compile(rb"(?:\s|#[^\r\n]*(?=[\r\n]))+([^\s#]+)")
_COMMENT = re.compile(rb"#[^\r\n]*")


@dataclass(frozen=True, slots=True)
class PnmHeader:
    """What precedes the samples.

    Attributes:
        magic: `P1` to `P6`, `Pf` or `PF`.
        maximum: the sample value that means 1 (bitmaps: 1; floats: 1).
        little_endian: byte order of float samples.
        offset: where the samples begin.
    """

    magic: str
    width: int
    height: int
    maximum: int
    little_endian: bool
    offset: int

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return 3 if self.magic in {"P3", "P6", "PF"} else 1


def read_header(content: bytes) -> PnmHeader:
    """The header of an any-map.

    Raises:
        CorruptImage: it is incomplete or makes no sense.
    """
    magic = content[:2].decode("ascii")
    tokens: list[bytes] = []
    position = 2
    for _ in range(2 if magic in {"P1", "P4"} else 3):
        # A header fits in the first kilobytes; searching further would be the sender's choice.
        found = _TOKEN.match(content, position, position + 4096)
        if found is None or len(found[1]) > 20:
            raise CorruptImage("The PNM header is incomplete.")
        tokens.append(found[1])
        position = found.end()
    try:
        width, height = int(tokens[0]), int(tokens[1])
        scale = float(tokens[2]) if magic in {"Pf", "PF"} else 1.0
        maximum = int(tokens[2]) if magic in {"P2", "P3", "P5", "P6"} else 1
    except ValueError as error:
        raise CorruptImage("The PNM header holds something else than numbers.") from error
    if (
        width < 0
        or height < 0
        or not 1 <= maximum <= 65_535
        or not np.isfinite(scale)
        or scale == 0
    ):
        raise CorruptImage("The PNM header's numbers are out of range.")
    # Exactly one white-space byte stands between the header and binary samples.
    return PnmHeader(magic, width, height, maximum, scale < 0, position + 1)


def read_samples(content: bytes, header: PnmHeader) -> npt.NDArray[np.uint8]:
    """The samples as they are shown, scaled so that the maximum is 255.

    Shape:
        returns: (H, W) or (H, W, 3), uint8.

    Raises:
        CorruptImage: samples are missing, or larger than the maximum; floats outside [0, 1].
        BodyTooLarge: more than `MAX_TEXT_BYTES` of text.
    """
    if header.magic in {"P1", "P2", "P3"}:
        if len(content) > MAX_TEXT_BYTES:
            raise BodyTooLarge(f"A PNM whose samples are text may have {MAX_TEXT_BYTES} bytes.")
        if content.count(b"#") > MAX_COMMENTS:
            raise CorruptImage(f"The PNM has more than {MAX_COMMENTS} comments.")
    shape = (
        (header.height, header.width, 3) if header.channels == 3 else (header.height, header.width)
    )
    count = header.height * header.width * header.channels
    if header.magic == "P4":
        return _bitmap(content, header)
    if header.magic in {"Pf", "PF"}:
        kind = "<f4" if header.little_endian else ">f4"
        floats = _binary(content, header.offset, count, kind).astype(np.float32)
        if not (np.all(floats >= 0) and np.all(floats <= 1)):  # also refuses NaN
            raise CorruptImage("The PFM has samples outside [0, 1].")
        # Rows of a PFM run from the bottom to the top.
        rows = np.rint(floats.reshape(shape)[::-1] * 255)
        return np.ascontiguousarray(rows, dtype=np.uint8)
    if header.magic == "P1":
        return np.where(
            _digits(content, header.offset, count) == 0, np.uint8(255), np.uint8(0)
        ).reshape(shape)
    samples: npt.NDArray[Any]
    if header.magic in {"P2", "P3"}:
        samples = _numbers(content, header.offset, count)
    else:
        samples = _binary(content, header.offset, count, "u1" if header.maximum < 256 else ">u2")
    return _scaled(samples, header.maximum).reshape(shape)


def _scaled(samples: npt.NDArray[Any], maximum: int) -> npt.NDArray[np.uint8]:
    """Samples of 0..maximum as 0..255, rounded to the nearest; 8-bit samples stay as they are."""
    if maximum == 255 and samples.dtype == np.uint8:
        return samples.astype(np.uint8, copy=False)
    if int(samples.max()) > maximum:
        raise CorruptImage("The PNM has samples above its own maximum.")
    wide = samples.astype(np.uint32)
    return ((wide * 255 + maximum // 2) // maximum).astype(np.uint8)


def _binary(content: bytes, offset: int, count: int, dtype: str) -> npt.NDArray[Any]:
    """`count` binary samples."""
    kind = np.dtype(dtype)
    if len(content) < offset + count * kind.itemsize:
        raise CorruptImage("The PNM is truncated.")
    samples: npt.NDArray[Any] = np.frombuffer(content, kind, count, offset)
    return samples


def _bitmap(content: bytes, header: PnmHeader) -> npt.NDArray[np.uint8]:
    """Packed bits, rows padded to whole bytes; a set bit is black."""
    stride = (header.width + 7) // 8
    packed = _binary(content, header.offset, header.height * stride, "u1")
    bits = np.unpackbits(packed.astype(np.uint8).reshape(header.height, stride), axis=1)
    return np.where(bits[:, : header.width] == 0, np.uint8(255), np.uint8(0))


def _digits(content: bytes, offset: int, count: int) -> npt.NDArray[np.uint8]:
    """`count` digits 0 or 1, with or without white space between them."""
    text = _COMMENT.sub(b"", content[offset - 1 :]).translate(None, b" \t\r\n\v\f")[:count]
    digits = np.frombuffer(text, np.uint8) - np.uint8(ord("0"))
    if len(digits) < count or (count and int(digits.max()) > 1):
        raise CorruptImage("The PBM is truncated or holds something else than 0 and 1.")
    return digits


def _numbers(content: bytes, offset: int, count: int) -> npt.NDArray[np.int64]:
    """`count` decimal numbers separated by white space."""
    text = _COMMENT.sub(b"", content[offset - 1 :])
    if text.translate(None, b"0123456789 \t\r\n\v\f"):
        raise CorruptImage("The PNM holds something else than numbers.")
    if not text.strip():
        raise CorruptImage("The PNM is truncated.")
    # Pieces end where a number does; one number cannot be longer than the text.
    pieces = re.findall(rb"\s*.{1,%d}\S*" % _PIECE_BYTES, text, re.S)
    numbers = np.concatenate(
        # saturates, never wraps
        [np.fromstring(p.decode("ascii"), np.int64, sep=" ") for p in pieces if p.strip()]
    )
    if len(numbers) < count:
        raise CorruptImage("The PNM is truncated.")
    return numbers[:count]
