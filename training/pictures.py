"""The pictures of a card, and the one that opens the README.

Run `python -m training.pictures models/mnist/1 docs/purification.png` for the latter.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from app.bundle import Manifest, read_manifest
from training.adversary import logits_of, outputs_of, pgd_cascade
from training.attacks import Norm, margin_loss
from training.card import Card
from training.data import Split
from training.detection import auroc, roc_curve
from training.examples import example_images, label_indices
from training.onnx_networks import rebuilt_networks, served_classifier
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
    # The curves of the ablation and of the surrogate say little, and there are many.
    main_stages = {
        stage: records
        for stage, records in history.items()
        if not stage.startswith(("ablation", "surrogate"))
    }
    if main_stages:
        pictures["training.png"] = training_plot(main_stages)
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
    """Examples of images that no data set holds.

    The first half is attacked through the classifier alone, as by someone who does not know of the
    purifier; the second half through both.
    """
    images, names = example_images(manifest.input, manifest.labels)
    device = next(iter(classifier.buffers())).device
    images = images.to(device)
    answers = logits_of(classifier, images).argmax(1)
    labels = label_indices(names, manifest.labels, answers).to(device)
    half = (len(images) + 1) // 2
    parts = []
    for model, part in (
        (classifier, slice(0, half)),
        (nn.Sequential(purifier, classifier), slice(half, None)),
    ):
        attacked = pgd_cascade(
            model,
            images[part],
            labels[part],
            epsilon=epsilon,
            losses=(margin_loss,),
            steps=100,
            restarts=3,
            norm=norm,
            seed=seed,
        )
        parts.append(attacked.images)
    attacked_images = torch.cat(parts)
    stages = (images, attacked_images, outputs_of(purifier, attacked_images))
    answered = [_answered(classifier, stage, manifest) for stage in stages]
    return [
        Example("attack on classifier" if row < half else "attack on both", *row_of)
        for row, row_of in enumerate(zip(*answered, strict=True))
    ]


def _answered(classifier: nn.Module, images: Tensor, manifest: Manifest) -> list[Answered]:
    """The images with the classifier's answers."""
    chances = logits_of(classifier, images).softmax(1).max(1)
    return [
        Answered(image.cpu(), manifest.labels[int(index)], float(chance))
        for image, index, chance in zip(images, chances.indices, chances.values, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw one example of a bundle into a PNG file."""
    parser = argparse.ArgumentParser(description="Draw what a bundle does to an example.")
    parser.add_argument("bundle", type=Path, help="models/<name>/<version>")
    parser.add_argument("path", type=Path)
    parser.add_argument("--row", type=int, default=0, help="which of the example images")
    options = parser.parse_args(arguments)
    manifest = read_manifest(options.bundle)
    recipe = recipe_of(manifest.provenance.settings)
    # From the files that are served, for a bundle need not have more.
    images, _ = example_images(manifest.input, manifest.labels)
    answers = served_classifier(options.bundle, manifest).logits(images).argmax(1)
    shown = Split((images * 255).round().byte(), answers, ("",) * len(images), manifest.labels)
    networks = rebuilt_networks(options.bundle, manifest, shown, None)
    examples = make_examples(networks["student"], networks["classifier"], manifest, recipe.epsilon)
    options.path.parent.mkdir(parents=True, exist_ok=True)
    options.path.write_bytes(example_plot([examples[options.row]], recipe.epsilon))


if __name__ == "__main__":
    main()
