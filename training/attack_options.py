"""The arguments of the commands that attack a running service."""

import argparse
from pathlib import Path

from training.ranges import COUNT, POSITIVE, SEED, argument


def add_attack(command: argparse.ArgumentParser) -> None:
    """How hard a service is attacked."""
    add_service(command)
    command.add_argument(
        "--n", type=argument(int, COUNT), default=20, help="random test images to attack"
    )
    command.add_argument(
        "--queries", type=int, default=1000, help="of one image, at most, the clean one included"
    )
    command.add_argument(
        "--epsilon",
        type=argument(float, POSITIVE),
        help="in [0, 1] pixel units (default: of the bundle's card)",
    )
    command.add_argument("--norm", choices=("linf", "l2"), default="linf")
    command.add_argument("--seed", type=argument(int, SEED), default=0)
    command.add_argument("--out", type=Path, metavar="FILE.npy", help="keep the images as sent")


def add_service(command: argparse.ArgumentParser) -> None:
    """Which service, and with how much patience."""
    command.add_argument(
        "--url",
        required=True,
        help="as http://127.0.0.1:8000; an API key is taken from the variable ATTACK_API_KEY",
    )
    command.add_argument("--model", metavar="NAME", help="as mnist or mnist@1 (default: its own)")
    command.add_argument(
        "--purify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether the purifier stands before the classifier",
    )
    command.add_argument(
        "--yes", action="store_true", help="attack another machine without being asked"
    )
    command.add_argument(
        "--timeout", type=float, default=30, metavar="S", help="seconds to wait for one answer"
    )
    command.add_argument(
        "--minutes", type=float, default=30, help="after which everything is ended"
    )
