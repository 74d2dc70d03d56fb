from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.training import joint_training
from tests.training.joint_training import (
    ATTACKED,
    ENCODER,
    EXACT,
    Found,
    found_by,
    start,
    torchrun,
    trained,
)
from tests.training.tiny_runs import tiny_recipe
from training.processes import ALONE, ProcessError, Processes, processes_of
from training.recipe_book import HARDENED, PAPER
from training.recipes import batch_sizes

SECOND = Processes(rank=1, local_rank=1, count=2)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ALONE),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}, ALONE),
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}, SECOND),
        ({"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}, Processes(5, 1, 8)),
    ],
)
def test_torchrun_says_which_process_this_is(
    environment: dict[str, str], expected: Processes
) -> None:
    assert processes_of(environment) == expected
    assert expected.leads is (expected.rank == 0)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2"}, "found RANK=, LOCAL_RANK=, WORLD_SIZE=2"),
        ({"RANK": "a", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}, "found RANK=a"),
        ({"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}, "RANK must be below WORLD_SIZE"),
        ({"RANK": "0", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}, "RANK must be below WORLD_SIZE"),
    ],
)
def test_half_of_what_torchrun_says_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ProcessError, match=message):
        processes_of(environment)


def test_the_shares_are_the_batch() -> None:
    batch = list(range(12))
    shares = [batch[Processes(rank, rank, 3).share(12)] for rank in range(3)]
    assert [len(share) for share in shares] == [4, 4, 4]
    assert [image for share in shares for image in share] == batch
    assert batch[ALONE.share(12)] == batch


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(ProcessError, match="2 processes cannot share 5 images evenly"):
        SECOND.share(5)


def test_a_recipe_names_the_sizes_of_all_its_batches() -> None:
    assert batch_sizes(PAPER) == {
        "classifier.schedule.batch_size": 128,
        "normal_teacher.schedule.batch_size": 64,
        "adversarial_teacher.schedule.batch_size": 64,
        "distillation.schedule.batch_size": 64,
        "ablation.batch_size": 64,
        "surrogate.batch_size": 64,
    }


def test_a_recipe_whose_batches_cannot_be_shared_is_refused() -> None:
    recipe = replace(HARDENED, surrogate=replace(HARDENED.surrogate, batch_size=31))
    SECOND.check_batches(HARDENED, 1000)
    ALONE.check_batches(recipe, 1000)
    with pytest.raises(ProcessError, match=r"^surrogate\.batch_size: a batch of 31 images cannot"):
        SECOND.check_batches(recipe, 1000)


def test_fewer_images_than_a_batch_are_shared_or_refused() -> None:
    recipe = tiny_recipe()
    SECOND.check_batches(recipe, 6)
    with pytest.raises(ProcessError, match=r"a batch of all 5 training images .* not above 5"):
        SECOND.check_batches(recipe, 5)


def test_a_process_alone_waits_for_nobody() -> None:
    value = torch.tensor([2.0])
    with ALONE.joined(torch.device("cpu")), ALONE.leader_first():
        ALONE.average([value])
        ALONE.check_same("anything", "whatever")
    assert value == 2
    assert not dist.is_initialized()


@pytest.mark.parametrize(("device", "expected"), [("cpu", "gloo"), ("cuda", "cpu:gloo,cuda:nccl")])
def test_a_gpu_speaks_nccl(monkeypatch: pytest.MonkeyPatch, device: str, expected: str) -> None:
    events: list[str] = []
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: events.append(backend))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: events.append("left"))
    with pytest.raises(KeyboardInterrupt), SECOND.joined(torch.device(device)):
        raise KeyboardInterrupt
    assert events == [expected, "left"]


def test_a_lost_connection_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(tensor: Tensor) -> None:
        raise RuntimeError("[/src/pair.cc:5] Connection closed by peer [::1]:9. Check the logs.")

    monkeypatch.setattr(dist, "all_reduce", lost)
    with pytest.raises(ProcessError) as raised:
        SECOND.average([torch.zeros(1)])
    assert str(raised.value) == (
        "another process ended or cannot be reached (Connection closed by peer [::1]:9)"
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """The same training by one process."""
    return trained(tmp_path_factory.mktemp("alone"), ALONE)


def test_two_processes_give_what_one_gives_with_twice_the_batch(joint: Path, alone: Found) -> None:
    together = found_by(joint, 0)
    for stage in EXACT:
        assert together[stage].keys() == alone[stage].keys()
        for name, expected in alone[stage].items():
            torch.testing.assert_close(together[stage][name], expected, rtol=1e-4, atol=1e-6)


def test_with_attacks_two_processes_give_something_like_it(joint: Path, alone: Found) -> None:
    together, expected = found_by(joint, 0)[ATTACKED], alone[ATTACKED]
    torch.testing.assert_close(together["losses"], expected["losses"], rtol=0.05, atol=0)
    assert not torch.equal(together["head.weight"], expected["head.weight"])


def test_both_processes_have_the_same_weights_in_the_end(joint: Path) -> None:
    one, other = found_by(joint, 0), found_by(joint, 1)
    for stage in (*EXACT, ENCODER, ATTACKED):
        assert all(torch.equal(one[stage][name], other[stage][name]) for name in one[stage])


def test_only_the_leader_keeps_checkpoints(joint: Path) -> None:
    assert sorted(path.stem for path in joint.glob("*.p*")) == sorted((*EXACT, ENCODER, ATTACKED))


def test_processes_that_do_not_train_the_same_are_refused(joint: Path) -> None:
    for rank in (0, 1):
        message = (joint / f"refusal_{rank}").read_text()
        assert message.startswith("the stage: the processes differ; recipe, data and work folder")


def test_a_process_that_ends_ends_the_other(tmp_path: Path) -> None:
    process = start(torchrun(joint_training.__name__, str(tmp_path), "0"))
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "ended before the others" in errors
    assert list(tmp_path.iterdir()) == []
