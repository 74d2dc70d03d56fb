"""Image file formats: told apart by their first bytes, measured by their headers.

Nothing here decodes. A size is known before a decoder is given the chance to allocate for it, and a
PNG or JPEG is reduced to what matters, so that text, EXIF or profiles are never inflated or parsed.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from app.errors import CorruptImage, NotAnImage, UnsupportedFormat

ACCEPTED = ("PNG", "JPEG", "WebP", "BMP", "PNM")

# A PNG of more chunks than this was made to cost time, not to be seen.
MAX_PNG_CHUNKS = 65_536

# A progressive JPEG visits every coefficient once a scan; encoders write ten, for CMYK eighteen.
MAX_JPEG_SCANS = 20

# Segments before the picture: tables, EXIF, a colour profile in pieces of 64 KiB.
MAX_JPEG_SEGMENTS = 1024

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
# APP0 tells JFIF and APP14 the colours; the other application segments and comments are metadata.
_JPEG_DROPPED = {*range(0xE1, 0xEE), 0xEF, 0xFE}
# What ends a scan and has a length. Decoders read over the others, or give up.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"}

# Formats that people do send and that are refused by name: (offset, bytes, name).
_REFUSED = (
    (0, b"GIF8", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"\0\0\2\0", "CUR"),
    (0, b"8BPS", "PSD"),
    (0, b"P7\n", "PAM"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"ftyp", "HEIF, AVIF or another ISO media file"),
    (0, b"qoif", "QOI"),
    (0, b"DDS ", "DDS"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"icns", "ICNS"),
    (0, b"%PDF-", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"\x8aMNG", "MNG"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
)
_SVG_BEGINNINGS = (b"<svg", b"<?xml", b"<!--", b"<!doctype svg")


@dataclass(frozen=True, slots=True)
class PngFile:
    """A PNG reduced to the chunks that hold its picture.

    Attributes:
        content: the file without text, profiles, animation and whatever follows its end.
        frames: how many frames the original announces (1: a still).
        exif: the first EXIF block, wherever it stands; empty if there is none.
    """

    content: bytes
    frames: int
    exif: bytes


@dataclass(frozen=True, slots=True)
class JpegFile:
    """A JPEG reduced to what its decoder needs.

    Attributes:
        content: the file without EXIF, profiles and comments.
        exif: the first EXIF block, empty if there is none.
    """

    content: bytes
    exif: bytes


def sniff(content: bytes) -> str:
    """The accepted format that `content` begins as.

    Raises:
        UnsupportedFormat: it begins as a file of another known image format.
        NotAnImage: it begins as nothing known.
    """
    if content.startswith(_PNG_SIGNATURE):
        return "PNG"
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "WebP"
    if content.startswith(b"BM"):
        return "BMP"
    if re.match(rb"P[1-6fF]\s", content):
        return "PNM"
    for offset, magic, name in _REFUSED:
        if content[offset : offset + len(magic)] == magic:
            raise UnsupportedFormat(f"{name} is not accepted; send {', '.join(ACCEPTED)}.")
    if _is_svg(content[:1024]):
        raise UnsupportedFormat(f"SVG is not accepted; send {', '.join(ACCEPTED)}.")
    raise NotAnImage(f"The file begins like none of {', '.join(ACCEPTED)}.")


def _is_svg(beginning: bytes) -> bool:
    """Whether this looks like an SVG, judged without a pattern that could be made to backtrack."""
    text = beginning.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return text.startswith(_SVG_BEGINNINGS) and b"<svg" in text


def png_size(content: bytes) -> tuple[int, int]:
    """(width, height) that a PNG's header announces.

    Raises:
        CorruptImage: there is no header.
    """
    if len(content) < 33 or content[12:16] != b"IHDR":
        raise CorruptImage("The PNG has no header.")
    width, height = struct.unpack_from(">II", content, 16)
    return width, height


def webp_size(content: bytes) -> tuple[int, int]:
    """(width, height) of the canvas that a WebP's header announces.

    Raises:
        CorruptImage: there is no header, or the file is shorter than it announces.
    """
    if len(content) < 30:
        raise CorruptImage("The WebP has no header.")
    if len(content) < 8 + int.from_bytes(content[4:8], "little"):
        raise CorruptImage("The WebP is truncated.")
    chunk = content[12:16]
    if chunk == b"VP8X":
        return (
            int.from_bytes(content[24:27], "little") + 1,
            int.from_bytes(content[27:30], "little") + 1,
        )
    if chunk == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise CorruptImage("The WebP holds no picture.")


def bmp_size(content: bytes) -> tuple[int, int]:
    """(width, height) that a BMP's header announces; a picture from the top down has a minus there.

    Raises:
        CorruptImage: there is no header.
    """
    if len(content) < 26:
        raise CorruptImage("The BMP has no header.")
    if content[14:18] == b"\x0c\0\0\0":  # OS/2's
        width, height = struct.unpack_from("<HH", content, 18)
    else:
        width, height = struct.unpack_from("<Ii", content, 18)
    return width, abs(height)


def jpeg_size(content: bytes) -> tuple[int, int]:
    """(width, height) that a JPEG's frame header announces, every segment up to the scan visited.

    Raises:
        CorruptImage: there is no frame header before the first scan, or too much else.
    """
    size = None
    for start, marker, _ in _segments(content):
        if marker == _START_OF_SCAN and size:
            return size
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", content, start + 5)
            size = width, height
    raise CorruptImage("The JPEG has no usable header.")


def read_jpeg(content: bytes) -> JpegFile:
    """The picture of a JPEG, without metadata, which is never parsed, and its EXIF block.

    Raises:
        CorruptImage: it has no picture, or too many scans.
    """
    kept, exif, position = [content[:2]], b"", 2
    for start, marker, end in _segments(content):
        position = start
        if marker == _START_OF_SCAN:
            break
        if marker in _JPEG_DROPPED:
            block = content[start + 4 : end]
            if marker == 0xE1 and not exif and block.startswith(b"Exif\0\0"):
                exif = block
        else:
            kept.append(content[start:end])
    else:
        raise CorruptImage("The JPEG has no usable header.")
    if _count_scans(content, position) > MAX_JPEG_SCANS:
        raise CorruptImage(f"The JPEG has more than {MAX_JPEG_SCANS} scans.")
    return JpegFile(b"".join([*kept, content[position:]]), exif)


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """(start, marker, end) of each segment with a length, up to the first scan's, included."""
    position = 2
    for _ in range(MAX_JPEG_SEGMENTS):
        start = content.find(b"\xff", position, position + 4096)  # writers pad between segments
        if start < 0 or start + 9 > len(content):
            return
        marker = content[start + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # stand without a length
            position = start + (1 if marker == 0xFF else 2)
            continue
        length = int.from_bytes(content[start + 2 : start + 4], "big")
        position = start + 2 + length
        if marker == _START_OF_SCAN:
            yield start, marker, position
        if length < 2 or marker in (_START_OF_SCAN, _END_OF_IMAGE):
            return
        yield start, marker, position


def _count_scans(content: bytes, position: int) -> int:
    """The scans from `position` to the end of the picture; what follows that is not looked at.

    Segments are jumped as the decoder jumps them, and no others, so that none can hide a scan.

    Raises:
        CorruptImage: there are too many segments.
    """
    scans = 0
    for _ in range(MAX_JPEG_SEGMENTS):
        found = _MARKER.search(content, position)
        if found is None or content[found.end() - 1] == _END_OF_IMAGE:
            return scans
        scans += content[found.end() - 1] == _START_OF_SCAN
        length = int.from_bytes(content[found.end() : found.end() + 2], "big")
        position = found.end() + max(2, length)
    raise CorruptImage(f"The JPEG has more than {MAX_JPEG_SEGMENTS} segments.")


def read_png(content: bytes) -> PngFile:
    """The picture of a PNG, every chunk's check sum verified.

    Raises:
        CorruptImage: a chunk is truncated or damaged, or there are too many, or headers.
    """
    view = memoryview(content)
    kept: list[memoryview] = [view[:8]]
    frames, exif, position, whole = 1, b"", 8, True
    for _ in range(MAX_PNG_CHUNKS):
        if position + 12 > len(content):
            raise CorruptImage("The PNG is truncated.")
        (length,) = struct.unpack_from(">I", content, position)
        kind = content[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(content):
            raise CorruptImage("The PNG is truncated.")
        if kind == b"IHDR" and position > 8:
            raise CorruptImage("The PNG has a second header.")  # the one that decoders believe
        if kind in _PNG_KEPT:
            if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(
                view[end - 4 : end], "big"
            ):
                raise CorruptImage(f"The PNG's {kind.decode()} chunk fails its check sum.")
            if kind == b"eXIf":
                exif = exif or content[position + 8 : end - 4]
            kept.append(view[position:end])
        else:
            whole = False
            if kind == b"acTL" and length >= 4:
                frames = max(1, int.from_bytes(view[position + 8 : position + 12], "big"))
        position = end
        if kind == b"IEND":
            whole = whole and end == len(content)
            return PngFile(content if whole else b"".join(kept), frames, exif)
    raise CorruptImage(f"The PNG has more than {MAX_PNG_CHUNKS} chunks.")
