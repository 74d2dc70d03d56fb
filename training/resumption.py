"""What a run leaves in its work folder so that it can be resumed without its arguments."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from training.checkpoints import CheckpointError
from training.files import write_whole

ORDER_FILE = "run.json"

# Arguments that may be something else than a file's name.
_PERHAPS_FILES = ("classifier", "labels")


class Order(BaseModel):
    """The command that started a run, and what it meant then."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: tuple[str, ...]  # without the program's name
    folder: Path  # where it was given; its relative paths begin there
    settings: dict[str, Any]  # the whole recipe, which a file or a newer program may have changed
    data_sha256: str

    def check_data(self, sha256: str) -> None:
        """Raise unless the data is what the run began with.

        Raises:
            ValueError: it is not.
        """
        if sha256 != self.data_sha256:
            raise ValueError(
                f"the data has digest {sha256[:12]}, the run began with {self.data_sha256[:12]}: "
                "it cannot go on with other data"
            )


def read_order(work: Path) -> Order:
    """The order of the run in a work folder.

    Raises:
        ValueError: there is none, or it is not ours.
    """
    path = work / ORDER_FILE
    try:
        return Order.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ValueError(
            f"{work} holds no run to resume: {path} cannot be read: {error.strerror}"
        ) from error
    except ValidationError as error:
        raise ValueError(f"{path} is damaged; start the run by its command again") from error


@contextmanager
def kept_order(work: Path, order: Order) -> Iterator[None]:
    """Write the order; if the folder's checkpoints are another run's, put that one's order back."""
    path = work / ORDER_FILE
    before = path.read_bytes() if path.exists() else None
    write_whole(path, order.model_dump_json(indent=2).encode() + b"\n")
    try:
        yield
    except CheckpointError:
        if before is None:
            path.unlink()
        else:
            write_whole(path, before)
        raise


def placed(arguments: Namespace, folder: Path) -> Namespace:
    """The arguments as they were meant in that folder: relative paths begin there."""
    meant = Namespace(**vars(arguments))
    for name, value in vars(arguments).items():
        names_file = name in _PERHAPS_FILES and value is not None and (folder / value).is_file()
        if isinstance(value, Path):
            setattr(meant, name, folder / value)
        elif names_file:
            setattr(meant, name, str(folder / value))
    return meant
