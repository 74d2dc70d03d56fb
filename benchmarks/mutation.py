"""Uploads that are almost right: files of every format, changed as files get broken or are forged.

Everything follows from a seed and a number, so that any upload can be made again.
"""

import random
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, Literal

import numpy as np
from PIL import Image

Content = bytearray

# What parsers are most likely to add to, to multiply, or to allocate.
_LENGTHS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_MOST_CHANGES = 6


def seed_files() -> list[bytes]:
    """Whole files of all accepted formats, in several modes, and of some that are refused."""
    colour = _drawn()
    grey, palette = colour.convert("L"), colour.convert("P")
    transparent = colour.convert("RGBA")
    transparent.putalpha(grey)
    files = [
        *(_file(image, "PNG") for image in (colour, grey, palette, transparent)),
        _file(colour.convert("1"), "PNG"),
        _file(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "PNG"),
        _file(colour, "PNG", save_all=True, append_images=[transparent]),
        _file(colour, "JPEG"),
        _file(colour, "JPEG", progressive=True, exif=_turned(colour)),
        *(_file(image, "JPEG") for image in (grey, colour.convert("CMYK"))),
        *(_file(colour, "WebP", lossless=lossless) for lossless in (False, True)),
        _file(transparent, "WebP", save_all=True, append_images=[colour], exif=_turned(colour)),
        *(_file(image, "BMP") for image in (colour, grey, palette, colour.convert("1"))),
        *(_file(image, "PPM") for image in (colour, grey, colour.convert("1"))),
        b"P2 3 2 255\n0 50 100\n150 200 255\n",
        b"P1 3 2\n0 1 0 1 0 1\n",
        b"Pf\n2 2\n-1.0\n" + np.array([0, 0.25, 0.5, 1], np.float32).tobytes(),
        *(_file(colour, format) for format in ("GIF", "TIFF", "ICO")),
    ]
    return files


def upload(files: Sequence[bytes], seed: int, number: int) -> bytes:
    """A changed file, the same for the same arguments."""
    chance = random.Random(f"{seed} {number}")
    content = bytearray(chance.choice(files))
    for _ in range(chance.randint(1, _MOST_CHANGES)):
        if content:
            chance.choice(_CHANGES)(content, files, chance)
    return bytes(content)


def _flip_bits(content: Content, files: Sequence[bytes], chance: random.Random) -> None:
    for _ in range(chance.randint(1, 8)):
        content[_place(content, chance)] ^= 1 << chance.randrange(8)


def _truncate(content: Content, files: Sequence[bytes], chance: random.Random) -> None:
    del content[chance.randrange(len(content)) :]


def _splice(content: Content, files: Sequence[bytes], chance: random.Random) -> None:
    """The rest of another file from somewhere on."""
    other = chance.choice(files)
    content[_place(content, chance) :] = other[chance.randrange(len(other)) :]


def _forge_length(content: Content, files: Sequence[bytes], chance: random.Random) -> None:
    width = chance.choice((1, 2, 4))
    value = chance.choice(_LENGTHS) & ((1 << 8 * width) - 1)
    place = _place(content, chance)
    order: Literal["big", "little"] = "big" if chance.random() < 0.5 else "little"
    content[place : place + width] = value.to_bytes(width, order)


def _repeat(content: Content, files: Sequence[bytes], chance: random.Random) -> None:
    place = chance.randrange(len(content))
    piece = content[place : place + chance.randint(1, 64)]
    content[place:place] = piece * chance.randint(1, 16)


def _cut_out(content: Content, files: Sequence[bytes], chance: random.Random) -> None:
    place = _place(content, chance)
    del content[place : place + chance.randint(1, 64)]


def _insert_noise(content: Content, files: Sequence[bytes], chance: random.Random) -> None:
    place = _place(content, chance)
    content[place:place] = chance.randbytes(chance.randint(1, 32))


_CHANGES: tuple[Callable[[Content, Sequence[bytes], random.Random], None], ...] = (
    _flip_bits,
    _truncate,
    _splice,
    _forge_length,
    _forge_length,
    _repeat,
    _cut_out,
    _insert_noise,
)


def _place(content: Content, chance: random.Random) -> int:
    """Somewhere; half of the time among the headers at the beginning."""
    end = len(content) if chance.random() < 0.5 else min(len(content), 64)
    return chance.randrange(end)


def _drawn() -> Image.Image:
    """A small colour image, smooth with some noise."""
    ramp = np.linspace(0, 200, 40)
    noise = np.random.default_rng(0).integers(0, 56, (32, 40, 3))
    smooth = np.stack([np.tile(ramp, (32, 1)), np.tile(ramp[:32, None], (1, 40))], axis=2)
    pixels = np.concatenate([smooth, smooth[:, :, :1]], axis=2) + noise
    return Image.fromarray(pixels.astype(np.uint8))


def _turned(image: Image.Image) -> Image.Exif:
    exif = image.getexif()
    exif[0x0112] = 6
    return exif


def _file(image: Image.Image, format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()
