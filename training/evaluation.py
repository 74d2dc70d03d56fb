"""The honest evaluation of a bundle: every row of its robustness card, and the card's files."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from app.bundle import PURIFIER_FILE, read_verified
from training.ablation import ablation_of, purifiers
from training.adversary import Attacked, Progress
from training.alarm import attacked_groups, detection_rows, shifts_by_group
from training.attacks import Norm
from training.card import Ablation, Card, Check, Cost, Row, Sweep
from training.card_files import kept_history, other_images, refuse_to_measure_less, write_card
from training.checks import (
    chance_of,
    check_eval_mode,
    check_far,
    check_model,
    check_pixel_range,
    check_sweep,
    masking_checks,
    zero_gradient_share,
)
from training.colophon import colophon
from training.corruptions import corruptions_of
from training.cost import cost_of
from training.data import Dataset, to_unit
from training.estimate import speeds_of, total_s, work_of
from training.onnx_networks import without_gradients
from training.pictures import card_pictures
from training.rows import bare_rows, clean_rows, white_box_rows, worst_row
from training.self_tests import check_teacher, excuse_of, insist, resists_alone
from training.speed import duration
from training.state import State
from training.steps import steps_checks, steps_of
from training.subject import (
    Source,
    Subject,
    load_subject,
    protocol_of,
    shifts_of,
    threshold_of,
    trial_of,
)
from training.surrogate_card import has_stand_in, through_surrogate
from training.sweep import sweep_of
from training.targets import check_new, check_writable
from training.trial import Trial
from training.unseen import attack_unseen, unseen_rows
from training.white_box import WhiteBox, attack_classifier, attack_pipeline


def evaluate_bundle(
    bundle_dir: Path,
    data: Path,
    *,
    n: int = 1000,
    seed: int = 0,
    epsilon: float | None = None,
    norm: Norm = "linf",
    quick: bool = False,
    state_dir: Path | None = None,
    source: Source = "weights",
    dataset: Dataset | None = None,
    out: Path | None = None,
    device: torch.device | None = None,
    history: Mapping[str, list[dict[str, float]]] | None = None,
    progress: Progress = print,
) -> Card:
    """Evaluate a bundle and write its card, page and plots.

    A card in the bundle is replaced only by one that measures as much.

    Args:
        bundle_dir: `models/<name>/<version>`.
        data: the data set that it was trained on.
        n: attacked test images, chosen at random by the seed; clean accuracies use all of them.
        seed: of the choice and of every attack.
        epsilon: radius in [0, 1] pixel units; the recipe's if not given.
        norm: of the ball.
        quick: shortened attacks that measure nothing; the card says so.
        state_dir: where results are kept, so that a killed evaluation continues.
        source: which of the bundle's files purifier and classifier come from.
        dataset: what `data` holds, if it has been read already.
        out: a folder to write to; into the bundle, with the alarm's threshold, if not given.
        device: to compute on; the CPU if not given.
        history: records of each training stage, for the plot of the training; those that
            the bundle keeps from before if not given.
        progress: takes one line at a time.

    Raises:
        BrokenEvaluation: the evaluation failed its own tests; nothing is written.
        BundleError: the bundle is damaged.
        DataError: the data set does not fit.
        ValueError: networks of ONNX files are other ones in PyTorch, or have no gradients; or the
            bundle's card would give way to one that measures less.
    """
    subject = load_subject(bundle_dir, data, source, dataset)
    reason = without_gradients(subject.networks)
    if reason:
        raise ValueError(
            f"{reason}: a card would show attacks that never had a chance; "
            "--attack square, which needs scores alone, still means something"
        )
    protocol = protocol_of(subject, n=n, seed=seed, epsilon=epsilon, norm=norm, quick=quick)
    note = ""
    if out is None:
        refuse_to_measure_less(bundle_dir, subject, protocol)
        check_writable(bundle_dir.resolve().parent)
    else:
        check_new(out)
        note = other_images(bundle_dir, subject)
    check_writable(state_dir)
    if note:
        progress(note)
    trial = trial_of(subject, protocol, State(state_dir), device or torch.device("cpu"), progress)
    # Before anything that takes long: a data set without training images shows here.
    threshold = threshold_of(subject, trial)
    work = work_of(trial, may_resist=subject.may_resist)
    longest = duration(total_s(work, speeds_of(trial, work)))
    progress(f"the evaluation takes at most about {longest}, less what is kept from before")
    graph = read_verified(bundle_dir, subject.manifest, PURIFIER_FILE)
    cost = cost_of(graph, subject.networks["student"], to_unit(subject.test.images[:1]))
    card, curves = evaluate(subject, trial, threshold, cost)
    if note:
        note += (
            " The images that choose the alarm's threshold may be such as the bundle learnt from."
        )
        card = card.model_copy(update={"omitted": (*card.omitted, note)})
    progress("plots")
    if history is None:
        history = kept_history(bundle_dir, subject.manifest)
    pictures = card_pictures(trial, card, curves, subject.manifest, history)
    write_card(card, pictures, history, threshold, bundle_dir, out)
    return card


def evaluate(
    subject: Subject, trial: Trial, threshold_bits: float, cost: Cost
) -> tuple[Card, dict[str, tuple[str, Tensor]]]:
    """Every row of the card, and the shifts that its detection curves are drawn from.

    Args:
        subject: the bundle.
        trial: its networks on the chosen images.
        threshold_bits: the shift above which there is an alarm.
        cost: of the purifier.

    Raises:
        BrokenEvaluation: the evaluation failed its own tests.
    """
    _check_models(subject, trial)
    test_images = to_unit(subject.test.images).to(trial.images.device)
    rows = clean_rows(trial, test_images, subject.test.labels.to(trial.images.device))
    bare = attack_classifier(trial)
    rows += bare_rows(trial, bare)
    resists = resists_alone(trial, rows[-2], may_resist=subject.may_resist)
    ablations, sweep = checked_first(subject, trial, bare, rows[-2])
    found = attack_pipeline(trial)
    rows += white_box_rows(trial, found)
    unseen = attack_unseen(trial)
    steps = steps_of(trial, bare.robust, found.autoattack.robust)
    clean_shifts = shifts_of(trial, to_unit(subject.test.images))
    groups = attacked_groups(trial, bare, found, unseen)
    attacked = shifts_by_group(trial, groups)
    card = Card(
        rows=tuple(rows),
        headline=worst_row(trial, found),
        ablations=ablations,
        cost=cost,
        sweep=sweep,
        unseen=unseen_rows(trial, unseen),
        steps=steps,
        corruptions=corruptions_of(trial),
        checks=(*_masking(trial, found), *steps_checks(steps, resists=resists)),
        detection=detection_rows(trial, clean_shifts, groups, attacked, threshold_bits),
        may_resist=subject.may_resist,
        **colophon(subject, trial),
    )
    if has_stand_in(trial.networks):
        card = through_surrogate(card, subject.manifest)
    curves = {group.key: (group.title, attacked[group.key]) for group in groups}
    return card, {"clean": ("clean", clean_shifts), **curves}


def _check_models(subject: Subject, trial: Trial) -> None:
    """Raise unless the networks are what attacks expect."""
    for name, network in subject.networks.items():
        check_eval_mode(network, name)
    check_model(trial.networks["classifier"], trial.images, trial.labels, "the classifier")
    check_model(trial.pipeline(), trial.images, trial.labels, "purifier and classifier")
    check_brought(subject, trial)


def check_brought(subject: Subject, trial: Trial) -> None:
    """Raise if a classifier that was brought is misused."""
    if subject.manifest.classifier is not None:
        check_pixel_range(
            trial.networks["classifier"], trial.images, trial.labels, "the classifier"
        )


def _masking(trial: Trial, found: WhiteBox) -> tuple[Check, ...]:
    """Whether weaker attacks won where stronger ones lost."""
    return masking_checks(
        found.autoattack.robust,
        found.gradient.robust,
        {name: attacked.robust for name, attacked in found.pgd.items()},
        found.square.robust,
        found.transfer.robust if found.transfer else None,
        zero_gradient_share(trial.pipeline(), trial.images, trial.labels),
    )


def checked_first(
    subject: Subject, trial: Trial, bare: Attacked, bare_row: Row
) -> tuple[tuple[Ablation, ...], Sweep]:
    """Ablation and sweep, before the expensive attacks: a broken evaluation shows here already.

    Raises:
        BrokenEvaluation: it is broken, and nothing excuses it.
    """
    ablations = []
    for name in purifiers(trial.networks):
        ablations.append(ablation_of(trial, name, bare))
        if name == "normal_teacher":
            check_teacher(trial, ablations[-1], bare_row, may_resist=subject.may_resist)
    sweep = sweep_of(trial)
    chance = chance_of(trial.labels)
    insist(trial, check_sweep, sweep, chance, excuse=excuse_of(trial))
    excuse = excuse_of(trial, may_resist=subject.may_resist)
    insist(trial, check_far, sweep, trial.protocol.epsilon, chance, excuse=excuse)
    return tuple(ablations), sweep
