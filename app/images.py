"""From an uploaded file to the pixels a bundle takes: the one place where images are decoded.

Training reads its data with this module too, so a network sees in service what it saw in training.

The rules, in the order they are applied:

* PNG, JPEG, WebP, BMP and PNM are accepted, told apart by their first bytes.
* The pixel limit is checked against the header, before anything is allocated for pixels.
* Of an animation the first frame is used (of an APNG: its still image), and the answer says so.
* Every mode has one rule. 1: black and white. L, RGB: as they are. P: its colours. LA, PA, RGBA and
  whatever names a transparent colour: laid over white, as a page shows them. CMYK: Pillow's plain
  conversion, without a colour profile. 16-bit grey: divided by 257 and rounded; 16-bit colour, or
  grey with transparency for each pixel, in a PNG: the high byte. Floats (PFM): only within [0, 1].
  Any other mode is refused (422).
* The bundle decides between grey (ITU-R 601 luma) and colour.
* A plain resize to the bundle's size, bicubic with antialiasing; the aspect ratio is not kept.
  A large JPEG is decoded at reduced scale first, to no less than twice the size needed.
* EXIF orientation is applied. An EXIF block that cannot be read is ignored.
* What no camera writes and costs time or memory out of proportion is refused: a JPEG of more than
  20 scans, a BMP in run lengths, any-maps as text above 4 MiB, WebP above half the pixel limit.

An image that already has the bundle's size and channels comes through byte for byte.
No state of Pillow is changed: its plugins are called directly, with the limits checked here.
"""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from app.bundle import InputSpec
from app.errors import CorruptImage, ServiceError, TooManyPixels, UnsupportedFormat
from app.exif import orientation
from app.formats import bmp_size, jpeg_size, png_size, read_jpeg, read_png, sniff, webp_size
from app.pnm import read_header, read_samples

DEFAULT_MAX_PIXELS = 25_000_000

# Resizing costs memory in proportion to a side; no camera's image is longer than this.
MAX_SIDE = 65_535

# Each halving before the bicubic filter keeps at least this many times the pixels it needs.
_REDUCING_GAP = 3.0

# Its decoder holds four copies of the picture, of four bytes a pixel, whatever the mode.
_WEBP_SHARE = 0.5

# Rows that are laid over white together, for what stands in memory meanwhile.
_STRIP_PIXELS = 1_000_000

# 16-bit grey -> 8 bits, rounded.
_EIGHT_BITS = ((np.arange(65_536, dtype=np.uint32) + 128) // 257).astype(np.uint8)

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Of BMP: Pillow decodes them one pixel at a time in Python, seconds for a few kilobytes.
_RUN_LENGTHS = {1, 2}

_SIZES = {"PNG": png_size, "JPEG": jpeg_size, "WebP": webp_size, "BMP": bmp_size}

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image as the bundle takes it, and what the sender should know about the original.

    Attributes:
        pixels: (C, H, W), uint8, contiguous.
        format: one of `app.formats.ACCEPTED`.
        width: of the original as it is shown, orientation applied.
        height: of the original as it is shown, orientation applied.
        frames: frames in the file; only the first was used.
    """

    pixels: Pixels
    format: str
    width: int
    height: int
    frames: int = 1


def decode_image(
    content: bytes, spec: InputSpec, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> DecodedImage:
    """The image in `content`, as a bundle with the input `spec` takes it.

    Raises:
        UnsupportedFormat: a known format that is not accepted.
        NotAnImage: no known format.
        TooManyPixels: the header announces more than `max_pixels`, or a side above `MAX_SIDE`.
        CorruptImage: truncated, broken, or of a mode without a rule.
    """
    kind = sniff(content)
    try:
        if kind == "PNM":
            return _decode_pnm(content, spec, max_pixels)
        return _decode(*_open(content, kind, max_pixels), kind, spec)
    except (ServiceError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixels(f"The {kind} announces too many pixels.") from error
    except Exception as error:
        # Decoders meet broken files with nearly every class of exception there is.
        raise CorruptImage(f"The {kind} is truncated or corrupt.") from error


def header_size(content: bytes) -> tuple[int, int] | None:
    """(width, height) as the header announces them; None where only decoding will tell.

    It lets the service judge whether decoding is worth a thread.
    """
    try:
        kind = sniff(content)
        if kind == "PNM":
            header = read_header(content)
            return header.width, header.height
        return _SIZES[kind](content) if kind in _SIZES else None
    except ServiceError:
        return None  # decoding will say what is wrong


def _check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse a size before anything is allocated for it."""
    if width < 1 or height < 1:
        raise CorruptImage(f"The image announces a size of {width} x {height}.")
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise TooManyPixels(
            f"The image announces {width} x {height} pixels; allowed are {max_pixels} in all "
            f"and {MAX_SIDE} a side."
        )


def _decode_pnm(content: bytes, spec: InputSpec, max_pixels: int) -> DecodedImage:
    header = read_header(content)
    width, height = header.width, header.height
    _check_size(width, height, max_pixels)
    samples = read_samples(content, header)
    if (height, width) == (spec.height, spec.width) and header.channels == spec.channels:
        return DecodedImage(_channels_first(samples), "PNM", width, height)
    image = _resized(_with_channels(Image.fromarray(samples), spec), spec.width, spec.height)
    return DecodedImage(_channels_first(np.asarray(image)), "PNM", width, height)


def _open(content: bytes, kind: str, max_pixels: int) -> tuple[Image.Image, int, int]:
    """The file opened by its own plugin and measured, no pixel decoded; frames; orientation."""
    if kind == "PNG":
        _check_size(*png_size(content), max_pixels)
        png = read_png(content)
        image: Image.Image = PngImageFile(BytesIO(png.content))
        _check_size(*image.size, max_pixels)  # what counts is what the decoder believes
        _scale_transparency(image, depth_bits=content[24])
        return image, png.frames, orientation(png.exif)
    if kind == "WebP":
        _check_size(*webp_size(content), int(max_pixels * _WEBP_SHARE))
        webp = WebPImageFile(BytesIO(content))
        return webp, int(webp.n_frames), orientation(webp.info.get("exif", b""))
    if kind == "BMP":
        _check_size(*bmp_size(content), max_pixels)
        bmp = BmpImageFile(BytesIO(content))
        _check_size(*bmp.size, max_pixels)
        if bmp.info.get("compression") in _RUN_LENGTHS:
            raise UnsupportedFormat("A BMP in run lengths is not accepted; send a plain one.")
        return bmp, 1, 1
    _check_size(*jpeg_size(content), max_pixels)
    jpeg = read_jpeg(content)
    image = JpegImageFile(BytesIO(jpeg.content))
    _check_size(*image.size, max_pixels)  # a second frame header may contradict the first
    return image, 1, orientation(jpeg.exif)


def _scale_transparency(image: Image.Image, depth_bits: int) -> None:
    """Give a transparent level or colour the scale of the pixels; Pillow leaves it as in the file.

    Of 16-bit colour it can only be as exact as the pixels are, which are the high bytes.
    """
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int):
        highest = 2**depth_bits - 1
        image.info["transparency"] = (key & highest) * 255 // highest
    elif image.mode == "RGB" and depth_bits == 16 and key:
        image.info["transparency"] = tuple(sample >> 8 for sample in key)


def _decode(
    image: Image.Image, frames: int, turned: int, kind: str, spec: InputSpec
) -> DecodedImage:
    width, height = image.size
    sideways = turned >= 5
    needed = (spec.height, spec.width) if sideways else (spec.width, spec.height)
    if kind == "JPEG":
        # Decoding at 1/2, 1/4 or 1/8 costs a fraction; colour is dropped for a grey bundle.
        image.draft("L" if spec.channels == 1 else "RGB", (2 * needed[0], 2 * needed[1]))
    image.load()
    image = _resized(_with_channels(image, spec), *needed)
    if turned in _TRANSPOSE:
        # After resizing: the same result from far fewer pixels.
        image = image.transpose(_TRANSPOSE[turned])
    shown = (height, width) if sideways else (width, height)
    return DecodedImage(_channels_first(np.asarray(image)), kind, *shown, frames)


def _with_channels(image: Image.Image, spec: InputSpec) -> Image.Image:
    """The image in the bundle's mode, L or RGB, by the rules in this module's docstring."""
    wanted = "L" if spec.channels == 1 else "RGB"
    if image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.mode in {"LA", "PA", "RGBA"} or (
        "transparency" in image.info and image.mode in {"1", "L", "P", "RGB"}
    ):
        image = _over_white(image)
    if image.mode == wanted:
        return image
    if image.mode not in {"1", "L", "P", "RGB", "CMYK", "YCbCr"}:
        raise CorruptImage(f"Images of the mode {image.mode} cannot be interpreted.")
    if image.mode == "P" and wanted == "L":
        image = image.convert("RGB")
    return image.convert(wanted)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as L, a level that is transparent as white."""
    levels = np.asarray(image)
    grey = _EIGHT_BITS[levels]
    if "transparency" in image.info:
        grey[levels == image.info["transparency"]] = 255
    return Image.fromarray(grey)


def _over_white(image: Image.Image) -> Image.Image:
    """A transparent image as RGB, a strip at a time: never a whole copy with its transparency."""
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    result = Image.new("RGB", image.size, "white")
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(height, top + rows))).convert("RGBA")
        result.paste(strip, (0, top), mask=strip)
    return result


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=_REDUCING_GAP)


def _channels_first(samples: npt.NDArray[np.generic]) -> Pixels:
    """(H, W) or (H, W, 3) as (C, H, W), contiguous."""
    planes = samples[np.newaxis] if samples.ndim == 2 else samples.transpose(2, 0, 1)
    return np.ascontiguousarray(planes, dtype=np.uint8)
