"""Runs of a whole recipe that take a second: 8x8 images, networks of a few hundred weights."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from app.bundle import InputSpec
from training.data import Dataset, Split
from training.recipe_book import HARDENED
from training.recipes import Recipe, Schedule, Shape
from training.run import Run

SPEC = InputSpec(channels=1, height=8, width=8)
CLASSES = ("left", "right", "top")


def quiet(line: str) -> None:
    """Progress that nobody reads."""


def tiny_split(count: int, seed: int) -> Split:
    """Images with one bright half, which half being the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(CLASSES)
    images = torch.randint(0, 60, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images[labels == 0, :, :, :4] += 150
    images[labels == 1, :, :, 4:] += 150
    images[labels == 2, :, :4, :] += 150
    names = tuple(f"{CLASSES[label]}/{row:03d}.png" for row, label in enumerate(labels.tolist()))
    return Split(images, labels, names, CLASSES)


def tiny_dataset(sha256: str = "0" * 64) -> Dataset:
    """Forty training images."""
    return Dataset("halves", tiny_split(40, 1), tiny_split(9, 2), SPEC, sha256)


def tiny_recipe(epochs: int = 2, learning_rate: float = 5e-3) -> Recipe:
    """The hardened recipe but for its encoders, with hardly any work to do."""
    schedule = Schedule(epochs, batch_size=8, learning_rate=learning_rate, ema_decay=0.9)
    return replace(
        HARDENED,
        encoder=None,
        surrogate_encoder=None,
        classifier=replace(
            HARDENED.classifier,
            widths=(4, 8),
            depths=(0, 0),
            schedule=replace(schedule, ema_decay=0.0),
        ),
        teacher=Shape((4, 8), (0, 0)),
        student=Shape((4,), (0,)),
        normal_teacher=replace(HARDENED.normal_teacher, schedule=schedule),
        adversarial_teacher=replace(HARDENED.adversarial_teacher, schedule=schedule),
        distillation=replace(HARDENED.distillation, schedule=schedule),
        ablation=schedule,
        ablation_seeds=2,
        surrogate=schedule,
        validation_fraction=0.2,
    )


def with_skips(recipe: Recipe, skips: bool) -> Recipe:
    """The recipe with purifiers that have skips, or have none."""
    teacher, student = (replace(shape, skips=skips) for shape in (recipe.teacher, recipe.student))
    return replace(recipe, teacher=teacher, student=student)


def tiny_run(
    work: Path,
    recipe: Recipe | None = None,
    dataset: Dataset | None = None,
    report: Callable[[str], None] = quiet,
) -> Run:
    """A run that keeps its checkpoints in `work`."""
    chosen = recipe or tiny_recipe()
    return Run(chosen, dataset or tiny_dataset(), work, torch.device("cpu"), report)
