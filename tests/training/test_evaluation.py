"""The whole evaluation, quick, on networks that were really trained (on drawn digits)."""

import copy
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from app.bundle import (
    CARD_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    ClassifierSpec,
    read_manifest,
    read_verified,
)
from tests.training.cards import make_card
from tests.training.digit_bundles import SPEC, without_weights
from tests.training.tiny_runs import quiet
from training.adversary import Attacked
from training.card import Card, SweepPoint
from training.checks import BrokenEvaluation
from training.data import load_dataset, to_unit
from training.evaluation import checked_first, evaluate_bundle
from training.pictures import main as draw_picture
from training.publication import replace_files, write_bundle
from training.recipes import Attack
from training.state import State
from training.subject import Source, Subject, load_subject, protocol_of, trial_of

HISTORY = {"classifier": [{"loss": 1.0, "clean": 0.5}, {"loss": 0.5, "clean": 0.9}]}


@dataclass(frozen=True)
class Trained:
    """A data set and the bundle of networks trained on it."""

    data: Path
    bundle: Path


@pytest.fixture
def trained(digit_bundle: Path, digit_data: Path, tmp_path: Path) -> Trained:
    """A fresh copy of the bundle, for each test to evaluate."""
    bundle = tmp_path / "models" / "digits" / "1"
    shutil.copytree(digit_bundle, bundle)
    return Trained(digit_data, bundle)


def _evaluate(
    trained: Trained,
    lines: list[str],
    state: Path | None = None,
    source: Source = "weights",
    out: Path | None = None,
) -> Card:
    return evaluate_bundle(
        trained.bundle,
        trained.data,
        n=30,
        quick=True,
        state_dir=state,
        source=source,
        out=out,
        history=HISTORY,
        progress=lines.append,
    )


def test_the_card_holds_every_row_and_lies_in_the_bundle(trained: Trained, tmp_path: Path) -> None:
    card = _evaluate(trained, [])
    assert [row.key for row in card.rows] == [
        "bare_clean",
        "purified_clean",
        "bare_autoattack",
        "grey_box",
        "end_to_end_autoattack",
        "end_to_end_pgd_cross_entropy",
        "end_to_end_pgd_margin",
        "end_to_end_square",
        "transfer",
        "worst_case",
    ]
    # Far above chance (0.1); how far, a training of seconds leaves to the machine's last digits.
    assert card.row("bare_clean").n == 100 and card.row("bare_clean").accuracy > 0.4
    assert card.row("bare_autoattack").accuracy == 0
    assert all(row.n == 30 and row.epsilon == 0.3 for row in card.rows[2:])
    assert card.headline.correct <= min(row.correct for row in card.rows[4:-1])
    assert [ablation.key for ablation in card.ablations] == ["student", "normal_teacher"]
    assert card.cost is not None and card.cost.image == (1, 28, 28)
    student, teacher = (ablation.multiply_adds for ablation in card.ablations)
    assert card.cost.multiply_adds == student and teacher is not None and student < teacher
    assert 0 < card.cost.milliseconds < 50 and card.cost.runs > 1
    assert any("ablation_both" in omitted for omitted in card.omitted)
    assert card.quick and "--quick" in card.command
    assert {item.key for item in card.detection} >= {"grey_box", "end_to_end", "transfer"}
    assert [row.key for row in card.unseen] == ["unseen_l2_bare", "unseen_l2"]
    assert all((row.norm, row.epsilon, row.n) == ("l2", 2.0, 30) for row in card.unseen)
    assert card.steps is not None and card.steps.points[-1].attack == "PGD-20"
    assert card.corruptions is not None and len(card.corruptions.points) == 12
    assert "steps" in {check.key for check in card.checks}

    manifest = read_manifest(trained.bundle)
    written = Card.model_validate_json(read_verified(trained.bundle, manifest, "card.json"))
    assert written == card
    assert manifest.shift_threshold_bits == card.detection[0].threshold_bits
    for name in ("CARD.md", "epsilon.png", "detection.png", "examples.png", "training.png"):
        assert read_verified(trained.bundle, manifest, name)

    picture = tmp_path / "purification.png"
    bare = without_weights(trained.bundle, tmp_path / "bare")
    draw_picture([str(bare), str(picture), "--row", "1"])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_killed_evaluation_continues_and_ends_the_same(trained: Trained, tmp_path: Path) -> None:
    whole = _evaluate(trained, [])

    class Killed(BaseException):
        pass

    class KillsAt(list[str]):
        def append(self, line: str) -> None:
            super().append(line)
            if line.startswith("end-to-end - AutoAttack gradients:"):
                raise Killed

    manifest = (trained.bundle / MANIFEST_FILE).read_bytes()
    with pytest.raises(Killed):
        _evaluate(trained, KillsAt(), tmp_path / "state")
    assert (trained.bundle / MANIFEST_FILE).read_bytes() == manifest

    lines: list[str] = []
    # The purifier's time is measured anew.
    again = _evaluate(trained, lines, tmp_path / "state")
    assert again.model_copy(update={"cost": whole.cost}) == whole
    started = [line for line in lines if line.endswith(" ...")]
    assert started[0] == "end-to-end - Square ..."
    assert lines[0].startswith("the evaluation takes at most about ")


def test_another_network_costs_no_attack_on_those_that_were_there(
    trained: Trained, digit_networks: dict[str, nn.Module], tmp_path: Path
) -> None:
    before = _evaluate(trained, [], tmp_path / "state")
    manifest = read_manifest(trained.bundle)
    later = write_bundle(
        tmp_path / "later",
        name="digits",
        labels=manifest.labels,
        spec=SPEC,
        networks={**digit_networks, "ablation_none": copy.deepcopy(digit_networks["student"])},
        images=to_unit(load_dataset(trained.data).test.images[:32]),
        provenance=manifest.provenance,
    )
    lines: list[str] = []
    after = _evaluate(Trained(trained.data, later), lines, tmp_path / "state")
    started = [line for line in lines if line.endswith(" ...")]
    assert started == ["ablation_none - end-to-end ..."]
    assert after.rows == before.rows


def test_the_card_from_the_onnx_files_is_that_from_the_weights(trained: Trained) -> None:
    weights, onnx = _evaluate(trained, []), _evaluate(trained, [], source="onnx")
    assert (weights.source, onnx.source) == ("weights", "onnx")
    assert [row.key for row in onnx.rows] == [row.key for row in weights.rows]
    for ours, theirs in zip(weights.rows, onnx.rows, strict=True):
        # One image: two programs that compute the same differ in the last digits.
        assert abs(ours.correct - theirs.correct) <= 1, ours.key
    assert [(item.key, item.multiply_adds) for item in onnx.ablations] == [
        (item.key, item.multiply_adds) for item in weights.ablations
    ]
    assert onnx.omitted == weights.omitted
    assert onnx.command == weights.command.replace(" --quick", " --from onnx --quick")
    page = (trained.bundle / "CARD.md").read_text()
    assert "are the ONNX files that the service runs, rebuilt in PyTorch" in page


def test_without_weights_the_card_lacks_what_needs_them(trained: Trained) -> None:
    before = read_manifest(trained.bundle).files[WEIGHTS_FILE]
    (trained.bundle / WEIGHTS_FILE).unlink()
    card = _evaluate(trained, [], source="onnx")
    assert "transfer" not in {row.key for row in card.rows}
    assert card.headline.attack == "all of the end-to-end attacks without a transfer"
    assert [item.key for item in card.ablations] == ["student"]
    assert card.omitted == (
        "Not measured: teachers, ablation and transfer; their networks are in "
        "weights.safetensors, which was not there.",
    )
    page = (trained.bundle / "CARD.md").read_text()
    assert card.omitted[0] in page and "normal teacher" not in page
    # The weights can be put back: the manifest still knows them.
    assert read_manifest(trained.bundle).files[WEIGHTS_FILE] == before


def test_a_card_gives_way_only_to_one_that_measures_as_much(
    trained: Trained, tmp_path: Path
) -> None:
    card = _evaluate(trained, [])
    whole = card.model_copy(update={"quick": False, "n": 100})
    content = whole.model_dump_json().encode()
    replace_files(trained.bundle, {CARD_FILE: content}, shift_threshold_bits=0.5)
    manifest = (trained.bundle / MANIFEST_FILE).read_bytes()
    lesser = r"has a card of 100 images at L∞ 0.3 that one with shortened attacks, 30 images does"
    with pytest.raises(ValueError, match=lesser):
        _evaluate(trained, [])
    (trained.bundle / WEIGHTS_FILE).unlink()
    with pytest.raises(ValueError, match=r"30 images, no weights\.safetensors does"):
        _evaluate(trained, [], source="onnx")
    elsewhere = _evaluate(trained, [], source="onnx", out=tmp_path / "cards" / "new")
    assert (trained.bundle / MANIFEST_FILE).read_bytes() == manifest
    assert (trained.bundle / CARD_FILE).read_bytes() == content
    written = tmp_path / "cards" / "new"
    assert Card.model_validate_json((written / CARD_FILE).read_bytes()) == elsewhere
    assert {"CARD.md", "epsilon.png", "examples.png"} <= {path.name for path in written.iterdir()}
    with pytest.raises(ValueError, match="new is there already"):
        _evaluate(trained, [], source="onnx", out=written)


def _trained_to_resist(subject: Subject) -> Subject:
    """The subject, of a recipe that trains its classifier against attacks."""
    stage = replace(subject.recipe.classifier, attack=Attack("classifier", steps=2, step=0.5))
    return replace(subject, recipe=replace(subject.recipe, classifier=stage))


def test_a_classifier_may_resist_only_if_it_was_brought_or_trained_to(trained: Trained) -> None:
    subject = load_subject(trained.bundle, trained.data)
    assert not subject.may_resist
    assert _trained_to_resist(subject).may_resist
    spec = ClassifierSpec(input="x", output="y", gives="logits")
    brought = subject.manifest.model_copy(update={"classifier": spec})
    assert replace(subject, manifest=brought).may_resist


@pytest.mark.parametrize("may_resist", [False, True])
def test_far_beyond_epsilon_only_a_classifier_that_may_resist_may_stand(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, may_resist: bool
) -> None:
    subject = load_subject(trained.bundle, trained.data)
    if may_resist:
        subject = _trained_to_resist(subject)
    protocol = protocol_of(subject, n=20, quick=True)
    trial = trial_of(subject, protocol, State(None), torch.device("cpu"), quiet)
    clean = Attacked(trial.images, torch.ones(20, dtype=torch.bool))
    row = make_card().headline  # half of it stands
    stands = SweepPoint(epsilon=0.95, bare=1.0, purified=0.5)
    falls = SweepPoint(epsilon=1.0, bare=0.0, purified=0.0)
    sweep = make_card().sweep.model_copy(update={"points": (stands, falls)})
    monkeypatch.setattr("training.evaluation.purifiers", lambda networks: [])
    monkeypatch.setattr("training.evaluation.sweep_of", lambda trial: sweep)
    if not may_resist:
        with pytest.raises(BrokenEvaluation, match="keeps 100"):
            checked_first(subject, trial, clean, row)
        return
    assert checked_first(subject, trial, clean, row) == ((), sweep)
    (warning,) = trial.warnings
    assert warning.startswith("unless the classifier was trained against attacks")
    # Where an attack may paint any image nothing excuses it.
    broken = sweep.model_copy(update={"points": (stands,)})
    monkeypatch.setattr("training.evaluation.sweep_of", lambda trial: broken)
    with pytest.raises(BrokenEvaluation, match="may paint any image"):
        checked_first(subject, trial, clean, row)


def test_an_attack_too_weak_to_mean_anything_stops_it(trained: Trained) -> None:
    manifest = (trained.bundle / MANIFEST_FILE).read_bytes()
    with pytest.raises(BrokenEvaluation, match="undefended classifier keeps"):
        evaluate_bundle(
            trained.bundle,
            trained.data,
            n=30,
            epsilon=0.001,
            quick=True,
            progress=quiet,
        )
    assert (trained.bundle / MANIFEST_FILE).read_bytes() == manifest
