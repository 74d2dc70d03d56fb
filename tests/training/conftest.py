"""Settings of all tests of the training."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training import joint_training
from tests.training.digit_bundles import trained_networks, written_bundle
from tests.training.outcomes import lines_of
from training.digits import write_digit_dataset


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Keep PyTorch to one thread: on images this small a second one only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def digit_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn digits, 20 of each to train on and 10 to test."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    write_digit_dataset(folder, 20, seed=0)
    return folder


@pytest.fixture(scope="session")
def digit_networks(one_thread: None, digit_data: Path) -> dict[str, nn.Module]:
    """Networks trained on them; tests leave them as they are."""
    return trained_networks(digit_data)


@pytest.fixture(scope="session")
def digit_bundle(
    digit_networks: dict[str, nn.Module], digit_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Their bundle, not evaluated yet; a test that writes into it takes a copy."""
    return written_bundle(digit_networks, digit_data, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that two processes shared."""
    folder = tmp_path_factory.mktemp("joint")
    command = joint_training.torchrun(joint_training.__name__, str(folder))
    lines_of(joint_training.start(command), timeout_s=100)
    return folder
