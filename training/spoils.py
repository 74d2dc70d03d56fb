"""The images of an attack on a service, in a file that numpy reads without pickle."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.files import write_whole
from training.oracle import Pixels
from training.siege import Outcome


@dataclass(frozen=True)
class Spoils:
    """What the file holds of each image.

    Attributes:
        clean: (N, C, H, W).
        sent: what broke the classification or came closest, as it was sent.
        labels: right labels.
        robust: (N,) bool, classified rightly as sent.
        queries: (N,).
    """

    clean: Pixels
    sent: Pixels
    labels: tuple[str, ...]
    robust: npt.NDArray[np.bool_]
    queries: npt.NDArray[np.int64]


def save_spoils(outcome: Outcome, path: Path) -> None:
    """Write the images: one record for each, with the fields of `Spoils`."""
    labels = np.array(outcome.labels, dtype=np.str_)
    shape = outcome.clean.shape[1:]
    records = np.zeros(
        len(labels),
        dtype=[
            ("clean", np.uint8, shape),
            ("sent", np.uint8, shape),
            ("label", labels.dtype),
            ("robust", np.bool_),
            ("queries", np.int64),
        ],
    )
    records["clean"], records["sent"] = outcome.clean, outcome.sent
    records["label"], records["robust"] = labels, outcome.robust
    records["queries"] = outcome.queries
    buffer = io.BytesIO()
    np.save(buffer, records)
    write_whole(path, buffer.getvalue())


def read_spoils(path: Path) -> Spoils:
    """The images of a file of `save_spoils`.

    Raises:
        ValueError: it is none.
    """
    try:
        records = np.load(path, allow_pickle=False)
        found = Spoils(
            clean=np.ascontiguousarray(records["clean"]),
            sent=np.ascontiguousarray(records["sent"]),
            labels=tuple(records["label"].tolist()),
            robust=records["robust"],
            queries=records["queries"],
        )
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, IndexError, EOFError, KeyError) as error:
        raise ValueError(f"{path}: holds no images of limbeck-train attack") from error
    if found.sent.ndim != 4 or found.sent.dtype != np.uint8 or not len(found.labels):
        raise ValueError(f"{path}: holds no images of limbeck-train attack")
    return found
