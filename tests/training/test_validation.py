import pytest
import torch

from training.data import Split
from training.data_files import DataError
from training.validation import split_validation


def numbered(names: list[str]) -> Split:
    """A split whose images carry their own position."""
    images = torch.arange(len(names), dtype=torch.uint8)[:, None, None, None]
    return Split(images, torch.zeros(len(names), dtype=torch.int64), tuple(names), ("a", "b"))


def test_validation_images_are_chosen_by_seed() -> None:
    split = numbered([f"a/{index:03d}.png" for index in range(200)])
    training, validation = split_validation(split, 0.1, seed=3)
    assert (len(training), len(validation)) == (180, 20)
    assert not set(training.names) & set(validation.names)
    assert split_validation(split, 0.1, seed=3)[1].names == validation.names
    assert split_validation(split, 0.1, seed=4)[1].names != validation.names
    assert validation.images.flatten().tolist() == [
        split.names.index(name) for name in validation.names
    ]


def test_frames_of_one_track_stay_together() -> None:
    tracks = [f"{label}/{track:05d}" for label in "ab" for track in range(10)]
    split = numbered([f"{track}_{frame:05d}.jpg" for track in tracks for frame in range(6)])
    training, validation = split_validation(split, 0.1, seed=0)

    def of(part: Split) -> set[str]:
        return {name.rpartition("_")[0] for name in part.names}

    assert len(validation) == 12  # two whole tracks
    assert not of(training) & of(validation)
    assert of(training) | of(validation) == set(tracks)


def test_a_prefix_that_a_whole_class_shares_is_no_track() -> None:
    names = [f"{label}/IMG_{index:04d}.jpg" for label in "ab" for index in range(50)]
    training, validation = split_validation(numbered(names), 0.1, seed=0)
    assert len(validation) == 10
    assert {name[0] for name in training.names} == {"a", "b"}


@pytest.mark.parametrize("prefixes", [["IMG"] * 99 + ["dog"], ["IMG", "DSC"] * 50])
def test_a_prefix_of_many_images_is_no_track(prefixes: list[str]) -> None:
    names = [
        f"{label}/{prefix}_{index:04d}.jpg" if prefix != "dog" else f"{label}/dog.jpg"
        for label in "abc"
        for index, prefix in enumerate(prefixes)
    ]
    training, validation = split_validation(numbered(names), 0.05, seed=0)
    assert len(validation) == 15
    assert all(sum(name[0] == label for name in training.names) > 85 for label in "abc")


@pytest.mark.parametrize("names", [["a/1.png", "b/1.png"], ["a/1.png", "a/2.png", "b/3.png"]])
def test_every_class_must_keep_images_to_train_on(names: list[str]) -> None:
    with pytest.raises(DataError, match=r"nothing is left to train on of the class\(es\) .*b"):
        split_validation(numbered(names), 0.9, seed=0)
