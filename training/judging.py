"""What `limbeck-train evaluate` does, apart from reading its arguments."""

import time
from argparse import Namespace
from functools import partial

from torch import nn

from app.bundle import WEIGHTS_FILE, read_manifest
from training.attempts import (
    attempt,
    names_of,
    passes,
    require_gradients,
    title_of,
    victim_of,
    worst_of,
)
from training.card import Row, accuracy_row, wilson_interval
from training.card_files import other_images
from training.checks import check_model
from training.cli import parser
from training.commands import device, report
from training.data import to_unit
from training.evaluation import check_brought, evaluate_bundle
from training.markdown import NORMS, percent
from training.onnx_networks import without_gradients
from training.rows import clean_rows
from training.saved import describing, recount, save_examples
from training.speed import duration, measured
from training.state import State
from training.subject import (
    Source,
    Subject,
    chosen_of,
    load_subject,
    protocol_of,
    trial_of,
)
from training.surrogate_card import has_stand_in, stand_in_note
from training.targets import check_new, check_writable
from training.trial import Trial

# What a recount has no use for.
_UNUSED = (
    *("attack", "grey_box", "save", "out", "state"),
    *("n", "seed", "epsilon", "norm", "quick"),
)


def evaluate(arguments: Namespace) -> None:
    """Make a bundle's card; or print the figures of single attacks, or of saved examples.

    Raises:
        ValueError: the arguments exclude each other, or a recount finds another result.
    """
    if arguments.recount is not None:
        plain = parser().parse_args(["evaluate", "BUNDLE", "--data", "DIR"])
        unused = [name for name in _UNUSED if getattr(arguments, name) != getattr(plain, name)]
        if unused:
            options = ", ".join("--" + name.replace("_", "-") for name in unused)
            raise ValueError(f"--recount counts what a file holds: leave {options} out")
        _print_recount(arguments)
    elif arguments.attack is not None:
        if arguments.out is not None:
            raise ValueError("--out takes a card: leave --attack out")
        _print_attempts(arguments)
    elif arguments.save is not None:
        raise ValueError("--save needs --attack: which examples?")
    elif arguments.grey_box:
        raise ValueError("--grey-box needs --attack: a card has both kinds of rows")
    else:
        evaluate_bundle(
            arguments.bundle,
            arguments.data,
            n=arguments.n,
            seed=arguments.seed,
            epsilon=arguments.epsilon,
            norm=arguments.norm,
            quick=arguments.quick,
            state_dir=arguments.state,
            source=_source(arguments),
            out=arguments.out,
            device=device(arguments),
            progress=report,
        )


def _print_attempts(arguments: Namespace) -> None:
    """Accuracies without an attack and under each one that is asked for; no card."""
    if arguments.save is not None:
        check_new(arguments.save, describing(arguments.save))
    check_writable(arguments.state)
    subject = load_subject(arguments.bundle, arguments.data, _source(arguments))
    names = names_of(arguments.attack, len(subject.manifest.labels))
    protocol = protocol_of(
        subject,
        n=arguments.n,
        seed=arguments.seed,
        epsilon=arguments.epsilon,
        norm=arguments.norm,
        quick=arguments.quick,
    )
    trial = trial_of(subject, protocol, State(arguments.state), device(arguments), report)
    note = other_images(arguments.bundle, subject)
    if note:
        report(note)
    reason = without_gradients(trial.networks)
    grey_box = arguments.grey_box
    victim = victim_of(trial, grey_box=grey_box)
    differentiable = require_gradients(names, victim, trial.images, reason)
    check_model(
        victim,
        trial.images,
        trial.labels,
        "the classifier" if grey_box else "purifier and classifier",
        differentiable=differentiable,
    )
    check_brought(subject, trial)
    if has_stand_in(trial.networks):
        report(stand_in_note(subject.manifest))
    _print_estimate(trial, victim, names, differentiable=differentiable)
    _print_clean(subject, trial)
    titles = [title_of(name, trial, grey_box=grey_box) for name in names]
    attacked = []
    row_of = partial(
        accuracy_row,
        defence="student",
        norm=protocol.norm,
        epsilon=protocol.epsilon,
        seed=protocol.seed,
    )
    for name, title in zip(names, titles, strict=True):
        started = time.monotonic()
        attacked.append(attempt(name, trial, grey_box=grey_box))
        _print_row(row_of(name, title, attacked[-1].robust), time.monotonic() - started)
    worst = worst_of(attacked)
    if len(names) > 1:
        title = "Worst of them, image by image"
        _print_row(row_of("worst", title, worst.robust))
    if arguments.save is not None:
        save_examples(
            arguments.save,
            worst,
            chosen_of(subject, protocol),
            protocol,
            subject.manifest,
            "; ".join(titles),
        )
        report(f"wrote {arguments.save} and {describing(arguments.save).name}")


def _print_recount(arguments: Namespace) -> None:
    """Saved adversarial examples against their clean images, and counted again; on the CPU."""
    device(arguments)  # for its number of threads
    # Counting needs no gradients: the files are asked as the service asks them.
    source = _source(arguments)
    subject = load_subject(
        arguments.bundle, arguments.data, "served" if source == "onnx" else source
    )
    found = recount(arguments.recount, subject)
    described, n = found.described, len(found.standing)
    norm = NORMS[described.norm]
    report(
        f"{n} images by {described.attack}; at most {norm} {found.furthest:.6g} from their clean "
        f"images, {described.epsilon:.6g} allowed"
    )
    counted = int(found.standing.sum())
    low, high = wilson_interval(counted, n)
    report(
        f"{counted} of {n} are classified correctly: {percent(counted / n)} "
        f"({percent(low)} to {percent(high)})"
    )
    if described.standing is None:
        report("the file does not say how many were before")
        return
    before = sum(described.standing)
    if not found.same:
        attacked = " ".join(str(part) for part in (described.bundle, described.version) if part)
        report(f"they attacked {attacked}, where {before} were")
    elif found.border:
        report(f"{before} were when they were saved; {found.border} lie on the border of a label")
    else:
        report("the same images as when they were saved")


def _source(arguments: Namespace) -> Source:
    """Where purifier and classifier come from; said where nothing was asked for."""
    if arguments.source is not None:
        asked: Source = arguments.source
        return asked
    read_manifest(arguments.bundle)  # or there is no bundle to say anything of
    if (arguments.bundle / WEIGHTS_FILE).exists():
        return "weights"
    report(f"without {WEIGHTS_FILE}: judged are the files that the service runs")
    return "onnx"


def _print_estimate(
    trial: Trial, victim: nn.Module, names: tuple[str, ...], *, differentiable: bool
) -> None:
    """How long it takes if every image withstands."""
    images, labels = trial.first(trial.protocol.batch_size)
    speed = measured(victim, images, labels, differentiable=differentiable)
    seconds = sum(speed.seconds(passes(name, trial)) for name in names) * len(trial.images)
    report(f"{', '.join(names)} on {len(trial.images)} images: at most about {duration(seconds)}")


def _print_clean(subject: Subject, trial: Trial) -> None:
    """Accuracy without an attack, on all test images."""
    images = to_unit(subject.test.images).to(trial.images.device)
    for row in clean_rows(trial, images, subject.test.labels.to(trial.images.device)):
        _print_row(row)


def _print_row(row: Row, seconds: float | None = None) -> None:
    """One accuracy with its interval, and how far and by which chance an attack went."""
    ball = "" if row.norm is None else f", {NORMS[row.norm]} {row.epsilon:.6g}, seed {row.seed}"
    took = "" if seconds is None else f", {duration(seconds)}"
    interval = f"{percent(row.accuracy)} ({percent(row.low)} to {percent(row.high)})"
    report(f"{row.title}: {interval}, n = {row.n}{ball}{took}")
