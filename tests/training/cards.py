"""A whole card with plain figures."""

import torch

from training.card import (
    Ablation,
    Card,
    Check,
    CorruptionPoint,
    Corruptions,
    Cost,
    Detection,
    Row,
    Steps,
    StepsPoint,
    Sweep,
    SweepPoint,
    accuracy_row,
)


def _unseen(correct: torch.Tensor) -> Row:
    return accuracy_row(
        "unseen_l2",
        "Unseen threat, end-to-end",
        correct,
        defence="student",
        sees="everything",
        attack="APGD-CE",
        versions="1",
        norm="l2",
        epsilon=1.75,
        seed=0,
    )


def make_card(*, quick: bool = False, masked: bool = False) -> Card:
    """A card of a bundle that keeps half of its images under attack."""
    half, most = torch.arange(100) % 2 == 0, torch.arange(100) > 1
    headline = accuracy_row(
        "worst_case",
        "Worst case",
        half,
        defence="student",
        sees="everything",
        attack="an attack",
        versions="1",
        norm="linf",
        epsilon=0.3,
        seed=0,
    )
    clean = accuracy_row("purified_clean", "Clean, purified", most, defence="student")
    checks = (
        Check(key="square", passed=not masked, finding="Square leaves 50.0%"),
        Check(key="zero_gradients", passed=True, finding="0.0% have no gradient"),
    )
    return Card(
        bundle="digits",
        version=3,
        quick=quick,
        data="digits",
        data_sha256="0123",
        norm="linf",
        epsilon=0.3,
        n=100,
        seed=0,
        headline=headline,
        rows=(clean, headline),
        ablations=(
            Ablation(
                key="student",
                title="The student that is served",
                multiply_adds=1_234_567,
                clean=clean,
                grey_box=headline,
                end_to_end=headline,
            ),
            Ablation(
                key="normal_teacher",
                title="Normal teacher itself",
                clean=clean,
                grey_box=headline,
                end_to_end=headline,
            ),
        ),
        cost=Cost(
            image=(1, 28, 28),
            multiply_adds=1_234_567,
            milliseconds=0.456,
            runs=200,
            runtime="a runtime",
            processor="a processor",
        ),
        sweep=Sweep(
            attack="an attack",
            versions="1",
            norm="linf",
            n=100,
            seed=0,
            points=(
                SweepPoint(epsilon=0.0, bare=1.0, purified=0.98),
                SweepPoint(epsilon=0.3, bare=0.0, purified=0.5),
                SweepPoint(epsilon=1.0, bare=0.0, purified=0.0),
            ),
        ),
        unseen=(_unseen(torch.arange(40) < 29),),
        steps=Steps(
            attack="an attack",
            versions="1",
            norm="linf",
            epsilon=0.3,
            n=250,
            seed=0,
            points=(
                StepsPoint(attack="FGSM", steps=1, bare=0.2, purified=0.75),
                StepsPoint(attack="PGD-100", steps=100, bare=0.0, purified=0.61),
            ),
            autoattack_bare=0.0,
            autoattack_purified=0.58,
        ),
        corruptions=Corruptions(
            source="a program",
            n=1000,
            seed=0,
            clean_bare=0.99,
            clean_purified=0.98,
            points=(
                CorruptionPoint(
                    kind="JPEG", severity=2, setting="quality 25", bare=0.71, purified=0.83
                ),
            ),
        ),
        detection=(
            Detection(
                key="grey_box",
                title="Grey-box AutoAttack",
                attack="AutoAttack",
                versions="1",
                sees="classifier",
                norm="linf",
                epsilon=0.3,
                seed=0,
                n_clean=100,
                n_attacked=90,
                auroc=0.987,
                threshold_bits=0.125,
                false_alarms=0.01,
                detected=0.8,
            ),
        ),
        checks=checks,
        attack_warnings=("a warning of the attack",) if masked else (),
        omitted=(),
        versions={"torch": "2"},
        command="limbeck-train evaluate models/digits/3 --data <folder> --n 100 --seed 0",
    )
