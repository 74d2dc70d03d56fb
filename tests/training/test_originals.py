import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.public_files import Array, cifar10_files, gtsrb_files, idx, mnist_files
from training.originals import CIFAR10_CLASSES, read_cifar10, read_gtsrb, read_mnist

RANDOM = np.random.default_rng(0)


def written(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def noise(*shape: int) -> Array:
    return RANDOM.integers(0, 256, shape, np.uint8)


def labels(*values: int) -> Array:
    return np.array(values, np.uint8)


def test_mnist_pictures_keep_pixels_labels_and_order(tmp_path: Path) -> None:
    train, test = noise(3, 28, 28), noise(2, 28, 28)
    files = mnist_files((train, labels(7, 0, 7)), (test, labels(3, 9)))
    found = list(read_mnist(written(tmp_path, files)))
    assert [(p.split, p.label, p.stem) for p in found] == [
        ("train", "7", "00000"),
        ("train", "0", "00001"),
        ("train", "7", "00002"),
        ("test", "3", "00000"),
        ("test", "9", "00001"),
    ]
    assert all(np.array_equal(p.pixels, e) for p, e in zip(found, [*train, *test], strict=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(noise(4)), r"is not an IDX file of 3 dimension"),
        (gzip.compress(b"hello"), r"is not an IDX file"),
        (
            gzip.compress(gzip.decompress(idx(noise(2, 28, 28)))[:-1]),
            r"does not have the 1568 bytes",
        ),
        (gzip.compress(gzip.decompress(idx(noise(2, 28, 28))) + b"x"), r"does not have the 1568"),
        (idx(noise(3, 28, 28)), r"3 train images, 2 labels"),
    ],
    ids=["labels", "no idx", "too short", "too long", "too many"],
)
def test_a_broken_idx_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    files = mnist_files((noise(2, 28, 28), labels(1, 2)), (noise(1, 28, 28), labels(0)))
    files["train-images-idx3-ubyte.gz"] = content
    with pytest.raises(ValueError, match=message):
        list(read_mnist(written(tmp_path, files)))


def test_cifar10_records_become_colour_pictures(tmp_path: Path) -> None:
    batches = [noise(2, 3073) for _ in range(6)]
    for batch in batches:
        batch[:, 0] %= 10
    found = list(read_cifar10(written(tmp_path, cifar10_files(batches))))
    assert [p.split for p in found] == ["train"] * 10 + ["test"] * 2
    assert [p.stem for p in found[9:]] == ["00009", "00000", "00001"]
    picture, record = found[3], batches[1][1]
    assert picture.label == CIFAR10_CLASSES[record[0]]
    assert picture.pixels.shape == (32, 32, 3)
    # Stored as all red values by row, then all green, then all blue.
    assert picture.pixels[2, 5].tolist() == [record[1 + c * 1024 + 2 * 32 + 5] for c in range(3)]


def test_names_in_an_archive_never_become_paths(tmp_path: Path) -> None:
    batches = [np.zeros((1, 3073), np.uint8) for _ in range(6)]
    evil = {"../outside.txt": b"x", "/absolute.txt": b"x", "cifar-10-batches-bin/../../up": b"x"}
    (tmp_path / "in").mkdir()
    list(read_cifar10(written(tmp_path / "in", cifar10_files(batches, evil))))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [
        "cifar-10-binary.tar.gz"
    ]


@pytest.mark.parametrize("name", ["../../00000_00000.ppm", "00000_00000.png", "a.ppm"])
def test_a_sign_with_an_impossible_name_is_refused(tmp_path: Path, name: str) -> None:
    files = gtsrb_files({name: (0, noise(20, 20, 3))}, {"00000.ppm": (1, noise(20, 20, 3))})
    with pytest.raises(ValueError, match="impossible row"):
        list(read_gtsrb(written(tmp_path, files)))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (np.zeros((1, 3072), np.uint8), "no whole number of records"),
        (np.zeros((0, 3073), np.uint8), "is missing"),
        (np.full((1, 3073), 10, np.uint8), "a label above 9"),
    ],
)
def test_a_broken_cifar10_batch_is_named(tmp_path: Path, broken: Array, message: str) -> None:
    batches = [np.zeros((1, 3073), np.uint8) for _ in range(5)]
    with pytest.raises(ValueError, match=message) as raised:
        list(read_cifar10(written(tmp_path, cifar10_files([*batches, broken]))))
    assert "test_batch.bin" in str(raised.value)


def test_gtsrb_signs_are_cut_out_scaled_and_keep_their_track(tmp_path: Path) -> None:
    sign = noise(32, 32, 3)
    bordered = np.zeros((42, 42, 3), np.uint8)
    bordered[5:-5, 5:-5] = sign
    large = np.full((74, 60, 3), 200, np.uint8)
    files = gtsrb_files(
        {"00003_00017.ppm": (14, bordered), "00000_00000.ppm": (2, large)},
        {"00001.ppm": (38, bordered)},
    )
    found = list(read_gtsrb(written(tmp_path, files)))
    assert [(p.split, p.label, p.stem) for p in found] == [
        ("train", "02", "00000_00000"),
        ("train", "14", "00003_00017"),
        ("test", "38", "00001"),
    ]
    assert [p.pixels.shape for p in found] == [(32, 32, 3)] * 3
    assert np.array_equal(found[1].pixels, sign)
    assert np.array_equal(found[2].pixels, np.asarray(Image.fromarray(sign)))
