"""The command `limbeck-train`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.recipes import RECIPES

INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    arguments_given = list(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(arguments_given)
    try:
        # PyTorch takes seconds to import: a misspelt argument is answered without it.
        from training import commands, judging

        match arguments.command:
            case "run":
                commands.run(arguments, arguments_given)
            case "evaluate":
                judging.evaluate(arguments)
            case "data":
                commands.data(arguments)
            case "list":
                commands.show(arguments)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        print(f"limbeck-train: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """All commands with their arguments."""
    root = argparse.ArgumentParser(prog="limbeck-train", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True)
    _add_run(commands.add_parser("run", help="train, export and evaluate a bundle"))
    _add_evaluate(commands.add_parser("evaluate", help="make a bundle's robustness card"))
    fetch = commands.add_parser("data", help="fetch a public data set")
    fetch.add_argument("name", help="mnist, cifar10 or gtsrb")
    fetch.add_argument("--out", type=Path, default=Path("data"), metavar="DIR")
    fetch.add_argument("--mirror", metavar="URL", help="take the files from here instead")
    shown = commands.add_parser("list", help="show the recipes, or one with all its settings")
    shown.add_argument("recipe", nargs="?", choices=sorted(RECIPES))
    return root


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", choices=sorted(RECIPES))
    _add_data(command)
    command.add_argument("--out", type=Path, default=Path("models"), metavar="DIR")
    command.add_argument("--name", help="of the bundle (default: of the data set)")
    command.add_argument("--version", type=int, help="of the bundle (default: the next)")
    command.add_argument(
        "--work", type=Path, metavar="DIR", help="checkpoints (default: runs/<name of the bundle>)"
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SETTING=VALUE",
        help="change a setting of the recipe, as distillation.schedule.epochs=3",
    )
    command.add_argument("--size", type=int, help="resize all images to this width and height")
    command.add_argument("--grey", action="store_true", help="with --size: make them grey")
    command.add_argument(
        "--no-evaluate", dest="evaluate", action="store_false", help="skip the robustness card"
    )
    _add_protocol(command)


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("bundle", type=Path, help="as models/mnist/1")
    _add_data(command)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--epsilon", type=float, help="in [0, 1] pixel units")
    command.add_argument("--norm", choices=("linf", "l2"), default="linf")
    command.add_argument(
        "--state", type=Path, metavar="DIR", help="keep results here, so that it can be resumed"
    )
    command.add_argument(
        "--attack",
        metavar="NAME[,NAME]",
        help="only these, end-to-end, and no card: fgsm, pgd, apgd-ce, apgd-t, fab-t, square, "
        "autoattack",
    )
    command.add_argument(
        "--save",
        type=Path,
        metavar="FILE.npy",
        help="with --attack: the adversarial examples, with what they are in FILE.json",
    )
    command.add_argument(
        "--recount",
        type=Path,
        metavar="FILE.npy",
        help="count what --save wrote again, after measuring how far it is from the clean images",
    )
    command.add_argument(
        "--from",
        dest="source",
        choices=("weights", "onnx"),
        default="weights",
        help="the networks; the ONNX files give no gradients and no card",
    )
    _add_protocol(command)


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder or tar archive of train/<class>/*, test/<class>/*",
    )


def _add_protocol(command: argparse.ArgumentParser) -> None:
    command.add_argument("--n", type=int, default=1000, help="test images to attack")
    command.add_argument("--quick", action="store_true", help="short attacks: a trial, no card")
    command.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    command.add_argument(
        "--threads", type=int, help="of PyTorch on the CPU; another number moves the last digits"
    )
