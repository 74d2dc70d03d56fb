"""A classifier that was brought: what the service gives is what training attacked."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.bundle import CLASSIFIER_FILE, PREPROCESS_FILE, read_manifest
from app.engine import Outcome, Task, load_engine, warm_up
from tests.training.brought_classifiers import (
    LARGE,
    by_torch_export,
    dataset_of,
)
from tests.training.scikit_classifiers import by_scikit_learn, digits
from tests.training.test_publication import PROVENANCE
from tests.training.tiny_runs import tiny_recipe
from training.brought import bring, classifier_file
from training.classifier_options import ClassifierOptions
from training.data import Dataset, to_unit
from training.onnx_networks import rebuilt_networks, without_gradients
from training.publication import write_bundle
from training.recipes import settings_of
from training.run import build_classifier, build_purifier
from training.served_classifier import StandIn
from training.stages import STAND_IN
from training.weights import networks_of

DIGITS = {"scale": 16.0, "gives": "probabilities"}
KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "perceptron": (lambda: by_scikit_learn("mlp"), digits, DIGITS),
    "forest": (lambda: by_scikit_learn("forest"), digits, DIGITS),
    "64x64": (by_torch_export, lambda: dataset_of(LARGE), {"scale": 255.0}),
}


@pytest.mark.parametrize(("content_of", "dataset_of_kind", "given"), KINDS.values(), ids=KINDS)
def test_a_bundle_serves_the_very_file_and_is_attacked_as_it_is_served(
    tmp_path: Path, content_of: Any, dataset_of_kind: Any, given: dict[str, Any]
) -> None:
    content, dataset = content_of(), dataset_of_kind()
    bundle = published(tmp_path, content, dataset, given)
    manifest = read_manifest(bundle)
    assert (bundle / CLASSIFIER_FILE).read_bytes() == content
    assert PREPROCESS_FILE in manifest.files and manifest.classifier is not None

    network = networks_of(bundle, manifest)["classifier"]
    assert isinstance(network, StandIn) == ("Tree" in str(content))
    surrogate = network.surrogate if isinstance(network, StandIn) else None
    rebuilt = rebuilt_networks(bundle, manifest, dataset.test, surrogate)
    assert type(rebuilt["classifier"]) is type(network) and not without_gradients(rebuilt)
    engine = load_engine(bundle, manifest, "cpu", 1)
    warm_up(engine, bundle, manifest, 2)
    images = dataset.test.images[:8]
    outcomes = engine.run([Task(image.numpy(), plain=True) for image in images])
    served = [outcome.plain for outcome in outcomes if isinstance(outcome, Outcome)]
    for attacked in (network, rebuilt["classifier"]):
        with torch.no_grad():
            found = attacked(to_unit(images)).softmax(1)
        np.testing.assert_allclose(np.stack([*map(np.asarray, served)]), found, atol=1e-3)
    (answer,) = engine.run([Task(images[0].numpy(), purified=True)])
    assert isinstance(answer, Outcome) and answer.purified is not None
    engine.close()


def published(folder: Path, content: bytes, dataset: Dataset, given: dict[str, Any]) -> Path:
    """A bundle of the classifier with a purifier that learnt nothing."""
    path = folder / "mine.onnx"
    path.write_bytes(content)
    options = ClassifierOptions(source=str(path), **given)
    brought = bring(options, classifier_file(options), dataset)
    recipe, channels = tiny_recipe(), dataset.spec.channels
    networks = {"student": build_purifier(recipe.student, dataset.spec).eval()}
    if brought.network is None:
        networks[STAND_IN] = build_classifier(recipe, channels, 10).eval()  # type: ignore[assignment]
    changes = {"settings": settings_of(recipe), "classifier": dict(brought.origin)}
    return write_bundle(
        folder,
        name="mine",
        labels=dataset.train.class_names,
        spec=dataset.spec,
        networks=networks,
        images=to_unit(dataset.test.images[:32]),
        provenance=PROVENANCE.model_copy(update=changes),
        brought=brought,
    )
