from argparse import Namespace
from pathlib import Path

import pytest

from training.checkpoints import CheckpointError
from training.recipe_book import PAPER
from training.recipes import settings_of
from training.resumption import ORDER_FILE, Order, kept_order, placed, read_order


def make_order(*command: str) -> Order:
    return Order(
        command=command,
        folder=Path("/somewhere"),
        settings=settings_of(PAPER),
        data_sha256="0" * 64,
    )


def test_an_order_is_there_from_the_start_of_its_run(tmp_path: Path) -> None:
    order = make_order("run", "paper", "--data", "my digits")
    with kept_order(tmp_path / "work", order):
        assert read_order(tmp_path / "work") == order
    assert read_order(tmp_path / "work") == order


def test_an_interrupted_run_leaves_its_order(tmp_path: Path) -> None:
    order = make_order("run", "paper", "--data", "d")
    with pytest.raises(KeyboardInterrupt), kept_order(tmp_path, order):
        raise KeyboardInterrupt
    assert read_order(tmp_path) == order


def test_a_run_that_is_refused_leaves_the_order_of_the_folder_s_own(tmp_path: Path) -> None:
    own, other = (
        make_order("run", "paper", "--data", "a"),
        make_order("run", "paper", "--data", "b"),
    )
    with pytest.raises(CheckpointError), kept_order(tmp_path, own):
        raise CheckpointError("of another run")
    assert not (tmp_path / ORDER_FILE).exists()
    with kept_order(tmp_path, own):
        pass
    with pytest.raises(CheckpointError), kept_order(tmp_path, other):
        raise CheckpointError("of another run")
    assert read_order(tmp_path) == own


@pytest.mark.parametrize("content", [b"", b"{}", b'{"command": "run"}', b"\xff"])
def test_a_damaged_order_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ORDER_FILE).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{ORDER_FILE} is damaged"):
        read_order(tmp_path)


def test_relative_paths_begin_where_the_command_was_given() -> None:
    given = Namespace(data=Path("digits"), out=Path("/models"), work=None, n=3, set=["a=1"])
    meant = placed(given, Path("/home"))
    assert (meant.data, meant.out, meant.work) == (Path("/home/digits"), Path("/models"), None)
    assert (meant.n, meant.set) == (3, ["a=1"])


def test_a_classifier_that_is_a_file_begins_there_too(tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").touch()
    of_file = placed(Namespace(classifier="mine.onnx", labels="cat,dog"), tmp_path)
    assert (of_file.classifier, of_file.labels) == (str(tmp_path / "mine.onnx"), "cat,dog")
    assert placed(Namespace(classifier="package.module:make"), tmp_path).classifier == (
        "package.module:make"
    )


def test_other_data_are_refused() -> None:
    order = make_order()
    order.check_data("0" * 64)
    with pytest.raises(ValueError, match="digest 111111111111, the run began with 000000000000"):
        order.check_data("1" * 64)
