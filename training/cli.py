"""The command `limbeck-train`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training import recipe_commands
from training.attack_options import add_attack, add_service
from training.classifier_options import add_classifier
from training.ranges import COUNT, POSITIVE, SEED, argument
from training.recipe_book import IMAGES, RECIPES
from training.recipe_file import SUFFIX

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_GOES_ON = "goes on from the last checkpoint"
_STOPPED = {
    "run": f"stopped; the same command, or limbeck-train resume WORKDIR, {_GOES_ON}",
    "resume": f"stopped; the same command {_GOES_ON}",
    "evaluate": "stopped; with --state the same command goes on from the last attack that ended",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    arguments_given = list(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(arguments_given)
    try:
        _obey(arguments, arguments_given)
    except KeyboardInterrupt:
        print(_STOPPED.get(arguments.command, "stopped"), file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        print(f"limbeck-train: {error}", file=sys.stderr)
        return 1
    return 0


def _obey(arguments: argparse.Namespace, arguments_given: Sequence[str]) -> None:
    """Do what the command says.

    PyTorch takes seconds to import: what can be answered without it is.
    """
    if arguments.command == "list":
        return recipe_commands.show(arguments)
    if arguments.command == "init":
        return recipe_commands.init(arguments)
    from training import attack_commands, commands, comparison_report, judging, resumption
    from training.processes import check_alone

    if arguments.command not in ("run", "resume"):
        check_alone(arguments.command)
    match arguments.command:
        case "run":
            commands.run(arguments, arguments_given)
        case "resume":
            order = resumption.read_order(arguments.work)
            meant = resumption.placed(parser().parse_args(order.command), order.folder)
            meant.work = arguments.work
            commands.run(meant, order.command, order)
        case "compare":
            comparison_report.compare(arguments)
        case "attack":
            attack_commands.attack(arguments)
        case "recount":
            attack_commands.recount(arguments)
        case "evaluate":
            judging.evaluate(arguments)
        case "data":
            commands.data(arguments)
    return None


def parser() -> argparse.ArgumentParser:
    """All commands with their arguments."""
    root = argparse.ArgumentParser(prog="limbeck-train", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True)
    _add_run(commands.add_parser("run", help="train, export and evaluate a bundle"))
    resumed = commands.add_parser("resume", help="go on with a run that was interrupted")
    resumed.add_argument("work", type=Path, metavar="WORKDIR", help="of the run, as runs/mnist")
    _add_evaluate(commands.add_parser("evaluate", help="make a bundle's robustness card"))
    compared = commands.add_parser("compare", help="show robustness cards side by side")
    compared.add_argument("first", type=Path, help="a bundle, as models/mnist/1, or a card.json")
    compared.add_argument("others", type=Path, nargs="+", help="to compare with the first")
    compared.add_argument("--markdown", action="store_true", help="print a Markdown table")
    attack = commands.add_parser("attack", help="attack a running service by its scores")
    _add_data(attack)
    add_attack(attack)
    recount = commands.add_parser("recount", help="ask a service again about saved attacked images")
    recount.add_argument("file", type=Path, metavar="FILE.npy", help="of attack --out")
    add_service(recount)
    fetch = commands.add_parser("data", help="fetch a public data set")
    fetch.add_argument("name", help="mnist, cifar10 or gtsrb")
    fetch.add_argument("--out", type=Path, default=Path("data"), metavar="DIR")
    fetch.add_argument("--mirror", metavar="URL", help="take the files from here instead")
    shown = commands.add_parser("list", help="show the recipes, or one with all its settings")
    shown.add_argument("recipe", nargs="?", choices=sorted(RECIPES))
    _add_images(shown, "photo")
    written = commands.add_parser("init", help="write a recipe file with comments, to edit")
    written.add_argument(
        "recipe",
        nargs="?",
        default="hardened",
        help=f"{', '.join(sorted(RECIPES))}, or what a bundle was trained by, as models/mnist/1",
    )
    _add_images(written, "photo")
    written.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help=f"to write (default: <recipe>{SUFFIX}); - prints it",
    )
    return root


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "recipe", type=_recipe, help=f"{', '.join(sorted(RECIPES))}, or a file *{SUFFIX} of init"
    )
    _add_data(command)
    _add_images(command, None)
    add_classifier(command)
    command.add_argument("--out", type=Path, default=Path("models"), metavar="DIR")
    command.add_argument("--name", help="of the bundle (default: of the data set)")
    command.add_argument(
        "--version", type=argument(int, COUNT), help="of the bundle (default: the next)"
    )
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
    command.add_argument(
        "--size", type=argument(int, COUNT), help="resize all images to this width and height"
    )
    command.add_argument("--grey", action="store_true", help="with --size: make them grey")
    command.add_argument(
        "--no-evaluate", dest="evaluate", action="store_false", help="skip the robustness card"
    )
    command.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="of convolutions and matrix products in training (default: bfloat16 on a GPU that has "
        "it, else float32); bfloat16 is faster on processors that have it, too",
    )
    _add_protocol(command)


def _add_images(command: argparse.ArgumentParser, default: str | None) -> None:
    command.add_argument(
        "--images",
        choices=IMAGES,
        default=default,
        help="the recipe's variant: ink for grey images that are nearly black and white, as digits "
        "and script are; object for photographs that mean the same when mirrored; photo for all "
        f"others (default: {default or 'ink or photo, as the images are'})",
    )


def _recipe(name: str) -> str:
    """The name of a recipe or of a recipe file; the file is read later."""
    if name in RECIPES or name.endswith(SUFFIX):
        return name
    raise argparse.ArgumentTypeError(
        f"no recipe {name!r}: choose from {', '.join(sorted(RECIPES))}, or give a file *{SUFFIX}"
    )


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("bundle", type=Path, help="as models/mnist/1")
    _add_data(command)
    command.add_argument("--seed", type=argument(int, SEED), default=0)
    command.add_argument(
        "--epsilon",
        type=argument(float, POSITIVE),
        help="in [0, 1] pixel units (default: the recipe's; with --norm l2 that of its unseen "
        "threat)",
    )
    command.add_argument("--norm", choices=("linf", "l2"), default="linf")
    command.add_argument(
        "--state", type=Path, metavar="DIR", help="keep results here, so that it can be resumed"
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="write the card here and not into the bundle"
    )
    command.add_argument(
        "--attack",
        metavar="NAME[,NAME]",
        help="only these, and no card; end-to-end unless --grey-box: fgsm, pgd, apgd-ce, apgd-t, "
        "fab-t, square, autoattack",
    )
    command.add_argument(
        "--grey-box",
        action="store_true",
        help="with --attack: attack the classifier alone, and purify what comes out",
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
        help="purifier and classifier (default: weights where the bundle has them): onnx takes "
        "the files that the service runs, rebuilt for the attacks",
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
    command.add_argument(
        "--n", type=argument(int, COUNT), default=1000, help="test images to attack"
    )
    command.add_argument(
        "--quick", action="store_true", help="short attacks: a trial; its card says so"
    )
    command.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    command.add_argument(
        "--threads", type=int, help="of PyTorch on the CPU; another number moves the last digits"
    )
