"""The first stage where a user brings the classifier."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.training.brought_classifiers import by_hand, dataset_of
from tests.training.tiny_runs import SPEC, quiet, tiny_recipe
from training.brought import BroughtClassifier, bring
from training.checkpoints import CheckpointError
from training.classifier_file import read_onnx
from training.classifier_options import ClassifierOptions
from training.data import to_unit
from training.recipe_book import PAPER
from training.run import Run
from training.stages import STAND_IN, train_teacher, use_classifier

_TINY = tiny_recipe()
RECIPE = replace(
    _TINY,
    name="paper",
    adversarial_teacher=replace(
        PAPER.adversarial_teacher, schedule=_TINY.adversarial_teacher.schedule
    ),
)


@cache
def halved(kind: str) -> BroughtClassifier:
    """A classifier of halves, with gradients or `without`."""
    options = ClassifierOptions(source="mine.onnx")
    file = read_onnx("mine.onnx", by_hand(rounds=kind == "without"), options)
    return bring(options, file, dataset_of(SPEC))


@pytest.mark.parametrize("kind", ["with gradients", "without"])
def test_a_brought_classifier_takes_the_first_stage(tmp_path: Path, kind: str) -> None:
    recipe, cpu = RECIPE, torch.device("cpu")
    run = Run(recipe, dataset_of(SPEC), tmp_path, cpu, quiet, brought=halved(kind))
    use_classifier(run, halved(kind))
    train_teacher(run, "adversarial_teacher", recipe.adversarial_teacher)
    stand_in = [STAND_IN] if kind == "without" else []
    assert list(run.trained) == [*stand_in, "adversarial_teacher"]
    images = to_unit(run.dataset.test.images)
    classifier = run.networks["classifier"]
    with torch.no_grad():
        served = halved(kind).served.logits(images)
        torch.testing.assert_close(classifier(images), served, atol=1e-4, rtol=1e-4)
    assert not classifier.training
    before = images.clone().requires_grad_()
    classifier(before).logsumexp(1).sum().backward()
    assert before.grad is not None and bool(before.grad.any())

    other = replace(halved(kind), content=b"another file")
    elsewhere = Run(run.recipe, run.dataset, tmp_path, run.device, quiet, brought=other)
    with pytest.raises(CheckpointError, match="other settings, data or seed"):
        use_classifier(elsewhere, other)
        train_teacher(elsewhere, "adversarial_teacher", recipe.adversarial_teacher)


@pytest.mark.parametrize("kind", ["with gradients", "without"])
def test_a_brought_classifier_answers_in_float32_whatever_computes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("training.run.precision_on", lambda device: torch.bfloat16)
    cpu = torch.device("cpu")
    run = Run(RECIPE, dataset_of(SPEC), tmp_path, cpu, quiet, brought=halved(kind))
    use_classifier(run, halved(kind))
    train_teacher(run, "adversarial_teacher", _TINY.adversarial_teacher)
    images = to_unit(run.dataset.test.images)
    expected = halved(kind).served.logits(images)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = run.networks["classifier"](images)
    assert found.dtype == torch.float32
    # Without gradients the answers are onnxruntime's own.
    rtol = 0.02 if kind == "with gradients" else 1e-4
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=rtol)
