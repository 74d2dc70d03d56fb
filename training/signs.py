"""Traffic signs that the project draws itself, for pictures and examples.

Run `python -m training.signs docs/sign.png --sign 14` to draw one into a file.
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

_OVERSAMPLING = 8
_RED, _BLUE, _YELLOW, _WHITE = (168, 26, 34), (22, 70, 150), (226, 168, 24), (232, 232, 228)
_SKY, _GROUND = (128, 146, 164), (84, 92, 80)

Point = tuple[float, float]
# Takes what draws, and where a point of the square from -1 to 1 about the sign's centre lies.
Painter = Callable[[ImageDraw.ImageDraw, Callable[[float, float], Point]], None]


def _regular(corners: int, radius: float, turn_deg: float = 0.0) -> list[Point]:
    """Corners of a regular polygon; 0 degrees is right, 90 degrees is down."""
    angles = (math.radians(turn_deg + 360 * corner / corners) for corner in range(corners))
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def _polygon(
    draw: ImageDraw.ImageDraw,
    at: Callable[[float, float], Point],
    corners: Sequence[Point],
    colour: tuple[int, int, int],
) -> None:
    """A filled polygon; one of many corners is a disc."""
    draw.polygon([at(*corner) for corner in corners], fill=colour)


def _priority_road(draw: ImageDraw.ImageDraw, at: Callable[[float, float], Point]) -> None:
    """A yellow diamond in a white one."""
    _polygon(draw, at, _regular(4, 1.0), _WHITE)
    _polygon(draw, at, _regular(4, 0.68), _YELLOW)


def _give_way(draw: ImageDraw.ImageDraw, at: Callable[[float, float], Point]) -> None:
    """A white triangle on its tip, with a red border."""
    _polygon(draw, at, _regular(3, 1.0, 90), _RED)
    _polygon(draw, at, _regular(3, 0.55, 90), _WHITE)


def _stop(draw: ImageDraw.ImageDraw, at: Callable[[float, float], Point]) -> None:
    """A red octagon with a white border and word."""
    _polygon(draw, at, _regular(8, 1.0, 22.5), _WHITE)
    _polygon(draw, at, _regular(8, 0.92, 22.5), _RED)
    size = at(1, 0)[0] - at(0, 0)[0]
    draw.text(at(0, 0), "STOP", fill=_WHITE, font=ImageFont.load_default(size * 0.68), anchor="mm")


def _no_entry(draw: ImageDraw.ImageDraw, at: Callable[[float, float], Point]) -> None:
    """A red disc with a white bar."""
    _polygon(draw, at, _regular(64, 1.0), _WHITE)
    _polygon(draw, at, _regular(64, 0.93), _RED)
    draw.rectangle([at(-0.7, -0.17), at(0.7, 0.17)], fill=_WHITE)


def _keep_right(draw: ImageDraw.ImageDraw, at: Callable[[float, float], Point]) -> None:
    """A white arrow down to the right on a blue disc."""
    _polygon(draw, at, _regular(64, 1.0), _WHITE)
    _polygon(draw, at, _regular(64, 0.93), _BLUE)
    shaft = [(-0.6, -0.45), (-0.45, -0.6), (0.25, 0.1), (0.1, 0.25)]
    _polygon(draw, at, shaft, _WHITE)
    _polygon(draw, at, [(0.5, -0.2), (0.5, 0.5), (-0.2, 0.5)], _WHITE)


# By their class in the German traffic sign benchmark.
_SIGNS: Mapping[str, Painter] = {
    "12": _priority_road,
    "13": _give_way,
    "14": _stop,
    "17": _no_entry,
    "38": _keep_right,
}
SIGNS = tuple(_SIGNS)


def draw_sign(sign: str, *, height: int = 32, width: int = 32) -> npt.NDArray[np.uint8]:
    """A German traffic sign before sky and ground, a little out of focus.

    Args:
        sign: one of `SIGNS`, its class in the German traffic sign benchmark.
        height: of the image.
        width: of the image.

    Returns:
        uint8 (height, width, 3).
    """
    if sign not in _SIGNS:
        raise ValueError(f"sign must be one of {', '.join(SIGNS)}, got {sign!r}")
    tall, wide = height * _OVERSAMPLING, width * _OVERSAMPLING
    down = np.linspace(0, 1, tall)[:, None, None]
    backdrop = (1 - down) * np.array(_SKY) + down * np.array(_GROUND) + np.zeros((tall, wide, 1))
    picture = Image.fromarray(backdrop.round().astype(np.uint8))
    radius = 0.42 * min(tall, wide)
    _SIGNS[sign](
        ImageDraw.Draw(picture),
        lambda across, down: (wide / 2 + radius * across, tall / 2 + radius * down),
    )
    blurred = picture.filter(ImageFilter.GaussianBlur(0.5 * _OVERSAMPLING))
    return np.asarray(blurred.resize((width, height), Image.Resampling.BOX), dtype=np.uint8)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw one sign into a PNG file."""
    parser = argparse.ArgumentParser(description="Draw a German traffic sign.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--sign", default="14", choices=SIGNS, help="class in the benchmark")
    parser.add_argument("--size", type=int, default=32)
    options = parser.parse_args(arguments)
    options.path.parent.mkdir(parents=True, exist_ok=True)
    picture = draw_sign(options.sign, height=options.size, width=options.size)
    Image.fromarray(picture).save(options.path, optimize=True)


if __name__ == "__main__":
    main()
