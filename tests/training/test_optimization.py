from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.training.tiny_runs import quiet, tiny_split
from training.checkpoints import Checkpoint, CheckpointError
from training.networks import Classifier
from training.optimization import Batch, Task, autocast, epoch_seed, train
from training.recipes import Augmentation, Schedule


class Scale(nn.Module):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0]))

    def forward(self, images: Tensor) -> Tensor:
        scaled: Tensor = self.weight * images
        return scaled


def brightness(network: nn.Module, batch: Batch) -> Tensor:
    """A loss that falls with the weight."""
    mean: Tensor = network(batch.images).mean()
    return mean


def nothing(trained: nn.Module) -> dict[str, float]:
    return {}


def task_of(
    network: nn.Module,
    loss_of: Callable[[Batch], Tensor],
    schedule: Schedule,
    measure: Callable[[nn.Module], dict[str, float]] = nothing,
) -> Task:
    return Task("stage", network, loss_of, measure, tiny_split(20, 0), schedule, seed=0)


def checkpoint_in(folder: Path) -> Checkpoint:
    return Checkpoint(folder / "stage.pt", "identity")


def seen(schedule: Schedule, folder: Path) -> list[Batch]:
    """The batches that a training sees."""
    network, batches = Scale(), list[Batch]()

    def loss_of(batch: Batch) -> Tensor:
        batches.append(batch)
        return brightness(network, batch)

    train(task_of(network, loss_of, schedule), checkpoint_in(folder), quiet)
    return batches


def test_every_image_comes_once_an_epoch_in_a_new_order(tmp_path: Path) -> None:
    batches = seen(Schedule(epochs=2, batch_size=5), tmp_path)
    assert [batch.epoch for batch in batches] == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]
    whole = tiny_split(20, 0).images.flatten(1)
    epochs = [torch.cat([b.images for b in batches[i : i + 4]]).flatten(1) for i in (0, 4)]
    for epoch in epochs:
        shown = sorted((epoch * 255).round().to(torch.uint8).tolist())
        assert shown == sorted(whole.tolist())
    assert not torch.equal(epochs[0], epochs[1])
    assert all(len(batch.labels) == 5 for batch in batches)


def test_labels_stay_with_their_images(tmp_path: Path) -> None:
    for batch in seen(Schedule(epochs=1, batch_size=10), tmp_path):
        halves = batch.images[:, 0, :, :4].mean((1, 2)), batch.images[:, 0, :, 4:].mean((1, 2))
        assert torch.equal(batch.labels == 0, halves[0] > halves[1] + 0.3)
        assert torch.equal(batch.labels == 1, halves[1] > halves[0] + 0.3)


def test_images_are_augmented(tmp_path: Path) -> None:
    plain = seen(Schedule(epochs=1, batch_size=10), tmp_path / "plain")
    settings = Schedule(epochs=1, batch_size=10, augmentation=Augmentation(shift=0.2))
    moved = seen(settings, tmp_path / "moved")
    assert torch.equal(plain[0].labels, moved[0].labels)
    assert not torch.equal(plain[0].images, moved[0].images)


def test_fewer_images_than_a_batch_still_make_a_step(tmp_path: Path) -> None:
    batches = seen(Schedule(epochs=1, batch_size=64), tmp_path)
    assert [len(batch.labels) for batch in batches] == [20]


def test_the_average_of_the_weights_is_kept(tmp_path: Path) -> None:
    network, weights = Scale(), list[float]()

    def loss_of(batch: Batch) -> Tensor:
        weights.append(float(network.weight.detach()))
        return brightness(network, batch)

    schedule = Schedule(epochs=3, batch_size=10, learning_rate=0.1, ema_decay=0.3)
    measured: list[float] = []

    def measure(trained: nn.Module) -> dict[str, float]:
        measured.append(float(trained.get_parameter("weight").detach()))
        return {}

    train(task_of(network, loss_of, schedule, measure), checkpoint_in(tmp_path), quiet)
    state = checkpoint_in(tmp_path).load()
    assert state is not None
    steps = [*weights[1:], float(state["network"]["weight"])]  # after each step
    average = steps[0]
    for number, weight in enumerate(steps[1:], start=1):
        decay = min(0.3, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * weight
    kept = float(network.weight.detach())
    assert kept == pytest.approx(average, abs=1e-6)
    assert kept != pytest.approx(steps[-1], abs=1e-3)
    assert measured[-1] == pytest.approx(kept)


def test_without_averaging_the_last_weights_are_kept(tmp_path: Path) -> None:
    network = Scale()
    schedule = Schedule(epochs=2, batch_size=10, learning_rate=0.1)
    task = task_of(network, lambda batch: brightness(network, batch), schedule)
    train(task, checkpoint_in(tmp_path), quiet)
    state = checkpoint_in(tmp_path).load()
    assert state is not None
    assert torch.equal(network.weight, state["network"]["weight"])
    assert float(network.weight.detach()) < 1


def classifier_task(schedule: Schedule) -> Task:
    torch.manual_seed(0)
    network = Classifier(1, (4,), (0,), 3, dropout=0.2)

    def loss_of(batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(network(batch.images), batch.labels)

    return task_of(network, loss_of, schedule)


def test_averages_include_the_statistics_of_batch_norm(tmp_path: Path) -> None:
    schedule = Schedule(epochs=1, batch_size=5, ema_decay=0.5)
    task = classifier_task(schedule)
    train(task, checkpoint_in(tmp_path), quiet)
    state = checkpoint_in(tmp_path).load()
    assert state is not None
    kept = task.network.state_dict()
    means = [name for name in kept if name.endswith("running_mean")]
    assert means
    for name in means:
        assert not torch.equal(kept[name], state["network"][name])
        assert float(kept[name].abs().sum()) > 0
    assert not task.network.training


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("stop_after", [1, 6, 11])
def test_a_resumed_training_ends_bit_for_bit_the_same(
    tmp_path: Path, ema_decay: float, stop_after: int
) -> None:
    schedule = Schedule(
        epochs=3, batch_size=5, ema_decay=ema_decay, augmentation=Augmentation(shift=0.1, flip=True)
    )
    whole = classifier_task(schedule)
    history = train(whole, checkpoint_in(tmp_path / "whole"), quiet)

    steps = 0
    stopped = classifier_task(schedule)

    def stopping(batch: Batch) -> Tensor:
        nonlocal steps
        steps += 1
        if steps > stop_after:
            raise KeyboardInterrupt
        return stopped.loss_of(batch)

    cut = Task("stage", stopped.network, stopping, nothing, stopped.split, schedule, 0)
    with pytest.raises(KeyboardInterrupt):
        train(cut, checkpoint_in(tmp_path / "cut"), quiet)
    lines: list[str] = []
    resumed = classifier_task(schedule)
    resumed_history = train(resumed, checkpoint_in(tmp_path / "cut"), lines.append)
    expected, found = whole.network.state_dict(), resumed.network.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert [record["loss"] for record in resumed_history] == [record["loss"] for record in history]
    assert len([line for line in lines if ": epoch" in line]) == 3 - stop_after // 4


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    schedule = Schedule(epochs=2, batch_size=5)
    first = classifier_task(schedule)
    train(first, checkpoint_in(tmp_path), quiet)
    again, lines = classifier_task(schedule), list[str]()
    history = train(again, checkpoint_in(tmp_path), lines.append)
    assert lines == ["stage: found 2 of 2 epochs done"]
    assert len(history) == 2
    assert torch.equal(
        first.network.get_parameter("head.1.weight"), again.network.get_parameter("head.1.weight")
    )


def test_a_loss_that_is_not_a_number_is_named_and_not_kept(tmp_path: Path) -> None:
    network = Scale()

    def loss_of(batch: Batch) -> Tensor:
        factor = float("nan") if batch.epoch >= 1 else 1.0
        return brightness(network, batch) * factor

    task = task_of(network, loss_of, Schedule(epochs=2, batch_size=10))
    with pytest.raises(ValueError, match="stage: the loss is not a number; lower learning_rate"):
        train(task, checkpoint_in(tmp_path), quiet)
    state = checkpoint_in(tmp_path).load()
    assert state is not None and state["epoch"] == 1
    assert bool(torch.isfinite(state["network"]["weight"]).all())


def test_each_epoch_is_one_line_with_figures_and_time_left(tmp_path: Path) -> None:
    network, lines = Scale(), list[str]()
    task = task_of(
        network,
        lambda batch: brightness(network, batch) * 0 + 2,
        Schedule(epochs=2, batch_size=10),
        lambda trained: {"clean": 0.981, "end-to-end": 0.5},
    )
    train(task, checkpoint_in(tmp_path), lines.append)
    assert lines == [
        "stage: epoch 1/2 loss 2.0000 clean 98.1% end-to-end 50.0% (0 s, 0:00 left)",
        "stage: epoch 2/2 loss 2.0000 clean 98.1% end-to-end 50.0% (0 s, 0:00 left)",
    ]


def test_every_epoch_of_every_stage_has_its_own_seed() -> None:
    seeds = {
        epoch_seed(seed, name, epoch)
        for seed in (0, 1)
        for name in ("student", "classifier")
        for epoch in (-1, 0, 1)
    }
    assert len(seeds) == 12
    assert epoch_seed(0, "student", 1) == epoch_seed(0, "student", 1)


def test_a_lower_precision_is_that_of_convolutions_and_not_of_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, dtypes = Classifier(1, (4,), (0,), 3), set[torch.dtype]()

    def loss_of(batch: Batch) -> Tensor:
        with torch.no_grad():
            network(batch.images)  # must not cost the weights their gradients below
        logits = network(batch.images)
        dtypes.add(logits.dtype)
        return nn.functional.cross_entropy(logits, batch.labels)

    def measure(trained: nn.Module) -> dict[str, float]:
        dtypes.add(trained(torch.zeros(1, 1, 8, 8)).dtype)
        return {}

    schedule = Schedule(epochs=12, batch_size=10, learning_rate=0.03)
    plain = task_of(network, loss_of, schedule, measure)
    history = train(replace(plain, precision=torch.bfloat16), checkpoint_in(tmp_path), quiet)
    assert dtypes == {torch.bfloat16, torch.float32}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    with pytest.raises(CheckpointError, match="was trained in bfloat16, and this is float32"):
        train(plain, checkpoint_in(tmp_path), quiet)


def test_full_precision_is_no_autocast() -> None:
    with autocast(torch.device("cpu"), torch.float32):
        assert not torch.is_autocast_enabled("cpu")
    with autocast(torch.device("cpu"), torch.bfloat16):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("epochs", range(1, 9))
def test_the_shortest_trainings_have_a_schedule(tmp_path: Path, epochs: int) -> None:
    batches = seen(Schedule(epochs=epochs, batch_size=20), tmp_path)
    assert len(batches) == epochs
