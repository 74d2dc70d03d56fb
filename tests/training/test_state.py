from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.full_disk import full_disk
from tests.training.small_networks import small_networks
from training.networks import ConvAutoencoder
from training.state import Arrays, State, digest_of


def test_a_result_is_computed_once(tmp_path: Path) -> None:
    calls = []

    def compute() -> Arrays:
        calls.append(1)
        return {"values": np.arange(3), "words": np.array(["a", "bc"])}

    state = State(tmp_path / "state").below("part")
    assert not state.has("row")
    first, second = state.kept("row", compute), state.kept("row", compute)
    assert len(calls) == 1 and state.has("row")
    assert first["values"].tolist() == second["values"].tolist() == [0, 1, 2]
    assert second["words"].tolist() == ["a", "bc"]


def test_without_a_folder_nothing_is_kept() -> None:
    state = State(None).below("part")
    state.kept("row", lambda: {"values": np.zeros(1)})
    assert not state.has("row")


def test_a_killed_write_is_not_taken_for_a_result(tmp_path: Path) -> None:
    (tmp_path / "row.1.partial").write_bytes(b"half")
    assert State(tmp_path).kept("row", lambda: {"values": np.ones(1)})["values"].tolist() == [1]


@pytest.mark.parametrize("keep", [0, 10, 200, -1])
def test_a_damaged_result_is_computed_anew(tmp_path: Path, keep: int) -> None:
    state = State(tmp_path)
    state.kept("row", lambda: {"values": np.zeros(100), "words": np.array(["a"])})
    path = tmp_path / "row.npz"
    path.write_bytes(path.read_bytes()[:keep])
    assert not state.has("row")
    assert state.kept("row", lambda: {"values": np.ones(1)})["values"].tolist() == [1]
    assert state.kept("row", dict)["values"].tolist() == [1]


def test_a_result_with_a_flipped_bit_is_computed_anew(tmp_path: Path) -> None:
    State(tmp_path).kept("row", lambda: {"values": np.zeros(100)})
    path = tmp_path / "row.npz"
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    assert not State(tmp_path).has("row")


def test_a_full_disk_is_told_with_the_name(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(OSError, match=r"row\.npz"):
        State(tmp_path).kept("row", lambda: {"values": np.zeros(1000)})
    assert list(tmp_path.iterdir()) == []


def test_the_digest_tells_weights_images_and_settings_apart() -> None:
    first, second = small_networks(seed=0)[0], small_networks(seed=1)[0]
    images = torch.rand(2, 1, 4, 4)
    digests = {
        digest_of(first, images, "a"),
        digest_of(second, images, "a"),
        digest_of(first, images + 1e-6, "a"),
        digest_of(first, images, "b"),
        digest_of(first, images.double(), "a"),
    }
    assert len(digests) == 5
    assert digest_of(first, images, "a") == digest_of(first, images.clone(), "a")


def test_the_digest_tells_networks_of_the_same_weights_apart() -> None:
    networks = [
        ConvAutoencoder(1, (2,), (0,), contrast_gain=gain, skips=skips)
        for gain, skips in ((None, True), (9.0, True), (None, False))
    ]
    for network in networks[1:]:
        network.load_state_dict(networks[0].state_dict())
    assert len({digest_of(network) for network in networks}) == 3
