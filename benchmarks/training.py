"""How many images a second each stage of training takes, by one process and by several.

Or by one process in float32 and in bfloat16.

Run `make bench-training`, or `python -m benchmarks.training --help`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.machine import busy_lines
from benchmarks.measurement import spread
from benchmarks.processes import ROOT
from benchmarks.stage_speed import IMAGES_FILE, LABELS, stages_of
from benchmarks.table import ranged
from training.digits import draw_digits
from training.optimization import PRECISIONS
from training.provenance import machine
from training.recipe_book import IMAGES, RECIPES

_WORKER = "benchmarks.stage_speed"


@dataclass(frozen=True, slots=True)
class Way:
    """One of the ways to train that are compared."""

    processes: int
    precision: str | None = None  # None: what suits the device

    def __str__(self) -> str:
        """As the table's head names it."""
        several = "es" if self.processes > 1 else ""
        return f"{self.processes} process{several}{f', {self.precision}' if self.precision else ''}"


@dataclass(frozen=True, slots=True)
class Speeds:
    """What one training found.

    Attributes:
        images_per_s: by stage, of all processes together.
        memory_mib: peak resident memory of each process.
        gpu_memory_mib: peak memory that PyTorch took of each one's GPU; empty without GPUs.
    """

    images_per_s: dict[str, float]
    memory_mib: tuple[float, ...]
    gpu_memory_mib: tuple[float, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.processes < 1 or options.count < len(LABELS) or options.rounds < 1:
        parser.error(f"--processes and --rounds must be at least 1, --count {len(LABELS)}")
    ways = [Way(count) for count in sorted({1, options.processes})]
    if options.bfloat16:
        ways = [Way(1, precision) for precision in PRECISIONS]
    needed, gpus = ways[-1].processes, torch.cuda.device_count()
    if options.device == "cuda" and needed > gpus:
        parser.error(f"--device cuda: a GPU for each of --processes {needed}; found: {gpus}")
    torch.set_num_threads(1)  # as the processes that are measured; the table says so
    load_before = os.getloadavg()[0]
    found: dict[Way, list[Speeds]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / IMAGES_FILE
        # One is kept for validation.
        np.save(images, digits(options.count + 1, colour=options.images != "ink"))
        for number in range(options.rounds):
            for way in ways:
                print(f"round {number + 1}, {way} ...", file=sys.stderr, flush=True)
                found[way].append(
                    measured(images, way, options.recipe, options.images, options.device)
                )
    for line in report(found, options, load_before):
        print(line)


def digits(count: int, *, colour: bool = False) -> npt.NDArray[np.uint8]:
    """Drawn digits, ten of each handwriting: (count, 1, 28, 28), in colour (count, 3, 32, 32)."""
    hands = range(1, 1 + -(-count // 10))
    size = 32 if colour else 28
    grey = np.concatenate([draw_digits(range(10), size=size, seed=hand) for hand in hands])[:count]
    if not colour:
        return grey
    inks = np.random.default_rng(0).integers(128, 256, (count, 3, 1, 1))
    return (grey * inks // 255).astype(np.uint8)


def measured(images: Path, way: Way, recipe: str, variant: str, device: str) -> Speeds:
    """One training in this way, by processes of one thread each.

    Raises:
        SystemExit: it failed.
    """
    launch = ["-m", _WORKER]
    options = ["--recipe", recipe, "--images", variant, "--device", device]
    if way.precision:
        options += ["--precision", way.precision]
    count = way.processes
    if count > 1:
        torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count))
        launch = [*torchrun, *launch]
    with tempfile.TemporaryDirectory(dir=images.parent) as folder:
        (Path(folder) / IMAGES_FILE).hardlink_to(images)
        result = subprocess.run(
            [sys.executable, *launch, folder, *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if result.returncode:
            raise SystemExit(f"{result.stderr}\ntraining by {count} process(es) failed")
        each = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(count)]
    return Speeds(
        images_per_s=each[0]["images_per_s"],
        memory_mib=tuple(one["memory_mib"] for one in each),
        gpu_memory_mib=tuple(one["gpu_memory_mib"] for one in each if "gpu_memory_mib" in one),
    )


def report(
    found: dict[Way, list[Speeds]], options: argparse.Namespace, load_before: float
) -> Iterator[str]:
    """The table, below what it was measured on."""
    columns = list(found.values())
    yield f"{machine(torch.device(options.device))}; PyTorch {torch.__version__}"
    yield (
        f"Recipe {options.recipe} for {options.images}, {options.count} images an epoch, rounds: "
        f"{options.rounds}; the median, and in brackets the lowest and highest round. Each process "
        "has one CPU thread."
    )
    yield from busy_lines(load_before)
    yield ""
    heads = [f"{way}, images/s" for way in found]
    compared = ["ratio"] if len(columns) > 1 else []
    yield _row("stage", [*heads, *compared])
    yield "|---|" + "---:|" * len([*heads, *compared])
    for stage in stages_of(RECIPES[options.recipe][options.images]):
        rates = [[speeds.images_per_s[stage] for speeds in column] for column in columns]
        if compared:
            rates.append([after / before for before, after in zip(*rates, strict=True)])
        yield _row(stage, [ranged(spread(values)) for values in rates])
    blank = [""] * len(compared)
    memory = [_highest([speeds.memory_mib for speeds in column]) for column in columns]
    yield _row("peak memory of each process, MiB", [*memory, *blank])
    if columns[0][0].gpu_memory_mib:
        memory = [_highest([speeds.gpu_memory_mib for speeds in column]) for column in columns]
        yield _row("peak memory on each GPU, MiB", [*memory, *blank])


def _row(title: str, cells: Sequence[str]) -> str:
    """One row of the table."""
    return " ".join(f"| {cell}" if cell else "|" for cell in (title, *cells)) + " |"


def _highest(rounds: list[tuple[float, ...]]) -> str:
    """Of each process the most in any round."""
    return ", ".join(f"{max(of_one):.0f}" for of_one in zip(*rounds, strict=True))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="hardened")
    parser.add_argument("--images", choices=IMAGES, default="ink", help="the recipe's variant")
    parser.add_argument("--count", type=int, default=768, help="of drawn digits to train on")
    parser.add_argument("--rounds", type=int, default=2, help="of each way to train")
    compared = parser.add_mutually_exclusive_group()
    compared.add_argument(
        "--processes", type=int, default=2, help="to compare with one; 1: no other"
    )
    compared.add_argument(
        "--bfloat16", action="store_true", help="compare float32 with bfloat16, by one process"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser


if __name__ == "__main__":
    main()
