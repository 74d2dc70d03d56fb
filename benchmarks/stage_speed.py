"""Times the stages of a recipe: one process of those that `benchmarks.training` starts.

Every stage runs two epochs, of which the second counts: the first also sets up PyTorch's kernels.
"""

import argparse
import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

import training.run
from app.bundle import InputSpec
from training.checkpoints import Checkpoint
from training.data import Dataset, Split
from training.encoders import train_encoder
from training.optimization import PRECISIONS, History, Task, train
from training.processes import processes_of
from training.recipe_book import IMAGES, RECIPES
from training.recipes import Recipe, batch_sizes, overridden
from training.run import Run
from training.stages import train_classifier, train_student, train_teacher

IMAGES_FILE = "digits.npy"
LABELS = tuple("0123456789")
# Each stage with the recipe's setting for it.
_STAGES = {
    "classifier": "classifier",
    "normal_teacher": "normal_teacher",
    "adversarial_teacher": "adversarial_teacher",
    "student": "distillation",
}
_ENCODER = {"student_encoder": "encoder"}


def main() -> None:
    """Train, and write what this process found to `<folder>/<rank>.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with the images; for everything else, too")
    parser.add_argument("--recipe", choices=sorted(RECIPES), required=True)
    parser.add_argument("--images", choices=IMAGES, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--precision", choices=PRECISIONS, help="default: as suits the device")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    processes = processes_of(os.environ)
    device = torch.device("cpu")
    if arguments.device == "cuda":
        device = torch.device("cuda", processes.local_rank)
        torch.cuda.set_device(device)
    recipe = _shortened(RECIPES[arguments.recipe][arguments.images])
    dataset = _dataset(arguments.folder / IMAGES_FILE)
    run = Run(
        recipe,
        dataset,
        arguments.folder / "work",
        device,
        lambda line: None,
        processes=processes,
        asked_precision=PRECISIONS.get(arguments.precision),
    )
    with processes.joined(device), patch.object(training.run, "train", _without_validation):
        train_classifier(run, "classifier", recipe.seed)
        train_teacher(run, "normal_teacher", recipe.normal_teacher)
        train_teacher(run, "adversarial_teacher", recipe.adversarial_teacher)
        train_student(run, "student", recipe.distillation)
        if recipe.encoder:
            train_encoder(run, "student_encoder", recipe.encoder, recipe.student)
    found = {"images_per_s": _rates(run), "memory_mib": _peak_memory_mib()}
    if device.type == "cuda":
        found["gpu_memory_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    (arguments.folder / f"{processes.rank}.json").write_text(json.dumps(found))


def _without_validation(
    task: Task, checkpoint: Checkpoint, report: Callable[[str], None]
) -> History:
    """Training alone: on so few images validation would be a large part of the time."""
    return train(replace(task, measure=lambda trained: {}), checkpoint, report)


def stages_of(recipe: Recipe) -> dict[str, str]:
    """The stages that are timed, with the recipe's setting for each."""
    return _STAGES | (_ENCODER if recipe.encoder else {})


def _shortened(recipe: Recipe) -> Recipe:
    """Two epochs of each stage, and a single image that is not trained on."""
    epochs = [f"{stage}.schedule.epochs=2" for stage in stages_of(recipe).values()]
    return overridden(recipe, [*epochs, "validation_fraction=0"])


def _dataset(path: Path) -> Dataset:
    """Ten digits of each handwriting, (N, C, H, W)."""
    images = torch.from_numpy(np.load(path))
    labels = torch.arange(len(images)) % len(LABELS)
    names = tuple(f"{label}/{row:05d}.png" for row, label in enumerate(labels.tolist()))
    split = Split(images, labels, names, LABELS)
    channels, height, width = images.shape[1:]
    spec = InputSpec(channels=3 if channels == 3 else 1, height=height, width=width)
    return Dataset("digits", split, split.subset(range(len(LABELS))), spec, "drawn for a benchmark")


def _rates(run: Run) -> dict[str, float]:
    """Images of the whole batches that a stage learns from in a second."""
    sizes = batch_sizes(run.recipe)
    rates = {}
    for stage, setting in stages_of(run.recipe).items():
        size = min(sizes[f"{setting}.schedule.batch_size"], len(run.training))
        shown = len(run.training) // size * size
        rates[stage] = shown / run.histories[stage][-1]["seconds"]
    return rates


def _peak_memory_mib() -> float:
    """The most that this process ever had resident."""
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


if __name__ == "__main__":
    main()
