"""Digits that the project draws itself: examples and test data that belong to no data set.

Run `python -m training.digits docs/digit.png --digit 7` to draw one into a file.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Point = tuple[float, float]
Stroke = list[Point]

# Drawn this many times larger and averaged down, which gives smooth grey edges.
_OVERSAMPLING = 8


def _arc(centre: Point, radii: Point, start_deg: float, end_deg: float) -> Stroke:
    """Points along an ellipse; 0 degrees is right, 90 degrees is down."""
    steps = max(6, int(abs(end_deg - start_deg) / 8))
    angles = (math.radians(start_deg + (end_deg - start_deg) * i / steps) for i in range(steps + 1))
    return [
        (centre[0] + radii[0] * math.cos(a), centre[1] + radii[1] * math.sin(a)) for a in angles
    ]


# Pen strokes in a box of width 0.7 and height 1, y downwards.
_STROKES: tuple[tuple[Stroke, ...], ...] = (
    (_arc((0.35, 0.5), (0.32, 0.48), -100, 262),),
    ([(0.16, 0.2), (0.38, 0.02), (0.38, 0.98)],),
    ([*_arc((0.35, 0.28), (0.29, 0.26), -170, 35), (0.5, 0.52), (0.06, 0.97), (0.66, 0.97)],),
    (_arc((0.32, 0.26), (0.27, 0.24), -150, 95) + _arc((0.32, 0.73), (0.31, 0.25), -85, 150),),
    ([(0.45, 0.02), (0.04, 0.66), (0.68, 0.66)], [(0.5, 0.36), (0.5, 0.98)]),
    ([(0.62, 0.03), (0.16, 0.03), (0.12, 0.45), *_arc((0.32, 0.68), (0.31, 0.29), -115, 145)],),
    ([(0.54, 0.02), (0.26, 0.26), (0.1, 0.56), *_arc((0.35, 0.7), (0.27, 0.27), 195, 555)],),
    ([(0.05, 0.04), (0.65, 0.04), (0.28, 0.98)],),
    (
        _arc((0.35, 0.26), (0.23, 0.23), 90, 450),
        _arc((0.35, 0.74), (0.28, 0.25), -90, 270),
    ),
    ([*_arc((0.34, 0.29), (0.26, 0.26), 0, 360), (0.6, 0.29), (0.57, 0.6), (0.46, 0.98)],),
)


@dataclass(frozen=True)
class _Hand:
    """How one writer deviates from the plain strokes."""

    slant: float = 0.0
    turn: float = 0.0
    width: float = 1.0
    pen: float = 0.11

    def place(self, point: Point) -> Point:
        """The point after slant, width and rotation, about the centre of the digit."""
        across, down = (point[0] - 0.35) * self.width, point[1] - 0.5
        across -= self.slant * down
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return across * cos - down * sin, across * sin + down * cos


def _hand(seed: int) -> _Hand:
    """The writer of a seed; seed 0 writes the plain strokes."""
    if seed == 0:
        return _Hand()
    random = np.random.default_rng(seed)
    return _Hand(
        slant=float(random.uniform(-0.1, 0.35)),
        turn=float(random.uniform(-0.15, 0.15)),
        width=float(random.uniform(0.8, 1.15)),
        pen=float(random.uniform(0.085, 0.15)),
    )


def draw_digit(digit: int, *, size: int = 28, seed: int = 0) -> npt.NDArray[np.uint8]:
    """One digit, white on black, centred in the middle 20/28 of the image as in MNIST.

    Args:
        digit: 0 to 9.
        size: height and width of the image.
        seed: the handwriting; 0 is the plain one.

    Returns:
        uint8 (size, size).
    """
    if not 0 <= digit <= 9:
        raise ValueError(f"digit must be 0 to 9, got {digit}")
    hand = _hand(seed)
    strokes = [[hand.place(point) for point in stroke] for stroke in _STROKES[digit]]
    points = np.array([point for stroke in strokes for point in stroke])
    low, high = points.min(axis=0), points.max(axis=0)
    large = size * _OVERSAMPLING
    # The ink, pen included, fills a square of 20/28; the ends of the pen stick out by half of it.
    scale = large * 20 / 28 / (float((high - low).max()) + hand.pen)
    centre = (low + high) / 2
    pen = hand.pen * scale
    picture = Image.new("L", (large, large))
    draw = ImageDraw.Draw(picture)
    for stroke in strokes:
        placed = [tuple((np.array(p) - centre) * scale + large / 2) for p in stroke]
        draw.line(placed, fill=255, width=round(pen), joint="curve")
        for across, down in (placed[0], placed[-1]):
            draw.ellipse([across - pen / 2, down - pen / 2, across + pen / 2, down + pen / 2], 255)
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX), dtype=np.uint8)


def draw_digits(digits: Sequence[int], *, size: int = 28, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Several digits of one handwriting, uint8 (N, 1, size, size)."""
    return np.stack([draw_digit(digit, size=size, seed=seed)[None] for digit in digits])


def write_digit_dataset(folder: Path, per_class: int, seed: int = 0, *, size: int = 28) -> None:
    """Write a small data set of drawn digits as `train|test/<digit>/*.png`.

    Args:
        folder: where; made if needed.
        per_class: training images of each digit; the test split has half as many, at least one.
        seed: of the handwritings; no handwriting is in both splits.
        size: height and width of the images.
    """
    random = np.random.default_rng(seed)
    tests = max(1, per_class // 2)
    writers = 1 + random.choice(2**31 - 1, size=(10, per_class + tests), replace=False)
    for digit in range(10):
        for index, writer in enumerate(writers[digit]):
            split = "train" if index < per_class else "test"
            path = folder / split / str(digit) / f"{index:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_digit(digit, size=size, seed=int(writer))).save(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw one digit into a PNG file."""
    parser = argparse.ArgumentParser(description="Draw a digit, white on black.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--digit", type=int, default=7, choices=range(10))
    parser.add_argument("--size", type=int, default=28)
    parser.add_argument("--seed", type=int, default=0, help="the handwriting")
    options = parser.parse_args(arguments)
    options.path.parent.mkdir(parents=True, exist_ok=True)
    picture = draw_digit(options.digit, size=options.size, seed=options.seed)
    Image.fromarray(picture).save(options.path, optimize=True)


if __name__ == "__main__":
    main()
