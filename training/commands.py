"""What the commands of `limbeck-train` do, apart from reading their arguments."""

import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch

from app.bundle import InputSpec
from training.data import load_dataset, to_unit
from training.download import fetch
from training.evaluation import evaluate_bundle
from training.networks import multiply_adds, parameters
from training.provenance import provenance_of
from training.publication import write_bundle
from training.recipes import RECIPES, Recipe, overridden, settings_of
from training.stages import Run, build_classifier, build_purifier, run_stages


def run(arguments: Namespace, command_line: Sequence[str]) -> None:
    """Train, export and evaluate a bundle."""
    recipe = overridden(RECIPES[arguments.recipe], arguments.set)
    dataset = load_dataset(arguments.data, _spec(arguments))
    suffix = "" if recipe.name == "hardened" else f"-{recipe.name}"
    name = arguments.name or dataset.name + suffix
    report(
        f"{dataset.name}: {len(dataset.train)} training and {len(dataset.test)} test images of "
        f"{dataset.spec.width}x{dataset.spec.height}x{dataset.spec.channels}, "
        f"{len(dataset.train.class_names)} classes, digest {dataset.sha256[:12]}"
    )
    describe(recipe, dataset.spec, len(dataset.train.class_names))
    work = arguments.work or Path("runs") / name
    training = Run(recipe, dataset, work, device(arguments), report)
    run_stages(training)
    images = to_unit(dataset.test.images[:64])
    bundle = write_bundle(
        arguments.out,
        name=name,
        labels=dataset.train.class_names,
        spec=dataset.spec,
        networks=training.networks,
        images=images,
        provenance=provenance_of(training, shlex.join(["limbeck-train", *command_line])),
        version=arguments.version,
    )
    report(f"wrote {bundle}")
    if arguments.evaluate:
        evaluate_bundle(
            bundle,
            arguments.data,
            n=arguments.n,
            seed=recipe.seed,
            quick=arguments.quick,
            state_dir=work / "evaluation",
            device=device(arguments),
            history=training.histories,
            progress=report,
        )


def evaluate(arguments: Namespace) -> None:
    """Evaluate a bundle."""
    evaluate_bundle(
        arguments.bundle,
        arguments.data,
        n=arguments.n,
        seed=arguments.seed,
        epsilon=arguments.epsilon,
        norm=arguments.norm,
        quick=arguments.quick,
        state_dir=arguments.state,
        device=device(arguments),
        progress=report,
    )


def data(arguments: Namespace) -> None:
    """Fetch a public data set."""
    fetch(arguments.name, arguments.out, mirror=arguments.mirror, report=report)


def show(arguments: Namespace) -> None:
    """Print every recipe, or one with all its settings."""
    for name, recipe in RECIPES.items():
        if arguments.recipe in (None, name):
            print(f"{name}: L-inf epsilon {recipe.epsilon:g}, seed {recipe.seed}")
    if arguments.recipe is not None:
        _print_settings(settings_of(RECIPES[arguments.recipe]))


def _print_settings(settings: dict[str, object], path: str = "") -> None:
    """Every setting as `--set` takes it."""
    for name, value in settings.items():
        if isinstance(value, dict):
            _print_settings(value, f"{path}{name}.")
        else:
            print(f"  {path}{name}={value}")


def describe(recipe: Recipe, spec: InputSpec, classes: int) -> None:
    """Report multiply-adds and parameters of the recipe's networks."""
    networks = {
        "classifier": build_classifier(recipe, spec.channels, classes),
        "teacher": build_purifier(recipe.teacher, spec.channels),
        "student": build_purifier(recipe.student, spec.channels),
    }
    for name, network in networks.items():
        cost = multiply_adds(network, spec.shape)
        report(f"{name}: {cost:,} multiply-adds an image, {parameters(network):,} parameters")


def report(line: str) -> None:
    """One line of progress, at once."""
    print(line, flush=True)


def device(arguments: Namespace) -> torch.device:
    """Where to compute.

    Raises:
        ValueError: a GPU is asked for and there is none.
    """
    chosen = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if chosen == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no GPU here")
    return torch.device(chosen)


def _spec(arguments: Namespace) -> InputSpec | None:
    """The input size asked for, if any."""
    if arguments.size is None:
        return None
    side, colour = arguments.size, not arguments.grey
    return InputSpec(channels=3 if colour else 1, height=side, width=side)
