"""The pictures of a card, and the one that opens the README.

Run `python -m training.pictures models/mnist/1 docs/purification.png` for the latter.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from app.bundle import WEIGHTS_FILE, Manifest, read_manifest, read_verified
from training.adversary import logits_of, pgd_cascade
from training.attacks import Norm, margin_loss
from training.card import Card
from training.detection import auroc, roc_curve
from training.examples import example_images, label_indices
from training.folding import fold_batch_norm
from training.plots import (
    Answered,
    Example,
    detection_plot,
    epsilon_plot,
    example_plot,
    training_plot,
)
from training.recipes import recipe_of
from training.trial import Trial
from training.weights import load_networks


def card_pictures(
    trial: Trial,
    card: Card,
    shifts: Mapping[str, tuple[str, Tensor]],
    manifest: Manifest,
    history: Mapping[str, Sequence[Mapping[str, float]]],
) -> dict[str, bytes]:
    """The PNG files of a card by name.

    Args:
        trial: that the card was made from.
        card: the figures.
        shifts: `clean` and each kind of attacked images: title and shifts in bits.
        manifest: of the bundle.
        history: records of each training stage; empty for no plot.
    """
    clean = shifts["clean"][1]
    curves = {
        title: (*roc_curve(clean, values), auroc(clean, values))
        for key, (title, values) in shifts.items()
        if key != "clean"
    }
    networks = trial.networks
    # The attack that breaks the classifier alone: what the service is there to repair.
    examples = make_examples(
        networks["student"],
        networks["classifier"],
        manifest,
        card.epsilon,
        norm=card.norm,
        seed=card.seed,
    )
    pictures = {
        "epsilon.png": epsilon_plot(card.sweep, card.epsilon),
        "detection.png": detection_plot(curves),
        "examples.png": example_plot(examples, card.epsilon),
    }
    if history:
        pictures["training.png"] = training_plot(history)
    return pictures


def make_examples(
    purifier: nn.Module,
    classifier: nn.Module,
    manifest: Manifest,
    epsilon: float,
    *,
    norm: Norm = "linf",
    seed: int = 0,
) -> list[Example]:
    """Examples of images that no data set holds, attacked through the classifier alone."""
    images, names = example_images(manifest.input)
    device = next(iter(classifier.buffers())).device
    images = images.to(device)
    answers = logits_of(classifier, images).argmax(1)
    labels = label_indices(names, manifest.labels, answers).to(device)
    attacked = pgd_cascade(
        classifier,
        images,
        labels,
        epsilon=epsilon,
        losses=(margin_loss,),
        steps=100,
        norm=norm,
        seed=seed,
    ).images
    with torch.no_grad():
        purified = purifier(attacked)
    stages = (images, attacked, purified)
    chances = [logits_of(classifier, stage).softmax(1).cpu() for stage in stages]
    examples = []
    for row in range(len(images)):
        top = [chance[row].max(0) for chance in chances]
        clean, hit, restored = (
            Answered(stage[row].cpu(), manifest.labels[int(best.indices)], float(best.values))
            for stage, best in zip(stages, top, strict=True)
        )
        examples.append(Example(clean, hit, restored))
    return examples


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw one example of a bundle into a PNG file."""
    parser = argparse.ArgumentParser(description="Draw what a bundle does to a drawn digit.")
    parser.add_argument("bundle", type=Path, help="models/<name>/<version>")
    parser.add_argument("path", type=Path)
    parser.add_argument("--row", type=int, default=0, help="which of the example images")
    options = parser.parse_args(arguments)
    manifest = read_manifest(options.bundle)
    read_verified(options.bundle, manifest, WEIGHTS_FILE)
    recipe = recipe_of(manifest.provenance.settings)
    path = options.bundle / WEIGHTS_FILE
    networks = load_networks(path, recipe, manifest.input, len(manifest.labels))
    student, classifier = (fold_batch_norm(networks[key]) for key in ("student", "classifier"))
    examples = make_examples(student, classifier, manifest, recipe.epsilon)
    options.path.parent.mkdir(parents=True, exist_ok=True)
    options.path.write_bytes(example_plot([examples[options.row]], recipe.epsilon))


if __name__ == "__main__":
    main()
