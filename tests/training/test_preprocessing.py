"""What the options make of an image: one row for each way to use them."""

from typing import Any

import numpy as np
import pytest
import torch

from app.bundle import InputSpec
from tests.training.onnx_models import Array, computed
from training.classifier_file import ClassifierError, ClassifierFile
from training.classifier_options import ClassifierOptions, Layout
from training.onnx_importer import ImportedGraph
from training.preprocessing import preprocess_graph

COLOUR, GREY = (InputSpec(channels=channels, height=6, width=4) for channels in (3, 1))
MEAN, STD = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)


def file_of(shape: tuple[int | None, ...], layout: Layout = "chw") -> ClassifierFile:
    return ClassifierFile("mine.onnx", b"", "x", "y", shape, layout, single=False)


def options(**given: Any) -> ClassifierOptions:
    return ClassifierOptions(source="mine.onnx", **given)


def column(values: tuple[float, ...]) -> Array:
    return np.array(values, np.float32).reshape(1, -1, 1, 1)


CHW = file_of((3, 6, 4))
ROWS = {
    "scale": (COLOUR, CHW, options(scale=255), lambda x: x * 255),
    "mean and std": (
        COLOUR,
        CHW,
        options(mean=MEAN, std=STD),
        lambda x: (x - column(MEAN)) / column(STD),
    ),
    "all of them, reversed": (
        COLOUR,
        CHW,
        options(scale=255, mean=MEAN, std=(2.0,), channel_order="bgr"),
        lambda x: (x[:, ::-1] * 255 - column(MEAN)) / 2,
    ),
    "channels last": (
        COLOUR,
        file_of((6, 4, 3), "hwc"),
        options(),
        lambda x: x.transpose(0, 2, 3, 1),
    ),
    "grey, channels last": (
        GREY,
        file_of((6, 4, 1), "hwc"),
        options(),
        lambda x: x.reshape(-1, 6, 4, 1),
    ),
    "a row of planes": (COLOUR, file_of((72,), "flat-chw"), options(), lambda x: x.reshape(-1, 72)),
    "a row of pixels": (
        COLOUR,
        file_of((72,), "flat-hwc"),
        options(scale=2),
        lambda x: 2 * x.transpose(0, 2, 3, 1).reshape(-1, 72),
    ),
    "a row of any length": (
        GREY,
        file_of((None,), "flat-chw"),
        options(),
        lambda x: x.reshape(-1, 24),
    ),
}


@pytest.mark.parametrize(("spec", "file", "chosen", "expected"), ROWS.values(), ids=ROWS.keys())
@pytest.mark.parametrize("count", [1, 5])
def test_images_become_what_the_options_say(
    count: int, spec: InputSpec, file: ClassifierFile, chosen: ClassifierOptions, expected: Any
) -> None:
    images = np.random.default_rng(0).random((count, *spec.shape), np.float32)
    graph = preprocess_graph(spec, file, chosen)
    assert graph is not None
    found = computed(graph, images)
    np.testing.assert_allclose(found, expected(images), atol=1e-4)
    np.testing.assert_allclose(ImportedGraph(graph)(torch.from_numpy(images)), found, atol=1e-5)


@pytest.mark.parametrize("size", [(9, 10), (3, 2)])
def test_another_size_is_interpolated(size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    graph = preprocess_graph(COLOUR, file_of((3, *size)), options())
    assert graph is not None
    expected = torch.nn.functional.interpolate(images, size, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(computed(graph, images.numpy()), expected, atol=1e-5)
    torch.testing.assert_close(ImportedGraph(graph)(images), expected)


def test_what_takes_images_as_they_are_needs_no_graph() -> None:
    assert preprocess_graph(COLOUR, CHW, options()) is None
    assert preprocess_graph(COLOUR, file_of((None, None, None)), options()) is None


def test_the_same_options_make_the_same_bytes() -> None:
    first, second = (preprocess_graph(COLOUR, CHW, options(scale=255)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("spec", "file", "chosen", "reason"),
    [
        (GREY, CHW, options(), r"takes images of 3 channel\(s\), .* 4x6x1; give --size 4$"),
        (COLOUR, file_of((1, 6, 4)), options(), "give --size 4 --grey"),
        (COLOUR, file_of((64,), "flat-chw"), options(), "takes 64 numbers .* 4x6x3; give --size"),
        (COLOUR, CHW, options(mean=(0.1, 0.2)), "--mean has 2 numbers, the images have 3"),
        (GREY, file_of((1, 6, 4)), options(std=MEAN), "--std has 3 numbers, the images have 1"),
        (GREY, file_of((1, 6, 4)), options(channel_order="bgr"), "grey .* no --channel-order"),
    ],
    ids=["colour", "grey", "pixels", "mean", "std", "order"],
)
def test_what_cannot_fit_is_named(
    spec: InputSpec, file: ClassifierFile, chosen: ClassifierOptions, reason: str
) -> None:
    with pytest.raises(ClassifierError, match=reason) as refused:
        preprocess_graph(spec, file, chosen)
    assert str(refused.value).startswith("mine.onnx: ")
