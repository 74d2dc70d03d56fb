"""The card of a classifier without gradients: no row of it may pass for a white-box attack."""

from collections.abc import Mapping
from typing import TypeVar

from torch import nn

from app.bundle import Manifest
from training.card import Card, Detection, Row
from training.served_classifier import StandIn

Figure = TypeVar("Figure", Row, Detection)

_GRADIENTS = ("classifier", "everything")


def has_stand_in(networks: Mapping[str, nn.Module]) -> bool:
    """Whether attacks on the classifier had a surrogate's gradients."""
    return isinstance(networks["classifier"], StandIn)


def stand_in_note(manifest: Manifest) -> str:
    """What has to be said of every attack that had a surrogate's gradients."""
    origin = manifest.provenance.classifier or {}
    operators = ", ".join(origin.get("without_gradients", ()))
    return (
        f"The classifier cannot be differentiated (operators {operators}). Attacks asked it for "
        "its answers and took the gradients of a surrogate that was taught by them (BPDA): none "
        "is a white-box attack, and one made for this classifier may do better."
    )


def through_surrogate(card: Card, manifest: Manifest) -> Card:
    """The card with every row that used gradients marked as one of a surrogate."""
    ablations = tuple(
        item.model_copy(
            update={"grey_box": _marked(item.grey_box), "end_to_end": _marked(item.end_to_end)}
        )
        for item in card.ablations
    )
    return card.model_copy(
        update={
            "rows": tuple(map(_marked, card.rows)),
            "headline": _marked(card.headline),
            "ablations": ablations,
            "unseen": tuple(map(_marked, card.unseen)),
            "detection": tuple(map(_marked, card.detection)),
            "omitted": (stand_in_note(manifest), *card.omitted),
        }
    )


def _marked(row: Figure) -> Figure:
    """A figure that says whose gradients its attack had."""
    return row.model_copy(update={"sees": "surrogate"}) if row.sees in _GRADIENTS else row
