"""What the commands of `limbeck-train` do, apart from reading their arguments."""

import os
import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from app.bundle import NAME_PATTERN, WEIGHTS_FILE, InputSpec, digest, read_manifest
from training.brought import bring, check_recipe, classifier_file, told
from training.classifier_options import labels_of, options_of
from training.data import Dataset, Split, is_ink, load_dataset, to_unit
from training.download import fetch
from training.evaluation import evaluate_bundle
from training.export import PARITY_BATCHES
from training.introduction import introduce_data, introduce_networks
from training.optimization import PRECISIONS
from training.processes import ALONE, ProcessError, Processes, processes_of
from training.provenance import provenance_of
from training.publication import write_bundle
from training.recipe_book import RECIPES, Images
from training.recipe_file import SUFFIX, read_recipe
from training.recipes import Recipe, overridden, recipe_of, settings_of
from training.resumption import ORDER_FILE, Order, kept_order
from training.run import Run
from training.stages import run_stages
from training.targets import check_version, check_writable, versions_in
from training.weights import weights_of


def run(arguments: Namespace, command_line: Sequence[str], order: Order | None = None) -> None:
    """Train, export and evaluate a bundle; `order` is what a run that is resumed began with.

    Of several processes that torchrun started, all train; the first does the rest.
    """
    processes = processes_of(os.environ)
    chosen = device(arguments, processes)
    options = options_of(arguments)
    file = None if options is None else classifier_file(options)
    spec = _spec(arguments) or (None if file is None else file.spec)
    dataset = load_dataset(arguments.data, spec, labels_of(arguments.labels))
    tell = report if processes.leads else _unheard
    recipe, images = _recipe(arguments, order, dataset.train)
    if order is None:
        order = Order(
            command=tuple(command_line),
            folder=Path.cwd(),
            settings=settings_of(recipe),
            data_sha256=dataset.sha256,
        )
    order.check_data(dataset.sha256)
    suffix = "" if recipe.name == "hardened" else f"-{recipe.name}"
    name = arguments.name or dataset.name + suffix
    work = arguments.work or Path("runs") / name
    _check_bundle_to_be(name, dataset, arguments, work)
    training = Run(
        recipe,
        dataset,
        work,
        chosen,
        tell,
        processes=processes,
        asked_precision=PRECISIONS.get(arguments.precision),
    )
    processes.check_batches(recipe, len(training.training))
    introduce_data(training)
    if images:
        tell(f"the recipe {recipe.name} for {images}")
    if options is not None:
        if not options.is_file:
            # A factory lies where the run was begun; a command looks into no folder by itself.
            sys.path.insert(0, str(order.folder))
        training.brought = bring(options, file, dataset)
        check_recipe(recipe, training.brought)
        tell(told(training.brought))
    introduce_networks(training)
    with processes.joined(chosen), kept_order(work, order) if processes.leads else nullcontext():
        run_stages(training)
    if processes.leads:
        _conclude(training, name, arguments, shlex.join(["limbeck-train", *command_line]))


def _conclude(training: Run, name: str, arguments: Namespace, command: str) -> None:
    """Export the bundle of a finished run, and evaluate it if that is asked for."""
    bundle = _published(training, name, arguments, command)
    if arguments.evaluate:
        evaluate_bundle(
            bundle,
            arguments.data,
            n=arguments.n,
            seed=training.recipe.seed,
            quick=arguments.quick,
            state_dir=training.work / "evaluation",
            dataset=training.dataset,
            device=training.device,
            history=training.histories,
            progress=report,
        )


def _recipe(
    arguments: Namespace, order: Order | None, training: Split
) -> tuple[Recipe, Images | None]:
    """The recipe asked for, and for which images if that was chosen here.

    That of a run that is resumed is the one it began with.

    Raises:
        ValueError: a recipe file or `--set` is wrong, or `--images` beside a recipe file.
    """
    if order is not None:
        return recipe_of(order.settings), None
    if arguments.recipe.endswith(SUFFIX):
        if arguments.images:
            raise ValueError(f"--images chooses between recipes; {arguments.recipe} is one already")
        return overridden(read_recipe(Path(arguments.recipe)), arguments.set), None
    images: Images = arguments.images or ("ink" if is_ink(training) else "photo")
    return overridden(RECIPES[arguments.recipe][images], arguments.set), images


def _check_bundle_to_be(name: str, dataset: Dataset, arguments: Namespace, work: Path) -> None:
    """Say before hours of training what would stop the export after them.

    Raises:
        ValueError: the bundle cannot have this name or version, its folder cannot be written to, or
            there are too few test images.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise ValueError(f"a bundle cannot be called {name!r}; --name takes {NAME_PATTERN}")
    if len(dataset.test) < max(PARITY_BATCHES):
        raise ValueError(
            f"{dataset.name} has {len(dataset.test)} test images; the check of the exported "
            f"graphs needs {max(PARITY_BATCHES)}"
        )
    folder = arguments.out / name
    check_writable(folder, work)
    if arguments.version is not None:
        check_version(folder, arguments.version, begun=(work / ORDER_FILE).exists())


def _published(training: Run, name: str, arguments: Namespace, command: str) -> Path:
    """The bundle of a finished run.

    A command that was interrupted after it wrote its bundle finds it again.
    """
    written = _written_before(arguments.out / name, arguments.version, training)
    if written is not None:
        report(f"{written} has these weights already")
        return written
    dataset = training.dataset
    bundle = write_bundle(
        arguments.out,
        name=name,
        labels=dataset.train.class_names,
        spec=dataset.spec,
        networks=training.trained,
        images=to_unit(dataset.test.images[:64]),
        provenance=provenance_of(training, command),
        version=arguments.version,
        brought=training.brought,
    )
    report(f"wrote {bundle}")
    return bundle


def _written_before(folder: Path, version: int | None, training: Run) -> Path | None:
    """The newest bundle of the folder (or that of the version), if it has the run's weights."""
    versions = versions_in(folder)
    newest = version if version is not None else max(versions, default=None)
    if newest is None or newest not in versions:
        return None
    weights = digest(weights_of(training.trained))
    bundle = folder / str(newest)
    return bundle if read_manifest(bundle).files.get(WEIGHTS_FILE) == weights else None


def data(arguments: Namespace) -> None:
    """Fetch a public data set."""
    fetch(arguments.name, arguments.out, mirror=arguments.mirror, report=report)


def report(line: str) -> None:
    """One line of progress, at once."""
    print(line, flush=True)


def _unheard(line: str) -> None:
    """What processes that do not lead have to say."""


def device(arguments: Namespace, processes: Processes = ALONE) -> torch.device:
    """Where to compute, with the number of threads that is asked for; a GPU for each process.

    Raises:
        ValueError: a GPU is asked for and there is none, or too few, or fewer threads than one.
    """
    if arguments.threads is not None:
        if arguments.threads < 1:
            raise ValueError(f"--threads must be at least 1, got {arguments.threads}")
        torch.set_num_threads(arguments.threads)
    chosen = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no GPU here")
    if chosen == "cuda" and processes.count > 1:
        if processes.local_rank >= torch.cuda.device_count():
            raise ProcessError(
                f"--device cuda: process {processes.local_rank} of this machine has no GPU, there "
                f"are {torch.cuda.device_count()}; start fewer, or give --device cpu"
            )
        torch.cuda.set_device(processes.local_rank)
        return torch.device("cuda", processes.local_rank)
    return torch.device(chosen)


def _spec(arguments: Namespace) -> InputSpec | None:
    """The input size asked for, if any."""
    if arguments.size is None:
        if arguments.grey:
            raise ValueError("--grey changes the images only together with --size")
        return None
    side, colour = arguments.size, not arguments.grey
    return InputSpec(channels=3 if colour else 1, height=side, width=side)
