"""The training loop, which knows nothing of losses: epochs, averaging, checkpoints, progress."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel

from training.augmentation import augment
from training.checkpoints import Checkpoint, CheckpointError
from training.data import Split, to_unit
from training.processes import ALONE, Processes
from training.recipes import Schedule

History = list[dict[str, float]]

# Of convolutions and matrix products in training.
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Batch:
    """What one step learns from; of a batch that several processes share, this one's part.

    Shape:
        images: (N, C, H, W), float32 in [0, 1], channels last.
        labels: (N,), int64.
    """

    images: Tensor
    labels: Tensor
    epoch: float  # epochs done, with fraction
    generator: torch.Generator


@dataclass(frozen=True)
class Task:
    """A network to train and what it is trained on and for."""

    name: str
    network: nn.Module
    loss_of: Callable[[Batch], Tensor]
    measure: Callable[[nn.Module], dict[str, float]]  # accuracies on validation images
    split: Split
    schedule: Schedule
    seed: int
    precision: torch.dtype = torch.float32  # of convolutions and matrix products in `loss_of`
    processes: Processes = ALONE


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[Any]:
    """Where convolutions and matrix products are computed in that precision.

    Weights, losses and whatever wants many digits stay in float32.
    """
    if precision == torch.float32:
        return nullcontext()
    # No cache: what it keeps of a network that ran without gradients would have none later.
    return torch.autocast(device.type, precision, cache_enabled=False)


def precision_name(precision: torch.dtype) -> str:
    """As options and checkpoints have it."""
    return next(name for name, known in PRECISIONS.items() if known == precision)


def epoch_seed(seed: int, name: str, epoch: int) -> int:
    """A seed of its own for each epoch of each stage, so that resuming changes nothing."""
    text = f"{seed}/{name}/{epoch}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "big")


def train(task: Task, checkpoint: Checkpoint, report: Callable[[str], None]) -> History:
    """Train `task.network` in place, from its checkpoint if there is one; returns its history.

    The network ends in eval mode with its averaged weights, if the schedule averages.

    Several processes end with the same weights. Without an attack and without dropout these are to
    rounding what one process makes of the whole batches; with them they are only alike in
    distribution, because each process draws noise for its own images.

    Raises:
        CheckpointError: it was trained in another precision so far.
        ProcessError: a batch cannot be shared evenly, or the processes do not train the same.
        ValueError: the loss is not a number.
    """
    processes = task.processes
    trainer = _Trainer(task)
    with processes.leader_first():
        state = checkpoint.load()
    if state is not None:
        _check_precision(task, state, checkpoint)
        trainer.restore(state)
        report(f"{task.name}: found {trainer.epoch} of {task.schedule.epochs} epochs done")
    same = f"{checkpoint.identity} {trainer.epoch} {precision_name(task.precision)}"
    processes.check_same(task.name, same)
    while trainer.epoch < task.schedule.epochs:
        record = trainer.run_epoch()
        if processes.leads:
            checkpoint.save(trainer.state())
        report(_progress_line(task, record))
    task.network.load_state_dict(trainer.result().state_dict())
    task.network.eval()
    return trainer.history


def _check_precision(task: Task, state: dict[str, Any], checkpoint: Checkpoint) -> None:
    """Raise if the checkpoint was trained otherwise; those from before say nothing of it."""
    precision = precision_name(task.precision)
    before = state.get("precision", precision)
    if before != precision:
        raise CheckpointError(
            f"{checkpoint.path} was trained in {before}, and this is {precision}: give --precision "
            f"{before}, or another --work folder"
        )


class _Trainer:
    """The changing state of one training."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.device = next(task.network.parameters()).device
        schedule = task.schedule
        self.optimizer = torch.optim.AdamW(
            task.network.parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay
        )
        self.steps = max(1, len(task.split) // schedule.batch_size)
        self.scheduler = OneCycleLR(
            self.optimizer,
            max_lr=schedule.learning_rate,
            # A cycle of five steps has no room for its way up: PyTorch would divide by zero.
            total_steps=max(6, schedule.epochs * self.steps + 1),
            pct_start=0.2,
        )
        self.average: AveragedModel | None = None
        if schedule.ema_decay:
            average_of = _moving_average(schedule.ema_decay)
            self.average = AveragedModel(task.network, avg_fn=average_of, use_buffers=True)
        self.epoch = 0
        self.history: History = []

    def result(self) -> nn.Module:
        """The network to keep."""
        return self.task.network if self.average is None else self.average.module

    def run_epoch(self) -> dict[str, float]:
        """One pass over the images; returns the record that it adds to the history."""
        started = time.monotonic()
        self.task.network.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for batch in self._batches():
            total += self._step(batch)
        self.task.processes.average([total])
        mean = float(total) / self.steps
        if mean != mean:
            raise ValueError(f"{self.task.name}: the loss is not a number; lower learning_rate")
        self.epoch += 1
        result = self.result().eval()
        record = {"epoch": self.epoch, "loss": mean}
        if self.task.processes.leads:
            record |= self.task.measure(result)
        record["seconds"] = time.monotonic() - started
        self.history.append(record)
        return record

    def _step(self, batch: Batch) -> Tensor:
        """One step of the optimizer; returns the loss of this process's images."""
        parameters = list(self.task.network.parameters())
        with autocast(self.device, self.task.precision):
            loss = self.task.loss_of(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.task.processes.average([p.grad for p in parameters if p.grad is not None])
        nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        self.scheduler.step()
        if self.average is not None:
            self.average.update_parameters(self.task.network)
        return loss.detach()

    def _batches(self) -> Iterator[Batch]:
        """Shuffled, augmented batches of equal size; of each, this process's share.

        Several processes draw order and augmentation from one seed, for the whole batch, and all
        that the loss draws from seeds of their own.
        """
        task, size = self.task, self.task.schedule.batch_size
        seed = epoch_seed(task.seed, task.name, self.epoch)
        torch.manual_seed(self._own_seed(seed))
        generator = torch.Generator().manual_seed(seed)
        own = generator
        if task.processes.count > 1:
            own = torch.Generator().manual_seed(self._own_seed(seed))
        order = torch.randperm(len(task.split), generator=generator)
        for step in range(self.steps):
            chosen = order[step * size : (step + 1) * size]
            share = task.processes.share(len(chosen))
            images = to_unit(task.split.images[chosen].to(self.device))
            images = augment(images, task.schedule.augmentation, generator)[share]
            images = images.contiguous(memory_format=torch.channels_last)
            labels = task.split.labels[chosen[share]].to(self.device)
            yield Batch(images, labels, self.epoch + step / self.steps, own)

    def _own_seed(self, seed: int) -> int:
        """The epoch's seed; of several processes, one for each that is no other's."""
        processes = self.task.processes
        if processes.count == 1:
            return seed
        name = f"{self.task.name}, process {processes.rank}"
        return epoch_seed(self.task.seed, name, self.epoch)

    def state(self) -> dict[str, Any]:
        """All that a later process needs to go on exactly from here."""
        return {
            "epoch": self.epoch,
            "precision": precision_name(self.task.precision),
            "network": self.task.network.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.epoch = state["epoch"]
        self.history = state["history"]
        self.task.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])


def _moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """An exponential moving average that forgets its first, untrained weights quickly."""

    def average_of(average: Tensor, current: Tensor, averaged: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current
        return torch.lerp(current, average, min(decay, (1 + int(averaged)) / (10 + int(averaged))))

    return average_of


def _progress_line(task: Task, record: dict[str, float]) -> str:
    """One line for one epoch, with the time that the rest of the stage will take."""
    epochs = task.schedule.epochs
    eta_s = round((epochs - record["epoch"]) * record["seconds"])
    shown = " ".join(
        f"{name} {value:.1%}" for name, value in record.items() if name not in _NOT_ACCURACIES
    )
    return (
        f"{task.name}: epoch {record['epoch']:.0f}/{epochs} loss {record['loss']:.4f} {shown} "
        f"({record['seconds']:.0f} s, {eta_s // 60}:{eta_s % 60:02d} left)"
    )


_NOT_ACCURACIES = ("epoch", "loss", "seconds")
