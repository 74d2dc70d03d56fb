from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from app.bundle import InputSpec
from tests.training.onnx_models import model_of
from training.classifier_file import ClassifierError, ClassifierFile, read_onnx
from training.classifier_options import ClassifierOptions, Layout

FLAT = [
    helper.make_node("Flatten", ["x"], ["rows"]),
    helper.make_node("ReduceSum", ["rows", "axis"], ["y"], keepdims=1),
]
AXIS = {"axis": np.array([1], np.int64)}


def read(
    *shape: int | str, outputs: tuple[str, ...] = ("y",), **given: str | None
) -> ClassifierFile:
    content = model_of(FLAT, shape, AXIS, outputs=outputs)
    return read_onnx("mine.onnx", content, ClassifierOptions(source="mine.onnx", **given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "layout", "size"),
    [
        (("N", 3, 32, 24), "chw", (3, 32, 24)),
        (("N", 32, 24, 3), "hwc", (3, 32, 24)),
        (("N", 28, 28, 1), "hwc", (1, 28, 28)),
        (("N", 1, "H", "W"), "chw", None),
        (("N", "H", "W", 3), "hwc", None),
        (("N", "C", "H", "W"), "chw", None),
        (("N", 64), "flat-chw", (1, 8, 8)),
        (("N", 60), "flat-chw", None),
        (("N", "pixels"), "flat-chw", None),
    ],
)
def test_the_shape_says_which_images_it_takes(
    shape: tuple[int | str, ...], layout: Layout, size: tuple[int, int, int] | None
) -> None:
    found = read(*shape)
    assert (found.layout, found.input, found.output) == (layout, "x", "y")
    assert (None if found.spec is None else found.spec.shape) == size
    assert not found.single


def test_options_decide_where_the_shape_does_not() -> None:
    found = read("N", 3 * 16, layout="flat-hwc")
    assert found.spec == InputSpec(channels=3, height=4, width=4)
    assert read("N", 3, 5, 3, layout="hwc").image == (3, 3, 5)
    assert read("N", 8, outputs=("rows", "y"), output="y").output == "y"


def test_a_file_for_one_image_is_told_apart() -> None:
    assert read(1, 3, 8, 8).single


@pytest.mark.parametrize(
    ("shape", "given", "reason"),
    [
        (("N", 3, 8), {}, r"shape \['N', 3, 8\]; wanted is \(N, C, H, W\)"),
        ((4, 3, 8, 8), {}, "takes 4 images at once and no other number"),
        (("N", 5, 8, 8), {}, "has 5 channels as --layout chw"),
        (("N", 48), {}, "say with --layout flat-hwc or flat-chw"),
        (("N", 48), {"layout": "chw"}, r"an input of \['N', 48\] is not --layout chw"),
        (("N", 8), {"output": "z"}, r"no output 'z'; it has y \(tensor\(float\)\)"),
    ],
    ids=["rank", "batch", "channels", "flat colour", "layout", "output"],
)
def test_what_cannot_be_used_is_named(
    shape: tuple[int | str, ...], given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ClassifierError, match=reason) as refused:
        read(*shape, **given)
    assert str(refused.value).startswith("mine.onnx: ")


def test_several_outputs_want_a_choice() -> None:
    with pytest.raises(ClassifierError, match=r"Name it with --output; it has rows .*, y "):
        read("N", 8, outputs=("rows", "y"))


def changed(number: int) -> onnx.ModelProto:
    """A model whose input has another type, and an output of the type beside the other."""
    model = onnx.load_from_string(model_of(FLAT[:1], ("N", 8), {}, outputs=("rows",)))
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.elem_type = number
    return model


def test_other_numbers_than_floats_are_named() -> None:
    options = ClassifierOptions(source="mine.onnx", output="rows")
    with pytest.raises(ClassifierError, match=r"input is tensor\(double\); wanted .* float32"):
        read_onnx("mine.onnx", changed(TensorProto.DOUBLE).SerializeToString(), options)
    labels = onnx.load_from_string(model_of(FLAT[:1], ("N", 8), {}, outputs=("rows",)))
    labels.graph.node.append(helper.make_node("ArgMax", ["rows"], ["label"], axis=1))
    labels.graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, None))
    options = ClassifierOptions(source="mine.onnx", output="label")
    with pytest.raises(ClassifierError, match=r"output label is tensor\(int64\), no float32"):
        read_onnx("mine.onnx", labels.SerializeToString(), options)
    del labels.graph.output[0]
    options = ClassifierOptions(source="mine.onnx")
    with pytest.raises(ClassifierError, match=r"none of its outputs is float32; it has label"):
        read_onnx("mine.onnx", labels.SerializeToString(), options)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no graph", "mine.onnx: is not an ONNX file"),
        (
            model_of([helper.make_node("Unheard", ["x"], ["y"])], ("N", 8), {}),
            "mine.onnx: onnxruntime refuses it: .*Unheard",
        ),
    ],
    ids=["no graph", "no operator"],
)
def test_what_does_not_run_is_named(content: bytes, reason: str) -> None:
    with pytest.raises(ClassifierError, match=reason):
        read_onnx("mine.onnx", content, ClassifierOptions(source="mine.onnx"))
