import struct

import pytest

from app.errors import CorruptImage, NotAnImage, UnsupportedFormat
from app.formats import (
    MAX_JPEG_SCANS,
    MAX_JPEG_SEGMENTS,
    MAX_PNG_CHUNKS,
    bmp_size,
    jpeg_size,
    png_size,
    read_jpeg,
    read_png,
    sniff,
    webp_size,
)
from tests.images import encoded, gradient, jpeg_with, png_bomb, png_chunk


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WebP", "BMP"])
def test_sniff_knows_the_accepted_formats(format: str) -> None:
    assert sniff(encoded(gradient(5, 3), format)) == format


@pytest.mark.parametrize("magic", [b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"PF"])
def test_sniff_knows_every_any_map(magic: bytes) -> None:
    assert sniff(magic + b"\n1 1\n") == "PNM"


@pytest.mark.parametrize(
    ("beginning", "name"),
    [
        (b"GIF89a", "GIF"),
        (b"II*\0", "TIFF"),
        (b"MM\0*", "TIFF"),
        (b"\0\0\1\0", "ICO"),
        (b"P7\nWIDTH 1", "PAM"),
        (b"\0\0\0\x20ftypavif", "AVIF"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe", "PostScript"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'>", "SVG"),
        (b"<?xml version='1.0'?>\n<!-- drawn -->\n<svg>", "SVG"),
        (b"\xef\xbb\xbf <!DOCTYPE svg><SVG>", "SVG"),
    ],
)
def test_sniff_refuses_other_formats_by_name(beginning: bytes, name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=name):
        sniff(beginning)


@pytest.mark.parametrize(
    "content", [b"", b"\x89PN", b"hello", b"RIFF1234WAVE", b"P5x", b"<html>", b"<?xml?>"]
)
def test_sniff_refuses_what_is_no_image(content: bytes) -> None:
    with pytest.raises(NotAnImage):
        sniff(content)


@pytest.mark.parametrize("piece", [b"<!---->", b"<?xml?>", b" ", b"\xef\xbb\xbf", b"<!--"])
def test_no_beginning_costs_more_than_its_length(piece: bytes) -> None:
    # Undecided to the end: a pattern that backtracks would need longer than the universe lasts.
    with pytest.raises(NotAnImage):
        sniff(piece * 200)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("extended", [True, False])
def test_webp_size_reads_all_three_headers(lossless: bool, extended: bool) -> None:
    options = {"exif": b"Exif\0\0"} if extended else {}
    assert webp_size(encoded(gradient(45, 67), "WebP", lossless=lossless, **options)) == (45, 67)


def test_bmp_size_reads_every_header() -> None:
    plain = encoded(gradient(45, 67), "BMP")
    upside_down = plain[:22] + struct.pack("<i", -67) + plain[26:]
    os2 = plain[:14] + struct.pack("<IHHHH", 12, 45, 67, 1, 24) + plain[54:]
    assert {bmp_size(content) for content in (plain, upside_down, os2)} == {(45, 67)}
    with pytest.raises(CorruptImage, match="has no header"):
        bmp_size(plain[:25])


def test_jpeg_size_looks_past_metadata() -> None:
    content = encoded(
        gradient(45, 67), "JPEG", comment=b"\xff\xc0" * 100, icc_profile=b"\xff" * 999
    )
    assert jpeg_size(content) == (45, 67)


def test_jpeg_size_skips_padding_between_segments() -> None:
    content = encoded(gradient(45, 67), "JPEG")
    assert jpeg_size(content[:2] + b"\xff\xff\0\0" + content[2:]) == (45, 67)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xd9" + bytes(20),
        b"\xff\xd8\xff\xda" + bytes(20),
        b"\xff\xd8\xff\xe0\0\0" + bytes(20),
        b"\xff\xd8" + b"\xff\xe1\0\2" * (MAX_JPEG_SEGMENTS + 1) + bytes(20),
        b"\xff\xd8\xff" + bytes(5000),
    ],
    ids=["short", "ended", "scan first", "no length", "too many segments", "junk"],
)
def test_jpeg_size_refuses_unusable_headers(content: bytes) -> None:
    with pytest.raises(CorruptImage):
        jpeg_size(content)


def test_a_jpeg_keeps_its_picture_and_its_exif_apart() -> None:
    plain = encoded(gradient(45, 67), "JPEG")
    first, second = b"Exif\0\0first", b"Exif\0\0second"
    laden = jpeg_with(plain, (0xFE, b"comment"), (0xE1, b"http"), (0xE1, first), (0xE1, second))
    jpeg = read_jpeg(laden)
    assert (jpeg.content, jpeg.exif) == (plain, first)
    assert read_jpeg(plain).exif == b""


@pytest.mark.parametrize("padding", [b"\xff\x00" * 2, b"\xff\xd0", b"\xff\x02\0\0", b"\xff\xff"])
def test_scans_cannot_hide_behind_what_is_no_segment(padding: bytes) -> None:
    content = encoded(gradient(8, 8), "JPEG")
    scans = (padding + b"\xff\xda\0\2") * MAX_JPEG_SCANS
    with pytest.raises(CorruptImage, match="scans"):
        read_jpeg(content[:-2] + scans + content[-2:])


def test_a_jpeg_of_countless_segments_after_its_first_scan_is_refused() -> None:
    content = encoded(gradient(8, 8), "JPEG")
    with pytest.raises(CorruptImage, match="segments"):
        read_jpeg(content[:-2] + b"\xff\xfe\0\2" * MAX_JPEG_SEGMENTS)
    with pytest.raises(CorruptImage, match="header"):
        read_jpeg(b"\xff\xd8\xff\xd9" + bytes(20))


def test_png_size_needs_a_header() -> None:
    assert png_size(png_bomb(70_000, 3)) == (70_000, 3)
    with pytest.raises(CorruptImage):
        png_size(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IDAT", b"") + bytes(20))


def test_a_plain_png_passes_as_it_is() -> None:
    content = encoded(gradient(5, 3))
    assert read_png(content).content is content


def test_a_png_loses_whatever_is_not_its_picture() -> None:
    plain = encoded(gradient(5, 3))
    laden = plain[:33] + png_chunk(b"zTXt", b"bomb") + png_chunk(b"iCCP", b"x") + plain[33:] + b"PK"
    assert read_png(laden).content == plain


def test_a_png_with_a_second_header_is_refused() -> None:
    plain = encoded(gradient(5, 3))
    large = struct.pack(">IIBBBBB", 15_500, 15_500, 1, 0, 0, 0, 0)
    with pytest.raises(CorruptImage, match="second header"):
        read_png(plain[:33] + png_chunk(b"IHDR", large) + plain[33:])


def test_a_png_with_a_damaged_chunk_is_refused() -> None:
    content = bytearray(encoded(gradient(5, 3)))
    content[20] ^= 1
    with pytest.raises(CorruptImage, match="check sum"):
        read_png(bytes(content))


def test_a_png_of_countless_chunks_is_refused() -> None:
    plain = encoded(gradient(5, 3))
    with pytest.raises(CorruptImage, match="chunks"):
        read_png(plain[:33] + png_chunk(b"tEXt", b"") * MAX_PNG_CHUNKS + plain[33:])
