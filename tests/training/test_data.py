import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.bundle import InputSpec
from app.images import DecodedImage, decode_image
from training import data
from training.data import (
    Split,
    is_ink,
    load_dataset,
    load_split,
    name_of,
    to_unit,
)
from training.data_files import DataError
from training.digits import write_digit_dataset

DATA = Path(os.environ.get("LIMBECK_DATA", Path(__file__).parents[3] / "shared" / "data"))
MNIST = DATA / "mnist.tar.xz"
MNIST_SHA256 = "744883f2d68d31beb93d96c4361eab3e219722677341f9f4b607a64c3120d80e"


def picture(size: tuple[int, int] = (6, 4), mode: str = "L", seed: int = 0) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), np.uint8)
    return Image.fromarray(noise.squeeze(2) if bands == 1 else noise)


def save(folder: Path, name: str, image: Image.Image | bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with two training images and one test image each, 6x4 and grey."""
    source = tmp_path / "pets"
    for seed, name in enumerate(
        ["train/dog/b.png", "train/dog/a.png", "train/cat/b.png", "train/cat/a.png"]
    ):
        save(source, name, picture(seed=seed))
    save(source, "test/dog/a.png", picture(seed=8))
    save(source, "test/cat/a.png", picture(seed=9))
    return source


def packed(folder: Path, archive: Path, prefix: str) -> Path:
    mode = {".xz": "w:xz", ".gz": "w:gz", ".tar": "w"}[archive.suffix]
    with tarfile.open(archive, mode) as tar:  # type: ignore[call-overload]
        tar.add(folder, prefix)
    return archive


def test_classes_and_files_are_in_order(folder: Path) -> None:
    dataset = load_dataset(folder)
    assert dataset.name == "pets"
    assert dataset.spec == InputSpec(channels=1, height=4, width=6)
    assert dataset.train.class_names == dataset.test.class_names == ("cat", "dog")
    assert dataset.train.names == ("cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png")
    assert dataset.train.labels.tolist() == [0, 0, 1, 1]
    assert dataset.train.images.shape == (4, 1, 4, 6)
    assert torch.equal(dataset.train.images[3, 0], torch.from_numpy(np.array(picture(seed=0))))
    assert dataset.test.labels.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["pets.tar.xz", "pets.tar.gz", "pets.tar"])
@pytest.mark.parametrize("prefix", ["pets", "."])
def test_an_archive_is_the_same_data_as_its_folder(
    folder: Path, tmp_path: Path, name: str, prefix: str
) -> None:
    one, other = load_dataset(folder), load_dataset(packed(folder, tmp_path / name, prefix))
    assert other.name == one.name == "pets"
    assert other.sha256 == one.sha256
    assert other.train.names == one.train.names
    assert torch.equal(other.train.images, one.train.images)
    assert torch.equal(other.test.images, one.test.images)


def test_the_digest_is_of_pixels_and_labels(folder: Path) -> None:
    digest = load_dataset(folder).sha256
    (folder / "train" / "dog" / "a.png").unlink()
    save(folder, "train/dog/a.bmp", picture(seed=1))
    assert load_dataset(folder).sha256 == digest
    save(folder, "train/dog/a.bmp", picture(seed=77))
    assert load_dataset(folder).sha256 != digest


def test_the_digest_knows_the_classes(folder: Path) -> None:
    digest = load_dataset(folder).sha256
    (folder / "train" / "dog").rename(folder / "train" / "wolf")
    (folder / "test" / "dog").rename(folder / "test" / "wolf")
    assert load_dataset(folder).sha256 != digest


def test_one_coloured_image_makes_the_data_coloured(folder: Path) -> None:
    save(folder, "test/dog/a.png", picture(mode="RGB"))
    assert load_dataset(folder).spec.channels == 3


def test_a_given_size_resizes_everything(folder: Path) -> None:
    save(folder, "train/dog/large.png", picture((60, 90)))
    spec = InputSpec(channels=3, height=5, width=5)
    dataset = load_dataset(folder, spec)
    assert dataset.spec == spec
    assert dataset.train.images.shape == (5, 3, 5, 5)


def test_hidden_files_and_files_elsewhere_are_passed_over(folder: Path) -> None:
    digest = load_dataset(folder).sha256
    for name in ("train/dog/.DS_Store", "README.md", "train/notes.txt", "extra/dog/a.png"):
        save(folder, name, b"no image")
    assert load_dataset(folder).sha256 == digest


@pytest.mark.parametrize("spec", [None, InputSpec(channels=1, height=4, width=6)])
def test_all_unreadable_files_are_named_at_once(folder: Path, spec: InputSpec | None) -> None:
    save(folder, "train/dog/broken.png", b"no image")
    save(folder, "train/cat/short.png", (folder / "train" / "cat" / "a.png").read_bytes()[:40])
    save(folder, "test/cat/empty.png", b"")
    with pytest.raises(DataError, match=r"3 file\(s\) cannot be read") as raised:
        load_dataset(folder, spec)
    for name in ("train/dog/broken.png", "train/cat/short.png", "test/cat/empty.png"):
        assert name in str(raised.value)


def test_odd_sized_files_are_named_with_their_size(folder: Path) -> None:
    # The test split has a file of the same name, of the common size.
    save(folder, "train/dog/a.png", picture((7, 4)))
    save(folder, "test/cat/z.png", picture((6, 9)))
    with pytest.raises(DataError, match=r"2 file\(s\) not of the common size 6x4") as raised:
        load_dataset(folder)
    assert "train/dog/a.png (7x4)" in str(raised.value)
    assert "test/cat/z.png (6x9)" in str(raised.value)


def test_every_file_is_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []

    def counted(content: bytes, spec: InputSpec) -> DecodedImage:
        decoded.append(content)
        return decode_image(content, spec)

    monkeypatch.setattr(data, "decode_image", counted)
    load_dataset(folder)
    assert sorted(decoded) == sorted(path.read_bytes() for path in folder.rglob("*.png"))


def test_the_size_is_that_of_the_images_as_they_are_shown(folder: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    for path in list(folder.rglob("*.png")):
        with Image.open(path) as image:
            image.save(path, exif=turned)
    assert load_dataset(folder).test.images.shape == (2, 1, 6, 4)


def test_the_size_of_a_format_without_a_quick_header_is_found(folder: Path) -> None:
    for path in list(folder.rglob("*.png")):
        with Image.open(path) as image:
            image.save(path.with_suffix(".bmp"))
        path.unlink()
    assert load_dataset(folder).test.images.shape == (2, 1, 4, 6)


def test_images_above_the_size_of_any_bundle_ask_for_one(folder: Path) -> None:
    for path in list(folder.rglob("*.png")):
        picture((1025, 2)).save(path)
    with pytest.raises(DataError, match="images of 1025x2 are too large; give a size of at most"):
        load_dataset(folder)


def test_a_long_list_of_bad_files_is_cut(folder: Path) -> None:
    for index in range(30):
        save(folder, f"train/dog/bad{index:02d}.png", b"?")
    with pytest.raises(DataError, match=r"30 file\(s\).* and 20 more"):
        load_dataset(folder)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_split_is_named(folder: Path, split: str) -> None:
    (folder / split).rename(folder / "elsewhere")
    with pytest.raises(DataError, match=rf"pets: no files {split}/<class>/\*"):
        load_dataset(folder)


def test_a_class_that_only_test_has_is_named(folder: Path) -> None:
    save(folder, "test/horse/a.png", picture())
    with pytest.raises(DataError, match="test has classes that train lacks: horse"):
        load_dataset(folder)


def test_one_class_is_not_enough(folder: Path) -> None:
    for split in ("train", "test"):
        (folder / split / "dog").rename(folder / f"gone-{split}")
    with pytest.raises(DataError, match=r"train has 1 class\(es\)"):
        load_dataset(folder)


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: cannot be read"):
        load_dataset(tmp_path / "nowhere")


@pytest.mark.parametrize("keep", [0, 60, 0.7])
@pytest.mark.parametrize("name", ["pets.tar.xz", "pets.tar.gz", "pets.tar"])
def test_a_truncated_archive_is_named(folder: Path, tmp_path: Path, name: str, keep: float) -> None:
    archive = packed(folder, tmp_path / name, "pets")
    content = archive.read_bytes()
    archive.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    with pytest.raises(DataError, match=f"{name}: "):
        load_dataset(archive)


@pytest.mark.parametrize("name", ["pets.tar.xz", "pets.tar.gz", "pets.tar"])
def test_an_archive_that_is_cut_anywhere_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    archive = packed(folder, tmp_path / name, "pets")
    content = archive.read_bytes()
    # A tar's last blocks are zeros that fill a record.
    whole = len(content) if name != "pets.tar" else len(content.rstrip(b"\0")) // 512 * 512 + 1536
    for keep in (*range(whole - 8, whole), *range(0, whole, max(1, whole // 20 // 512) * 512)):
        archive.write_bytes(content[:keep])
        with pytest.raises(DataError, match=f"{name}: cannot be read"):
            load_dataset(archive)


def test_links_to_nowhere_are_named(folder: Path) -> None:
    (folder / "test" / "dog" / "lost.png").symlink_to(folder / "gone.png")
    (folder / "train" / "horse").symlink_to(folder / "gone")
    named = r"2 file\(s\) are links to nowhere: train/horse, test/dog/lost\.png"
    with pytest.raises(DataError, match=named):
        load_dataset(folder)


@pytest.mark.parametrize("archive", [None, "pets.tar.gz"])
def test_empty_classes_are_named(folder: Path, tmp_path: Path, archive: str | None) -> None:
    (folder / "train" / "horse").mkdir()
    (folder / "train" / "horse" / "young").mkdir()
    (folder / "train" / ".cache").mkdir()
    (folder / "test" / "horse").mkdir()
    save(folder, "test/horse/.thumbnail.png", picture())
    source = folder if archive is None else packed(folder, tmp_path / archive, "pets")
    named = r"2 file\(s\) are empty folders of classes: test/horse, train/horse"
    with pytest.raises(DataError, match=named):
        load_dataset(source)


@pytest.mark.parametrize("archive", [None, "pets.tar.gz"])
def test_hidden_folders_are_no_classes(folder: Path, tmp_path: Path, archive: str | None) -> None:
    before = load_dataset(folder)
    save(folder, "train/.ipynb_checkpoints/a.png", picture())
    source = folder if archive is None else packed(folder, tmp_path / archive, ".")
    found = load_dataset(source)
    assert found.train.class_names == before.train.class_names
    assert found.sha256 == before.sha256


def test_links_in_an_archive_are_no_files(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "pets.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, "pets")
        link = tarfile.TarInfo("pets/train/dog/passwd.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(DataError):
        load_dataset(archive)


def test_one_split_is_numbered_as_the_bundle_does(folder: Path) -> None:
    spec = InputSpec(channels=1, height=4, width=6)
    labels = ("bird", "dog", "cat")
    split = load_split(folder, "test", spec, labels)
    assert (split.labels.tolist(), split.class_names) == ([2, 1], labels)
    assert load_split(folder, "test", spec).labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="classes that the bundle lacks: dog"):
        load_split(folder, "test", spec, ("cat", "bird"))


def test_one_split_names_its_unreadable_files(folder: Path) -> None:
    save(folder, "test/dog/broken.png", b"?")
    with pytest.raises(DataError, match=r"test/dog/broken\.png"):
        load_split(folder, "test", InputSpec(channels=1, height=4, width=6))


def test_a_subset_keeps_images_labels_and_names_together() -> None:
    images = torch.arange(3, dtype=torch.uint8)[:, None, None, None]
    split = Split(images, torch.tensor([0, 0, 1]), ("a/0", "a/1", "b/2"), ("a", "b"))
    subset = split.subset([2, 0])
    assert (subset.names, subset.images.flatten().tolist()) == (("b/2", "a/0"), [2, 0])
    assert len(subset) == 2


def test_pixels_as_unit_floats() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)
    torch.testing.assert_close(to_unit(pixels), torch.tensor([0.0, 0.2, 1.0]))
    assert pixels.tolist() == [0, 51, 255]


@pytest.mark.parametrize("name", ["digits", "digits.tar.xz", "digits.tar", "digits.tgz"])
def test_the_name_has_no_extensions(tmp_path: Path, name: str) -> None:
    assert name_of(tmp_path / "below" / ".." / name) == "digits"


def test_drawn_digits_load(tmp_path: Path) -> None:
    write_digit_dataset(tmp_path / "digits", per_class=2)
    dataset = load_dataset(tmp_path / "digits")
    assert dataset.spec.shape == (1, 28, 28)
    assert dataset.train.class_names == tuple("0123456789")
    assert torch.bincount(dataset.train.labels).tolist() == [2] * 10
    assert dataset.train.images[5].float().mean() > 10


@pytest.mark.data
def test_mnist_is_complete() -> None:
    if not MNIST.exists():
        pytest.skip(f"{MNIST} is not here; LIMBECK_DATA names its folder")
    dataset = load_dataset(MNIST)
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)
    assert dataset.spec == InputSpec(channels=1, height=28, width=28)
    assert dataset.train.class_names == tuple("0123456789")
    # As in the original distribution of the digits.
    assert torch.bincount(dataset.test.labels).tolist() == [
        *(980, 1135, 1032, 1010, 982),
        *(892, 958, 1028, 974, 1009),
    ]
    assert dataset.sha256 == MNIST_SHA256


@pytest.mark.parametrize(
    ("channels", "between", "expected"), [(1, 0.1, True), (1, 0.3, False), (3, 0.1, False)]
)
def test_ink_is_grey_and_nearly_black_and_white(
    channels: int, between: float, expected: bool
) -> None:
    images = torch.zeros(10, channels, 8, 8, dtype=torch.uint8)
    images[5:] = 255
    images.view(-1)[torch.randperm(images.numel())[: int(between * images.numel())]] = 128
    split = Split(images, torch.zeros(10, dtype=torch.int64), ("a/1.png",) * 10, ("a", "b"))
    assert is_ink(split) is expected
