import struct
import tracemalloc
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from app.bundle import InputSpec
from app.errors import CorruptImage, NotAnImage, ServiceError, TooManyPixels, UnsupportedFormat
from app.formats import MAX_JPEG_SCANS
from app.images import decode_image, header_size
from tests.images import (
    bmp_run_lengths,
    encoded,
    exif_bomb,
    gradient,
    jpeg_with,
    many_scans,
    noise,
    pgm,
    png_bomb,
    png_chunk,
)

COLOUR = InputSpec(channels=3, height=32, width=32)
GREY = InputSpec(channels=1, height=28, width=28)
TINY = InputSpec(channels=3, height=2, width=2)


def pixels(content: bytes, spec: InputSpec = COLOUR) -> list[object]:
    return list(decode_image(content, spec).pixels.tolist())


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM", "WebP"])
def test_an_image_of_the_right_size_is_not_touched(format: str) -> None:
    colour = noise(32, 32)
    options = {"lossless": True, "exact": True} if format == "WebP" else {}
    decoded = decode_image(encoded(Image.fromarray(colour), format, **options), COLOUR)
    assert (decoded.pixels == colour.transpose(2, 0, 1)).all()
    assert decoded.pixels.flags.c_contiguous
    assert decoded.pixels.dtype == np.uint8
    assert (decoded.format, decoded.width, decoded.height, decoded.frames) == (
        "PNM" if format == "PPM" else format,
        32,
        32,
        1,
    )


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM"])
def test_a_grey_image_of_the_right_size_is_not_touched(format: str) -> None:
    grey = noise(28, 28, channels=1)
    decoded = decode_image(encoded(Image.fromarray(grey), format), GREY)
    assert (decoded.pixels == grey[np.newaxis]).all()


# One pixel of each mode, as a colour bundle and as a grey one see it.
MODES = [
    ("1", 1, "PNG", {}, (255, 255, 255), 255),
    ("L", 77, "PNG", {}, (77, 77, 77), 77),
    ("RGB", (255, 0, 0), "PNG", {}, (255, 0, 0), 76),
    ("LA", (0, 0), "PNG", {}, (255, 255, 255), 255),
    ("LA", (0, 255), "PNG", {}, (0, 0, 0), 0),
    ("RGBA", (0, 0, 255, 0), "PNG", {}, (255, 255, 255), 255),
    ("RGBA", (0, 0, 0, 51), "PNG", {}, (204, 204, 204), 204),
    ("RGBA", (255, 0, 0, 255), "WebP", {"lossless": True}, (255, 0, 0), 76),
    ("1", 0, "PNG", {"transparency": 0}, (255, 255, 255), 255),
    ("L", 77, "PNG", {"transparency": 77}, (255, 255, 255), 255),
    ("I;16", 300, "PNG", {"transparency": 300}, (255, 255, 255), 255),
    ("I;16", 300, "PNG", {"transparency": 301}, (1, 1, 1), 1),
    ("RGB", (1, 2, 3), "PNG", {"transparency": (1, 2, 3)}, (255, 255, 255), 255),
    ("I;16", 257 * 9 + 129, "PNG", {}, (10, 10, 10), 10),
    ("I;16", 65_535, "PNG", {}, (255, 255, 255), 255),
    ("CMYK", (0, 255, 255, 0), "JPEG", {"quality": 100}, (254, 0, 0), 76),
]


@pytest.mark.parametrize(("mode", "value", "format", "options", "colour", "grey"), MODES)
def test_every_mode_has_its_rule(
    mode: str,
    value: int | tuple[int, ...],
    format: str,
    options: dict[str, object],
    colour: tuple[int, int, int],
    grey: int,
) -> None:
    content = encoded(Image.new(mode, (8, 8), value), format, **options)
    seen = decode_image(content, TINY).pixels[:, 0, 0].astype(int)
    assert np.abs(seen - np.array(colour)).max() <= 1
    seen_grey = decode_image(content, InputSpec(channels=1, height=2, width=2)).pixels[0, 0, 0]
    assert abs(int(seen_grey) - grey) <= 1


def palette_image(**options: object) -> bytes:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    return encoded(image, "PNG", **options)


def test_a_palette_gives_its_colours() -> None:
    assert pixels(palette_image(), TINY)[0] == [[255, 255], [255, 255]]
    grey = InputSpec(channels=1, height=2, width=2)
    assert pixels(palette_image(), grey) == [[[76, 76], [76, 76]]]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\xff"])
def test_a_palette_with_a_transparent_colour_lies_on_white(transparency: int | bytes) -> None:
    assert pixels(palette_image(transparency=transparency), TINY) == [[[255] * 2] * 2] * 3


def test_a_float_map_is_read_within_0_and_1() -> None:
    content = b"Pf\n1 1\n-1\n" + struct.pack("<f", 0.2)
    assert pixels(content, TINY) == [[[51] * 2] * 2] * 3


def test_pixels_half_transparent_do_not_bleed_when_resized() -> None:
    # Black that cannot be seen beside white that can: resizing must not mix it in.
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((255, 255, 255, 255), (0, 0, 32, 64))
    assert decode_image(encoded(image), COLOUR).pixels.min() >= 254


def test_resizing_is_bicubic_and_antialiased() -> None:
    image = gradient(640, 480)
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
    seen = decode_image(encoded(image), COLOUR).pixels.transpose(1, 2, 0).astype(int)
    assert np.abs(seen - expected).max() <= 2
    # A pattern finer than the target turns grey instead of into a coarser pattern.
    stripes = np.tile(np.array([[0, 255]], np.uint8), (256, 128))
    flat = decode_image(encoded(Image.fromarray(stripes)), GREY).pixels
    assert flat.std() < 8 and abs(flat.mean() - 127.5) < 3


def test_enlarging_works_too() -> None:
    assert decode_image(pgm(9, side=3), GREY).pixels.shape == (1, 28, 28)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("spec", [COLOUR, GREY])
def test_a_jpeg_decoded_at_reduced_scale_looks_the_same(progressive: bool, spec: InputSpec) -> None:
    image = gradient(1600, 1200)
    content = encoded(image, "JPEG", quality=95, progressive=progressive)
    reduced = decode_image(content, spec)
    whole = decode_image(encoded(image), spec)
    assert (reduced.width, reduced.height) == (1600, 1200)
    assert np.abs(reduced.pixels.astype(int) - whole.pixels.astype(int)).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WebP"])
def test_exif_orientation_is_applied(orientation: int, format: str) -> None:
    image = gradient(320, 160)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = encoded(image, format, exif=exif.tobytes(), quality=95)
    upright = {
        2: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: image.transpose(Image.Transpose.ROTATE_180),
        4: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: image.transpose(Image.Transpose.TRANSPOSE),
        6: image.transpose(Image.Transpose.ROTATE_270),
        7: image.transpose(Image.Transpose.TRANSVERSE),
        8: image.transpose(Image.Transpose.ROTATE_90),
    }.get(orientation, image)
    spec = InputSpec(channels=3, height=20, width=30)
    decoded = decode_image(turned, spec)
    expected = decode_image(encoded(upright), spec)
    assert np.abs(decoded.pixels.astype(int) - expected.pixels.astype(int)).max() <= 6
    assert (decoded.width, decoded.height) == upright.size


def test_exif_at_the_end_of_a_png_is_applied() -> None:
    image = gradient(16, 8)
    exif = Image.Exif()
    exif[0x0112] = 3
    plain = encoded(image)
    late = plain[:-12] + png_chunk(b"eXIf", exif.tobytes()[6:]) + plain[-12:]
    assert (
        decode_image(late, TINY).pixels == decode_image(plain, TINY).pixels[:, ::-1, ::-1]
    ).all()


def test_exif_that_cannot_be_read_is_ignored() -> None:
    content = encoded(gradient(32, 32), "PNG")
    broken = content[:33] + png_chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff") + content[33:]
    assert pixels(broken) == pixels(content)


@pytest.mark.parametrize("format", ["PNG", "WebP"])
def test_of_an_animation_the_first_frame_is_used(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    content = encoded(
        frames[0], format, save_all=True, append_images=frames[1:], lossless=True, duration=100
    )
    decoded = decode_image(content, TINY)
    assert decoded.frames == 3
    assert decoded.pixels[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WebP", "BMP", "PPM"])
def test_a_truncated_file_is_refused(format: str) -> None:
    content = encoded(Image.fromarray(noise(40, 40)), format)
    for kept in (len(content) // 2, len(content) * 9 // 10, len(content) // 8):
        with pytest.raises(CorruptImage):
            decode_image(content[:kept], COLOUR)


def test_a_picture_that_does_not_inflate_is_refused() -> None:
    bomb = png_bomb(32, 32)
    content = bomb[:33] + png_chunk(b"IDAT", b"no zlib") + png_chunk(b"IEND", b"")
    with pytest.raises(CorruptImage):
        decode_image(content, COLOUR)


@pytest.mark.parametrize(
    "content",
    [
        png_bomb(100_000, 100_000),
        png_bomb(70_000, 1),
        b"P5\n100000 100000\n255\n",
        b"BM"
        + struct.pack("<IHHI", 100, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0),
        b"RIFF"
        + struct.pack("<I", 100)
        + b"WEBPVP8X"
        + struct.pack("<I", 10)
        + bytes(4)
        + b"\xff\x3f\0" * 2
        + bytes(100),
        b"\xff\xd8\xff\xc0"
        + struct.pack(">HBHHB", 17, 8, 60_000, 60_000, 3)
        + bytes(9)
        + b"\xff\xda"
        + bytes(99),
    ],
    ids=["png", "side", "pnm", "bmp", "webp", "jpeg"],
)
def test_a_bomb_is_refused_from_its_header(content: bytes) -> None:
    with pytest.raises(TooManyPixels):
        decode_image(content, COLOUR)


def test_the_pixel_limit_is_inclusive() -> None:
    assert decode_image(pgm(1, side=10), GREY, max_pixels=100).width == 10
    with pytest.raises(TooManyPixels):
        decode_image(pgm(1, side=10), GREY, max_pixels=99)


def test_text_and_profiles_are_never_inflated() -> None:
    plain = encoded(gradient(32, 32))
    bomb = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(30_000_000), 9))
    profile = png_chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(30_000_000), 9))
    assert pixels(plain[:33] + bomb * 20 + profile * 20 + plain[33:]) == pixels(plain)


def test_a_jpeg_of_countless_scans_is_refused() -> None:
    assert decode_image(many_scans(64, MAX_JPEG_SCANS), GREY).width == 64
    with pytest.raises(CorruptImage, match="scans"):
        decode_image(many_scans(64, MAX_JPEG_SCANS + 1), GREY)


def test_what_follows_a_jpeg_is_not_counted() -> None:
    # Phones append a film to a photograph.
    content = encoded(gradient(32, 32), "JPEG")
    assert pixels(content + b"\xff\xda" * 1000) == pixels(content)


def test_metadata_of_a_jpeg_is_never_parsed() -> None:
    plain = encoded(gradient(32, 32), "JPEG")
    bomb = exif_bomb(4000, 60_000)
    laden = jpeg_with(plain, *[(0xE1, bomb)] * 50, (0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000)))
    tracemalloc.start()
    try:
        assert pixels(laden) == pixels(plain)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(laden)  # thousands of copies of a block
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("colour", ["RGB", "CMYK", "L"])
def test_a_jpeg_without_its_metadata_looks_the_same(colour: str) -> None:
    image = gradient(64, 64).convert(colour)
    content = encoded(image, "JPEG", quality=95, comment=b"c", dpi=(72, 72))
    expected = decode_image(encoded(Image.open(BytesIO(content)).convert("RGB")), COLOUR)
    assert np.abs(decode_image(content, COLOUR).pixels.astype(int) - expected.pixels).max() <= 2


@pytest.mark.parametrize("depth", [4, 8])
def test_a_bmp_in_run_lengths_is_refused(depth: int) -> None:
    with pytest.raises(UnsupportedFormat, match="run lengths"):
        decode_image(bmp_run_lengths(64, depth), GREY)


def test_of_a_webp_half_as_many_pixels_are_allowed() -> None:
    content = encoded(gradient(10, 10), "WebP")
    assert decode_image(content, COLOUR, max_pixels=200).width == 10
    with pytest.raises(TooManyPixels, match="allowed are 99"):
        decode_image(content, COLOUR, max_pixels=199)


def test_transparency_is_laid_over_white_the_same_in_strips() -> None:
    colours = noise(2200, 1000, channels=4)
    image = Image.fromarray(colours)
    flat = Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image.getchannel("A"))
    assert pixels(encoded(image, compress_level=1)) == pixels(encoded(flat, compress_level=1))


def test_16_bits_are_rounded() -> None:
    levels = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    spec = InputSpec(channels=1, height=256, width=256)
    seen = decode_image(encoded(Image.fromarray(levels)), spec).pixels[0]
    assert (seen == np.rint(levels / 257)).all()


def test_no_pixel_is_no_image() -> None:
    with pytest.raises(CorruptImage):
        decode_image(b"P5\n0 0\n255\n", GREY)


def test_other_formats_and_other_bytes_are_told_apart() -> None:
    with pytest.raises(UnsupportedFormat):
        decode_image(encoded(gradient(8, 8), "GIF"), COLOUR)
    with pytest.raises(NotAnImage):
        decode_image(b"hello", COLOUR)


def png(depth_bits: int, colours: int, key: bytes, row: bytes, width: int) -> bytes:
    """A PNG of one row, with a level or colour that is transparent."""
    header = struct.pack(">IIBBBBB", width, 1, depth_bits, colours, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", key), (b"IDAT", zlib.compress(b"\0" + row))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*c) for c in [*chunks, (b"IEND", b"")])


@pytest.mark.parametrize(
    ("depth_bits", "key", "row"),
    [
        (1, 1, b"\x80"),
        (2, 1, b"\x40"),
        (2, 0xFF01, b"\x40"),
        (4, 5, b"\x50"),
        (8, 5, b"\x05\x00"),
        (8, 0x1205, b"\x05\x00"),
        (16, 0x1234, b"\x12\x34\x00\x00"),
    ],
)
def test_a_transparent_level_is_one_of_the_file(depth_bits: int, key: int, row: bytes) -> None:
    spec = InputSpec(channels=1, height=1, width=2)
    content = png(depth_bits, 0, struct.pack(">H", key), row, 2)
    assert pixels(content, spec) == [[[255, 0]]]


def test_a_transparent_colour_of_16_bits_is_told_by_the_high_bytes() -> None:
    spec = InputSpec(channels=3, height=1, width=2)
    row = b"\x12\x00\x34\x00\x56\x00" + bytes(6)
    here = png(16, 2, struct.pack(">HHH", 0x1200, 0x3400, 0x5600), row, 2)
    nowhere = png(16, 2, struct.pack(">HHH", 0x1200, 0, 0), row, 2)
    assert pixels(here, spec) == [[[255, 0]]] * 3
    assert pixels(nowhere, spec) == [[[0x12, 0]], [[0x34, 0]], [[0x56, 0]]]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WebP", "PPM", "BMP"])
def test_header_size_needs_no_decoding(format: str) -> None:
    content = encoded(gradient(45, 67), format)
    assert header_size(content) == (45, 67)
    assert header_size(content[:15]) in {None, (45, 67)}


def test_header_size_does_not_judge() -> None:
    assert header_size(b"hello") is None
    assert header_size(encoded(gradient(45, 67), "BMP")[:20]) is None


def decodes_or_refuses(content: bytes) -> None:
    for spec in (COLOUR, GREY):
        try:
            decoded = decode_image(content, spec, max_pixels=1_000_000)
        except ServiceError as error:
            assert 400 <= error.status < 500
        else:
            assert decoded.pixels.shape == spec.shape


SEEDS = [
    *(encoded(gradient(40, 30), format) for format in ("PNG", "JPEG", "WebP", "BMP", "PPM")),
    encoded(gradient(40, 30), "JPEG", progressive=True),
    encoded(gradient(40, 30), "WebP", lossless=True),
    encoded(gradient(40, 30).convert("RGBA"), "PNG"),
    encoded(gradient(40, 30).convert("CMYK"), "JPEG"),
    palette_image(transparency=1),
    b"P2\n2 2\n255\n1 2 3 4",
    b"P1\n2 2\n1 0 1 0",
    b"Pf\n1 1\n-1\n\0\0\0\0",
]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([b"", *(seed[:8] for seed in SEEDS), b"RIFF0000WEBPVP8 "]),
    st.binary(max_size=300),
)
def test_any_bytes_get_a_clean_answer(beginning: bytes, rest: bytes) -> None:
    decodes_or_refuses(beginning + rest)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=6)), max_size=4),
    st.integers(0, 4000),
)
def test_any_damage_gets_a_clean_answer(
    seed: bytes, damages: list[tuple[int, bytes]], cut: int
) -> None:
    content = bytearray(seed)
    for place, replacement in damages:
        place %= len(content)
        content[place : place + len(replacement)] = replacement
    decodes_or_refuses(bytes(content))
    decodes_or_refuses(bytes(content[: cut % len(content)]))
