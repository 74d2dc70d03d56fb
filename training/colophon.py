"""What a card says of itself: the bundle, the images, the protocol, the programs, the command."""

import platform
from typing import Any

import torch

from app.bundle import WEIGHTS_FILE
from training.ablation import TITLES
from training.autoattack import VERSION
from training.report import command_line
from training.subject import Subject
from training.trial import Protocol, Trial

_SURROGATES = ("surrogate_purifier", "surrogate_classifier")


def colophon(subject: Subject, trial: Trial) -> dict[str, Any]:
    """The fields of a card that hold no accuracies."""
    protocol = trial.protocol
    return {
        "attack_warnings": tuple(sorted(trial.warnings)),
        "omitted": _omitted(subject),
        "bundle": subject.manifest.name,
        "version": subject.manifest.version,
        "source": subject.source,
        "quick": protocol.quick,
        "data": subject.data,
        "data_sha256": subject.data_sha256,
        "norm": protocol.norm,
        "epsilon": protocol.epsilon,
        "n": protocol.n,
        "seed": protocol.seed,
        "versions": _versions(),
        "command": _command(subject, protocol),
        "shared_encoder": subject.recipe.encoder is not None,
        "training": subject.manifest.provenance.command,
    }


def _omitted(subject: Subject) -> tuple[str, ...]:
    """What could not be measured without the networks that the bundle lacks."""
    if not subject.has_weights:
        return (
            f"Not measured: teachers, ablation and transfer; their networks are in {WEIGHTS_FILE}, "
            "which was not there.",
        )
    missing = [name for name in (*TITLES, *_SURROGATES) if name not in subject.networks]
    return tuple(f"Not measured: the bundle's weights have no {name}." for name in missing)


def _versions() -> dict[str, str]:
    """Of what computed the figures."""
    name, _, number = VERSION.partition(" ")
    return {name: number, "torch": torch.__version__, "python": platform.python_version()}


def _command(subject: Subject, protocol: Protocol) -> str:
    """The command that makes the card again."""
    options: dict[str, object] = {"n": protocol.n, "seed": protocol.seed}
    if protocol.norm != "linf" or protocol.epsilon != subject.recipe.epsilon:
        options["epsilon"] = protocol.epsilon
    if protocol.norm != "linf":
        options["norm"] = protocol.norm
    if subject.source != "weights":
        options["from"] = subject.source
    options["quick"] = protocol.quick
    return command_line(subject.manifest.name, subject.manifest.version, options)
