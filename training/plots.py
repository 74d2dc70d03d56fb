"""The plots of a card, as PNG files of under 100 KB."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.typing import RcKeyType
from PIL import Image
from torch import Tensor

from training.card import Sweep
from training.detection import FALSE_ALARM_RATE

# Colours of Okabe and Ito, which colour-blind readers tell apart.
BLUE, ORANGE, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
_COLOURS = (BLUE, ORANGE, GREEN, PINK, "#e69f00", "#56b4e9", "#222222")
# Curves often coincide: dashes let the one below show.
_DASHES = ("-", "--", "-.", ":")
_RAREST = 1e-3  # false alarms; a smaller share of the clean images is too few to mean anything
_STYLE: dict[RcKeyType, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "lines.linewidth": 2,
    "svg.hashsalt": "limbeck",
}


@dataclass(frozen=True)
class Answered:
    """An image (C, H, W) in [0, 1] with the classifier's answer."""

    image: Tensor
    answer: str
    confidence: float


@dataclass(frozen=True)
class Example:
    """One row of the grid; `attack` says what the attack saw."""

    attack: str
    clean: Answered
    attacked: Answered
    purified: Answered


def epsilon_plot(sweep: Sweep, headline: float) -> bytes:
    """Accuracy over epsilon, classifier alone and purified."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(6.0, 3.6)
        epsilons = [point.epsilon for point in sweep.points]
        bare = [point.bare for point in sweep.points]
        purified = [point.purified for point in sweep.points]
        axes.plot(
            epsilons,
            purified,
            "o-",
            color=BLUE,
            markersize=4,
            label="purified, attacked end-to-end",
        )
        axes.plot(epsilons, bare, "s--", color=ORANGE, markersize=4, label="classifier alone")
        axes.axvline(headline, color="#999999", linewidth=1, linestyle=":")
        _label_above(axes, headline, f"ε = {headline:.3g}")
        axes.set_xlabel(f"ε ({_norm_name(sweep.norm)}, pixels in [0, 1])")
        axes.set_ylabel("accuracy under attack")
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.legend(loc="upper right")
        return _png(figure)


def detection_plot(curves: Mapping[str, tuple[Sequence[float], Sequence[float], float]]) -> bytes:
    """ROC curves of detection by shift: title to false alarms, detections and AUROC.

    False alarms are drawn in powers of ten, for the alarm is set to one in a hundred.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(6.6, 5.2 + 0.1 * len(curves))
        for index, (title, (false_alarms, detections, area)) in enumerate(curves.items()):
            axes.step(
                false_alarms,
                detections,
                where="post",
                color=_COLOURS[index % len(_COLOURS)],
                linestyle=_DASHES[index % len(_DASHES)],
                label=f"{title} (AUROC {area:.3f})",
            )
        chance = np.geomspace(_RAREST, 1, 100)
        axes.plot(chance, chance, color="#999999", linewidth=1, linestyle=":", label="chance")
        axes.axvline(FALSE_ALARM_RATE, color="#999999", linewidth=1)
        _label_above(axes, FALSE_ALARM_RATE, f"alarm set to {FALSE_ALARM_RATE:.0%}")
        axes.set_xscale("log")
        axes.set_xlim(_RAREST, 1)
        axes.set_xlabel("false alarms on clean images")
        axes.set_ylabel("attacked images caught")
        axes.set_ylim(-0.02, 1.02)
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        figure.legend(loc="outside lower center", fontsize=9, ncols=1)
        return _png(figure)


# What a stage is measured by; an encoder alone is `attacked` as a purifier is end-to-end.
_MEASURED = {"clean": GREEN, "grey-box": BLUE, "end-to-end": ORANGE, "attacked": PINK}


def training_plot(history: Mapping[str, Sequence[Mapping[str, float]]]) -> bytes:
    """Loss and accuracies over the epochs of every stage.

    Args:
        history: stage -> one record per epoch; `loss` and, as shares, whatever was measured.
    """
    stages = {name: records for name, records in history.items() if records}
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(2.9 * max(1, len(stages)), 4.4), layout="constrained")
        grid = figure.subplots(2, max(1, len(stages)), squeeze=False, sharex="col")
        measured: dict[str, Line2D] = {}
        for column, (name, records) in enumerate(stages.items()):
            measured |= _stage_curves(grid[0, column], grid[1, column], records)
            grid[0, column].set_title(name.replace("_", " "), fontsize=10)
        grid[0, 0].set_ylabel("training loss")
        grid[1, 0].set_ylabel("validation accuracy")
        if measured:
            figure.legend(
                list(measured.values()),
                list(measured),
                loc="outside lower center",
                fontsize=9,
                ncols=len(measured),
            )
        return _png(figure)


def _stage_curves(
    losses: Axes, accuracies: Axes, records: Sequence[Mapping[str, float]]
) -> dict[str, Line2D]:
    """The curves of one stage; returns those of its accuracies by name."""
    epochs = range(1, len(records) + 1)
    losses.plot(epochs, [record["loss"] for record in records], "o-", color="#555555", markersize=3)
    curves = {}
    for name, colour in _MEASURED.items():
        if name not in records[0]:
            continue
        values = [record.get(name, float("nan")) for record in records]
        (curves[name],) = accuracies.plot(epochs, values, "o-", color=colour, markersize=3)
    accuracies.set_xlabel("epoch")
    accuracies.set_ylim(-0.02, 1.02)
    accuracies.yaxis.set_major_formatter(PercentFormatter(1.0))
    # Room on both sides, or a stage of one epoch would have ticks at parts of it.
    accuracies.set_xlim(0.5, len(records) + 0.5)
    accuracies.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return curves


def example_plot(examples: Sequence[Example], epsilon: float) -> bytes:
    """A row for each example: clean, attacked, purified, and what purification changed."""
    titles = ("clean", f"attacked, ε = {epsilon:.3g}", "purified", "change")
    with matplotlib.rc_context({**_STYLE, "axes.grid": False}):
        figure = Figure(figsize=(5.8, 1.62 * len(examples) + 0.25), layout="constrained")
        grid = figure.subplots(len(examples), 4, squeeze=False)
        for row, example in zip(grid, examples, strict=True):
            stages = (example.clean, example.attacked, example.purified)
            # What purification took away or added; grey is unchanged.
            difference = (example.purified.image - example.attacked.image + 1) / 2
            pictures = [stage.image for stage in stages] + [difference]
            for axes, picture in zip(row, pictures, strict=True):
                axes.imshow(_rgb(picture), interpolation="nearest")
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set_visible(False)
            row[0].set_ylabel(example.attack, fontsize=9, color="#555555")
            for axes, stage in zip(row[:3], stages, strict=True):
                right = stage.answer == example.clean.answer
                axes.set_xlabel(
                    f'"{stage.answer}" {stage.confidence:.0%}',
                    color="#222222" if right else ORANGE,
                    fontweight="normal" if right else "bold",
                )
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title, fontsize=10)
        return _png(figure, colours=256)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; no global state, no window."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _label_above(axes: Axes, place: float, text: str) -> None:
    """A note over a vertical line of axes that end just above 1."""
    axes.text(place, 1.03, text, ha="center", color="#555555", fontsize=9)


def _rgb(image: Tensor) -> np.ndarray[Any, Any]:
    """(C, H, W) in [0, 1] as (H, W, 3)."""
    pixels = image.detach().cpu().numpy().transpose(1, 2, 0)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _norm_name(norm: str) -> str:
    return {"linf": "L∞", "l2": "L2"}[norm]


def _png(figure: Figure, colours: int = 64) -> bytes:
    """The figure on white, with a palette: a third of the bytes, and lines look the same."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white", metadata={"Software": None})
    picture = Image.open(buffer).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    small = io.BytesIO()
    picture.save(small, format="png", optimize=True)
    return small.getvalue()
