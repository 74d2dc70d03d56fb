"""A card on disk: its page, its plots and the records of the training beside it."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from app.bundle import CARD_FILE, WEIGHTS_FILE, Manifest, read_verified
from training.card import Card
from training.files import write_whole
from training.markdown import NORMS
from training.publication import replace_files
from training.report import report
from training.subject import Subject
from training.trial import Protocol

CARD_PAGE = "CARD.md"
HISTORY_FILE = "history.json"


def write_card(
    card: Card,
    pictures: Mapping[str, bytes],
    history: Mapping[str, list[dict[str, float]]],
    threshold_bits: float,
    bundle_dir: Path,
    out: Path | None,
) -> None:
    """Write a card with all that belongs to it.

    Args:
        card: what was measured.
        pictures: its plots by name.
        history: records of each training stage; empty for none.
        threshold_bits: the shift above which there is an alarm, for the bundle's manifest.
        bundle_dir: the bundle.
        out: a new folder to write to instead of the bundle, which then stays as it is.
    """
    files = {CARD_FILE: card.model_dump_json(indent=2).encode() + b"\n", **pictures}
    files[CARD_PAGE] = report(card, sorted(pictures)).encode()
    if history:
        files[HISTORY_FILE] = _history_text(history).encode()
    if out is None:
        replace_files(bundle_dir, files, shift_threshold_bits=threshold_bits)
        return
    out.mkdir(parents=True)
    for name, content in files.items():
        write_whole(out / name, content)


def _history_text(history: Mapping[str, list[dict[str, float]]]) -> str:
    """The records as JSON, one to a line, with as many digits as mean anything."""

    def rounded(record: Mapping[str, float]) -> str:
        return json.dumps({name: round(value, 6) for name, value in record.items()})

    stages = []
    for stage, records in history.items():
        lines = ",\n".join(map(rounded, records))
        stages.append(f"{json.dumps(stage)}: [\n{lines}\n]")
    return "{\n" + ",\n".join(stages) + "\n}\n"


def kept_history(bundle_dir: Path, manifest: Manifest) -> Mapping[str, list[dict[str, float]]]:
    """The training records that an earlier evaluation left in the bundle."""
    if HISTORY_FILE not in manifest.files:
        return {}
    history: Mapping[str, list[dict[str, float]]] = json.loads(
        read_verified(bundle_dir, manifest, HISTORY_FILE)
    )
    return history


def refuse_to_measure_less(bundle_dir: Path, subject: Subject, protocol: Protocol) -> None:
    """Keep a card from being replaced by a lesser one.

    Raises:
        ValueError: it would be.
    """
    kept = _kept_card(bundle_dir, subject.manifest)
    if kept is None or kept.quick:
        return
    lesser = {
        "shortened attacks": protocol.quick,
        f"{protocol.n} images": protocol.n < kept.n,
        f"{NORMS[protocol.norm]} {protocol.epsilon:.4g}": (protocol.norm, protocol.epsilon)
        != (kept.norm, kept.epsilon),
        "other test images": subject.data_sha256 != kept.data_sha256,
        f"no {WEIGHTS_FILE}": not subject.has_weights and bool(kept.ablations),
    }
    reasons = [reason for reason, holds in lesser.items() if holds]
    if reasons:
        raise ValueError(
            f"{bundle_dir} has a card of {kept.n} images at {NORMS[kept.norm]} {kept.epsilon:.4g} "
            f"that one with {', '.join(reasons)} does not replace; limbeck-train evaluate writes "
            "it elsewhere with --out DIR"
        )


def other_images(bundle_dir: Path, subject: Subject) -> str:
    """What to say where the test images are not those of the bundle's own card; else nothing."""
    kept = _kept_card(bundle_dir, subject.manifest)
    if kept is None or kept.quick or kept.data_sha256 == subject.data_sha256:
        return ""
    return (
        f"The bundle's own card was measured on other test images ({kept.data}): these figures are "
        "no repetition of it."
    )


def _kept_card(bundle_dir: Path, manifest: Manifest) -> Card | None:
    """The bundle's card, if it has one that this version of the program reads."""
    if CARD_FILE not in manifest.files:
        return None
    try:
        return Card.model_validate_json(read_verified(bundle_dir, manifest, CARD_FILE))
    except ValidationError:
        return None
