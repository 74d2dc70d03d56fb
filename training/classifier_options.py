"""How a classifier that a user brings is to be used, as the command line says it."""

import argparse
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

ChannelOrder = Literal["rgb", "bgr"]
Layout = Literal["chw", "hwc", "flat-chw", "flat-hwc"]
Gives = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class ClassifierOptions:
    """A classifier that was brought, and what it takes and gives.

    An image in [0, 1] becomes `(image * scale - mean) / std`.

    Attributes:
        source: an ONNX or TorchScript file, or `package.module:factory`.
        weights: state dict of what the factory makes.
        scale: what white is for the classifier.
        mean: of each channel, or of all; in units of `scale`.
        std: as `mean`.
        channel_order: of colour images.
        layout: of one image; None: what the classifier's shape says.
        gives: what its output holds.
        output: the name of the output, where there are several.
    """

    source: str
    weights: Path | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channel_order: ChannelOrder = "rgb"
    layout: Layout | None = None
    gives: Gives = "logits"
    output: str | None = None

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"--scale must be above 0, got {self.scale}")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"--std must be above 0, got {self.std}")

    @property
    def is_file(self) -> bool:
        """Whether the source is no `package.module:factory`; files may have a colon as well."""
        return ":" not in self.source or Path(self.source).is_file()

    def settings(self) -> dict[str, Any]:
        """All but the places of files, as plain JSON values."""
        plain = {**dataclasses.asdict(self), "mean": list(self.mean), "std": list(self.std)}
        return {name: plain[name] for name in plain if name not in ("source", "weights")}


def add_classifier(command: argparse.ArgumentParser) -> None:
    """The arguments that describe a classifier."""
    group = command.add_argument_group("your own classifier, instead of the recipe's")
    group.add_argument(
        "--classifier", metavar="FILE", help="ONNX, TorchScript, or package.module:factory"
    )
    group.add_argument("--weights", type=Path, metavar="FILE", help="state dict for the factory")
    group.add_argument(
        "--labels",
        metavar="NAMES",
        help="the class folders in the order of its outputs, by commas, or a file with one a line "
        "(default: sorted)",
    )
    group.add_argument("--scale", type=float, help="what white is for it (default: 1)")
    group.add_argument("--mean", metavar="NUMBERS", help="subtracted, by commas (default: 0)")
    group.add_argument("--std", metavar="NUMBERS", help="divided by (default: 1)")
    group.add_argument("--channel-order", choices=get_args(ChannelOrder), help="default: rgb")
    group.add_argument(
        "--layout", choices=get_args(Layout), help="default: what its shape says, else chw"
    )
    group.add_argument("--gives", choices=get_args(Gives), help="default: logits")
    group.add_argument("--output", metavar="NAME", help="the output that counts, of several")


def options_of(arguments: argparse.Namespace) -> ClassifierOptions | None:
    """The options of a command; None if no classifier is brought.

    Raises:
        ValueError: a number is none, or options are given without a classifier.
    """
    given: Mapping[str, Any] = {
        "weights": arguments.weights,
        "scale": arguments.scale,
        "mean": _numbers("--mean", arguments.mean),
        "std": _numbers("--std", arguments.std),
        "channel_order": arguments.channel_order,
        "layout": arguments.layout,
        "gives": arguments.gives,
        "output": arguments.output,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.classifier is None:
        if given:
            names = ", ".join("--" + name.replace("_", "-") for name in given)
            raise ValueError(f"{names}: only with --classifier")
        return None
    return ClassifierOptions(source=arguments.classifier, **given)


def labels_of(text: str | None) -> tuple[str, ...] | None:
    """The labels that an argument names, or the file that it names.

    Raises:
        ValueError: there are fewer than two, or one twice.
    """
    if text is None:
        return None
    names = text.split(",")
    if len(names) == 1:
        try:
            names = Path(text).read_text().splitlines()
        except OSError as error:
            raise ValueError(f"--labels {text}: cannot be read: {error.strerror}") from error
    found = tuple(name.strip() for name in names if name.strip())
    if len(found) < 2 or len(set(found)) != len(found):
        raise ValueError(f"--labels wants two labels or more, each once, got {', '.join(found)}")
    return found


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    """Numbers by commas."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{name} wants numbers by commas, got {text!r}") from None
