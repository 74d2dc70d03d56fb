from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.file_server import FileServer, serving
from tests.training.public_files import mnist_files, originals_of
from training.data import load_dataset
from training.download import PUBLIC, PublicData, fetch, fetch_data
from training.transfer import DownloadError

RANDOM = np.random.default_rng(0)
TRAIN = (RANDOM.integers(0, 256, (4, 28, 28), np.uint8), np.array([1, 0, 1, 0], np.uint8))
TEST = (RANDOM.integers(0, 256, (2, 28, 28), np.uint8), np.array([1, 0], np.uint8))
FILES = mnist_files(TRAIN, TEST)
SMALL = replace(PUBLIC["mnist"], originals=originals_of(FILES), pictures=6)


def quiet(line: str) -> None:
    """Reports that nobody reads."""


def fetch_small(out: Path, url: str, data: PublicData = SMALL) -> Path:
    return fetch_data(data, out, mirror=url, report=quiet)


def test_a_fetched_data_set_loads_as_it_is(tmp_path: Path) -> None:
    with serving(FileServer(FILES)) as server:
        folder = fetch_small(tmp_path, server.url)
    assert folder == tmp_path / "mnist"
    assert [path.name for path in tmp_path.iterdir()] == ["mnist"]
    dataset = load_dataset(folder)
    assert dataset.spec.shape == (1, 28, 28)
    assert dataset.train.names == ("0/00001.png", "0/00003.png", "1/00000.png", "1/00002.png")
    assert np.array_equal(dataset.train.images[0, 0].numpy(), TRAIN[0][1])
    assert np.array_equal(dataset.test.images[:, 0].numpy(), TEST[0][::-1])


def test_an_interrupted_fetch_goes_on(tmp_path: Path) -> None:
    with serving(FileServer({**FILES, "t10k-labels-idx1-ubyte.gz": b"?"})) as server:
        with pytest.raises(DownloadError, match="t10k-labels"):
            fetch_small(tmp_path, server.url)
        assert not (tmp_path / "mnist").exists()
        server.files, server.asked = FILES, []
        fetch_small(tmp_path, server.url)
    assert len(server.asked) == 1
    assert len(list(tmp_path.glob("mnist/*/*/*.png"))) == 6


def test_an_interrupted_unpacking_starts_anew(tmp_path: Path) -> None:
    left_over = tmp_path / ".mnist-unpacking" / "train" / "5" / "00000.png"
    left_over.parent.mkdir(parents=True)
    left_over.write_bytes(b"half")
    with serving(FileServer(FILES)) as server:
        folder = fetch_small(tmp_path, server.url)
    assert sorted(path.name for path in (folder / "train").iterdir()) == ["0", "1"]


def test_a_data_set_that_is_here_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    lines: list[str] = []
    assert fetch("mnist", tmp_path, mirror="http://127.0.0.1:9", report=lines.append).is_dir()
    assert "already here" in lines[0]


def test_the_next_mirror_is_asked_where_one_lacks_a_file(tmp_path: Path) -> None:
    without = {name: content for name, content in FILES.items() if "train" in name}
    with serving(FileServer(without)) as first, serving(FileServer(FILES)) as second:
        data = replace(SMALL, mirrors=(first.url, second.url))
        fetch_data(data, tmp_path, mirror=None, report=quiet)
        assert len(second.asked) == 2
        with pytest.raises(DownloadError, match="404"):
            fetch_data(data, tmp_path / "elsewhere", mirror=first.url, report=quiet)


def test_missing_pictures_are_an_error(tmp_path: Path) -> None:
    with (
        serving(FileServer(FILES)) as server,
        pytest.raises(DownloadError, match="found 6 images, expected 7"),
    ):
        fetch_small(tmp_path, server.url, replace(SMALL, pictures=7))
    assert not (tmp_path / "mnist").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / ".mnist-unpacking").write_text("in the way")
    with (
        serving(FileServer(FILES)) as server,
        pytest.raises(DownloadError, match=r"\.mnist-unpacking: cannot be written"),
    ):
        fetch_small(tmp_path, server.url)


def test_the_pinned_files_refuse_any_others(tmp_path: Path) -> None:
    pinned = PUBLIC["mnist"].originals[0]
    with (
        serving(FileServer({pinned.name: bytes(pinned.size_bytes)})) as server,
        pytest.raises(DownloadError, match=f"expected {pinned.sha256}"),
    ):
        fetch("mnist", tmp_path, mirror=server.url, report=quiet)
    assert list(tmp_path.glob("**/*.partial")) == []


def test_an_unknown_name_says_what_is_known_and_what_to_do_instead(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"cifar10, gtsrb, mnist.*train/<class>"):
        fetch("imagenet", tmp_path)


@pytest.mark.parametrize("data", PUBLIC.values(), ids=PUBLIC.keys())
def test_every_public_file_is_pinned(data: PublicData) -> None:
    for original in data.originals:
        assert len(bytes.fromhex(original.sha256)) == 32
        assert original.size_bytes > 0
    assert all(mirror.startswith("https://") for mirror in data.mirrors)


def test_pictures_are_png(tmp_path: Path) -> None:
    with serving(FileServer(FILES)) as server:
        folder = fetch_small(tmp_path, server.url)
    with Image.open(folder / "test" / "1" / "00000.png") as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (28, 28))
