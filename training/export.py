"""Export to ONNX: dynamic batch, weights inside, the same bytes for the same weights."""

import logging
import warnings
from typing import Literal

import onnx
import torch
from torch import Tensor, nn

from app.bundle import InputSpec
from training.classifier_file import session_of
from training.folding import fold_batch_norm

Kind = Literal["purifier", "classifier"]

INPUT_NAME = "images"
OUTPUT_NAMES: dict[Kind, str] = {"purifier": "purified", "classifier": "logits"}
# Old enough for every onnxruntime since 1.17 on the CPU and on CUDA, new enough for all we use.
OPSET = 18
PARITY_BATCHES = (1, 7, 32)
PARITY_TOLERANCE = 1e-4


class ParityError(ValueError):
    """An exported graph that does not compute what the network computes."""


def export_onnx(network: nn.Module, kind: Kind, spec: InputSpec) -> bytes:
    """The network as one ONNX file.

    Args:
        network: maps images (N, C, H, W), float32 in [0, 1], to purified images or to logits.
        kind: decides the name of the output, `purified` or `logits`.
        spec: the images it takes.

    Returns:
        A graph with input `images` of dynamic N; batch norm folded; no trace of the machine.
    """
    network = fold_batch_norm(network).cpu()
    # It reports on every start that torchvision, which nothing here needs, is absent.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    example = torch.zeros(2, *spec.shape)
    with warnings.catch_warnings():
        # The exporter warns about its own dependencies, which its user cannot change.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAMES[kind]],
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            external_data=False,
        )
        assert program is not None  # dynamo=True without a path always returns one
    graph = program.model_proto
    _strip(graph)
    onnx.checker.check_model(graph, full_check=True)
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


def _strip(model: onnx.ModelProto) -> None:
    """Remove stack traces and names of source files, which differ from machine to machine."""
    parts = [model, model.graph, *model.graph.node, *model.graph.initializer]
    parts += [*model.graph.value_info, *model.graph.input, *model.graph.output]
    for part in parts:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    del model.graph.value_info[:]


def check_parity(network: nn.Module, content: bytes, images: Tensor) -> float:
    """The largest difference (`difference_of`) of ONNX graph and network on real images.

    Args:
        network: what was exported.
        content: the ONNX file.
        images: at least 32 real images (N, C, H, W) in [0, 1].

    Raises:
        ParityError: an output differs by more than 1e-4 at batch 1, 7 or 32, in units of the
            largest output if that is above 1.
        ValueError: there are too few images.
    """
    if len(images) < max(PARITY_BATCHES):
        raise ValueError(f"parity needs {max(PARITY_BATCHES)} images, got {len(images)}")
    session = session_of(content)
    was_training = network.training
    network.eval()
    largest = 0.0
    for size in PARITY_BATCHES:
        batch = images[:size]
        with torch.no_grad():
            expected = network(batch)
        (found,) = session.run(None, {INPUT_NAME: batch.numpy()})
        if found.shape != expected.shape:
            given, wanted = found.shape, tuple(expected.shape)
            raise ParityError(f"batch {size}: graph gives {given}, network {wanted}")
        difference = difference_of(expected, torch.from_numpy(found))
        if difference > PARITY_TOLERANCE:
            raise ParityError(
                f"batch {size}: graph and network differ by {difference:.3g}, "
                f"more than {PARITY_TOLERANCE:g}"
            )
        largest = max(largest, difference)
    network.train(was_training)
    return largest


def difference_of(expected: Tensor, found: Tensor) -> float:
    """The largest difference, in units of the largest expected number if that is above 1.

    Float32 has seven digits: of logits in the thousands, few are behind the point. Shapes that
    differ, and what is not a number, are infinitely far apart.
    """
    if found.shape != expected.shape:
        return float("inf")
    difference = (found - expected).abs().max() / expected.abs().max().clamp_min(1)
    return float(difference.nan_to_num(float("inf"), float("inf")))
