"""Several processes that train one network together: `torchrun` starts them, this joins them.

A recipe's `batch_size` stays that of the whole batch: each process takes its share of every batch,
and gradients, losses and the statistics of batch norm are those of the whole. The process of rank 0
leads: it alone measures, reports and writes.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from training.recipes import Recipe, batch_sizes

_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
# The others wait while the leader measures on validation images, which may take it minutes. A
# process that dies is noticed at once.
_PATIENCE = timedelta(hours=1)


class ProcessError(ValueError):
    """The processes cannot train together, or one of them is lost."""


@dataclass(frozen=True)
class Processes:
    """All processes of one training, seen from one of them.

    Attributes:
        rank: of this process, from 0.
        local_rank: the same among those on this machine; the number of its GPU.
        count: of processes.
    """

    rank: int = 0
    local_rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process measures, reports and writes."""
        return self.rank == 0

    def share(self, images: int) -> slice:
        """Which images of a batch this process learns from.

        Raises:
            ProcessError: they cannot be shared evenly.
        """
        if images % self.count:
            raise ProcessError(f"{self.count} processes cannot share {images} images evenly")
        size = images // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def check_batches(self, recipe: Recipe, images: int) -> None:
        """Raise unless every batch of the recipe can be shared evenly.

        Args:
            recipe: to be run.
            images: to train on; a batch that is larger than all of them consists of them.

        Raises:
            ProcessError: one cannot; the message names the setting.
        """
        for setting, size in batch_sizes(recipe).items():
            if min(size, images) % self.count:
                whole = f"all {images} training images" if images < size else f"{size} images"
                raise ProcessError(
                    f"{setting}: a batch of {whole} cannot be shared evenly by {self.count} "
                    f"processes; set it to a multiple of {self.count}, not above {images}"
                )

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Within it the processes can reach each other: by gloo, tensors on a GPU by NCCL.

        Raises:
            ProcessError: they do not find each other.
        """
        if self.count == 1:
            yield
            return
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        with _reaching():
            dist.init_process_group(backend, timeout=_PATIENCE)
        try:
            yield
        finally:
            dist.destroy_process_group()

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """The others enter it once the leader has left it, and never if it raised."""
        if not self.leads:
            self._wait()
        yield
        if self.leads:
            self._wait()

    def check_same(self, what: str, value: str) -> None:
        """Raise on all processes unless the value is the same on all of them.

        Args:
            what: to name in the message.
            value: any text.

        Raises:
            ProcessError: it is not.
        """
        if self.count == 1:
            return
        number = int.from_bytes(hashlib.sha256(value.encode()).digest()[:7], "big")
        extremes = torch.tensor([number, -number])
        with _reaching():
            dist.all_reduce(extremes, dist.ReduceOp.MAX)
        if extremes[0] != -extremes[1]:
            raise ProcessError(
                f"{what}: the processes differ; recipe, data and work folder must be the same for "
                "all of them"
            )

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one dtype and device by their means over the processes."""
        if self.count == 1:
            return
        whole = torch.cat([tensor.flatten() for tensor in tensors])
        with _reaching():
            dist.all_reduce(whole)
        parts = torch.split(whole.div_(self.count), [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def gathered(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, (count, *), in the order of their ranks."""
        tensors = [torch.empty_like(tensor) for _ in range(self.count)]
        with _reaching():
            dist.all_gather(tensors, tensor)
        return torch.stack(tensors)

    def _wait(self) -> None:
        """Until all processes are here."""
        self.average([torch.zeros(1)])


ALONE = Processes()


def processes_of(environment: Mapping[str, str]) -> Processes:
    """What torchrun says in the environment; a process alone where it says nothing.

    Raises:
        ProcessError: it says only half of it.
    """
    if "WORLD_SIZE" not in environment:
        return ALONE
    said = ", ".join(f"{name}={environment.get(name, '')}" for name in _VARIABLES)
    try:
        rank, local_rank, count = (int(environment[name]) for name in _VARIABLES)
    except (KeyError, ValueError) as error:
        raise ProcessError(f"torchrun sets {', '.join(_VARIABLES)}; found {said}") from error
    if not 0 <= local_rank <= rank < count:
        raise ProcessError(f"RANK must be below WORLD_SIZE, and LOCAL_RANK not above; found {said}")
    return Processes(rank, local_rank, count)


def check_alone(command: str) -> None:
    """Raise if torchrun started several processes for a command that is one process's work.

    Raises:
        ProcessError: it did.
    """
    count = processes_of(os.environ).count
    if count > 1:
        raise ProcessError(f"{command} is not shared by {count} processes; run and resume are")


@contextmanager
def _reaching() -> Iterator[None]:
    """Turn PyTorch's errors about connections into one that says what happened."""
    try:
        yield
    except RuntimeError as error:
        # Without the place in the library's source before it, and its advice behind it.
        reason = re.sub(r"^\[.*?\] *", "", str(error)).partition(". ")[0]
        raise ProcessError(f"another process ended or cannot be reached ({reason})") from error
