"""Real bundles, tiny and predictable, for tests that need one.

The purifier stretches contrast, `clip(3 x - 1, 0, 1)`. The classifier looks at the mean brightness
alone and tells `dark` (0), `grey` (0.5) and `bright` (1) apart. So the tests know every answer: a
grey image of 0.4 is `grey` as it is, and `dark` once purified to 0.2.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from app.bundle import (
    CARD_FILE,
    CLASSIFIER_FILE,
    MANIFEST_FILE,
    PURIFIER_FILE,
    InputSpec,
    Manifest,
    Provenance,
    digest,
)

Constants = dict[str, npt.NDArray[Any] | np.generic]

LABELS = ("dark", "grey", "bright")
CENTRES = (0.0, 0.5, 1.0)
SHARPNESS = 40.0
SPEC = InputSpec(channels=1, height=8, width=8)


@dataclass(frozen=True)
class Design:
    """What kind of bundle to make.

    Attributes:
        spec: the images both graphs take.
        labels: as many classes as the graph has, unless a test wants them to differ.
        threshold_bits: the manifest's shift threshold.
        work: steps of busy work for a batch that is not all black, to make it slow; the warm-up,
            on black images, stays quick.
        poison: whether a white image makes the classifier's result not finite.
        fails: whether any batch with a white image fails as a whole.
        dynamic: whether the batch dimension is open.
        ballast_mib: weights that do nothing, to make it large.
        card: content of card.json, None for no card.
    """

    spec: InputSpec = SPEC
    labels: tuple[str, ...] = LABELS
    threshold_bits: float | None = 0.1
    work: int = 0
    poison: bool = False
    fails: bool = False
    dynamic: bool = True
    ballast_mib: int = 0
    card: dict[str, object] | None = None


def make_bundle(
    models_dir: Path, name: str = "tiny", version: int = 1, design: Design | None = None
) -> Path:
    """Write a whole bundle below `models_dir`; returns its folder."""
    design = design or Design()
    folder = models_dir / name / str(version)
    folder.mkdir(parents=True)
    contents = {
        PURIFIER_FILE: purifier(design).SerializeToString(),
        CLASSIFIER_FILE: classifier(design).SerializeToString(),
    }
    if design.card is not None:
        contents[CARD_FILE] = json.dumps(design.card).encode()
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    manifest = Manifest(
        name=name,
        version=version,
        created="2024-01-01T00:00:00Z",
        labels=design.labels,
        input=design.spec,
        files={file: digest(content) for file, content in contents.items()},
        shift_threshold_bits=design.threshold_bits,
        provenance=Provenance(
            command="tests",
            recipe="none",
            settings={},
            seed=0,
            git_commit=None,
            data_name="none",
            data_sha256="0" * 64,
            versions={"onnx": onnx.__version__},
            machine="any",
            stage_seconds={},
        ),
    )
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2))
    return folder


def publish_bundle(
    models_dir: Path, name: str = "tiny", version: int = 1, design: Design | None = None
) -> Path:
    """Put a whole bundle below `models_dir` in one step, as an export does."""
    staging = models_dir / ".staging"
    folder = make_bundle(staging, name, version, design)
    target = models_dir / name / str(version)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)
    shutil.rmtree(staging)
    return target


def rewrite_manifest(folder: Path, **changes: object) -> None:
    """Change members of a bundle's manifest, without keeping it true."""
    path = folder / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Put another file into a bundle, and make its manifest vouch for it."""
    (folder / name).write_bytes(content)
    document = json.loads((folder / MANIFEST_FILE).read_bytes())
    document["files"][name] = digest(content).model_dump()
    (folder / MANIFEST_FILE).write_text(json.dumps(document))


def purifier(design: Design) -> onnx.ModelProto:
    """`clip(3 x - 1, 0, 1)`."""
    nodes = [
        helper.make_node("Mul", ["images", "three"], ["stretched"]),
        helper.make_node("Sub", ["stretched", "one"], ["moved"]),
        helper.make_node("Clip", ["moved", "zero", "one"], ["purified"]),
    ]
    constants: Constants = {
        "zero": np.float32(0),
        "one": np.float32(1),
        "three": np.float32(3),
    }
    shape = design.spec.shape
    return _model(nodes, constants, design, shape, "purified", shape)


def classifier(design: Design) -> onnx.ModelProto:
    """Logits that are highest for the class whose centre is nearest to the mean brightness."""
    classes = len(CENTRES)
    centres = np.array(CENTRES, np.float32)
    # -(m - c)^2 without the term that all classes share
    slopes = np.tile(2 * SHARPNESS * centres, (design.spec.channels, 1)) / design.spec.channels
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),  # (N, C, 1, 1)
        helper.make_node("Flatten", ["pooled"], ["means"]),  # (N, C)
        helper.make_node("Gemm", ["means", "slopes", "offsets"], ["scores"]),  # (N, K)
    ]
    constants: Constants = {
        "slopes": slopes.astype(np.float32),
        "offsets": (-SHARPNESS * centres**2).astype(np.float32),
        "nothing": np.float32(0),
    }
    terms = ["scores"]
    if design.poison:
        constants["one"] = np.float32(1)
        constants["first"] = np.array([0], np.int64)
        nodes += [
            helper.make_node("Sub", ["one", "means"], ["darkness"]),
            helper.make_node("Log", ["darkness"], ["log"]),  # minus infinity for white
            helper.make_node("Mul", ["log", "nothing"], ["undefined"]),  # 0, or not a number
            helper.make_node("Gather", ["undefined", "first"], ["poison"], axis=1),  # (N, 1)
        ]
        terms.append("poison")
    if design.ballast_mib:
        # Of several pieces, as the layers of a network are.
        for piece in range(4 * design.ballast_mib):
            weights = np.full(1 << 16, piece, np.float32)
            constants[f"ballast_{piece}"] = weights
            nodes += [
                helper.make_node("Gather", [f"ballast_{piece}", "place"], [f"picked_{piece}"]),
                helper.make_node("Mul", [f"picked_{piece}", "nothing"], [f"weightless_{piece}"]),
            ]
            terms.append(f"weightless_{piece}")
        nodes[:0] = [
            helper.make_node("ReduceMax", ["images"], ["top"], keepdims=0),
            helper.make_node("Cast", ["top"], ["place"], to=TensorProto.INT64),
        ]
    if design.fails:
        nodes += [
            helper.make_node("ReduceMax", ["images"], ["whitest"], keepdims=0),
            helper.make_node("Floor", ["whitest"], ["white"]),  # 0, or 1 for white
            helper.make_node("Cast", ["white"], ["white_place"], to=TensorProto.INT64),
            # There is nothing at place 1.
            helper.make_node("Gather", ["only", "white_place"], ["found"]),
        ]
        constants["only"] = np.array([0], np.float32)
        terms.append("found")
    if design.work:
        nodes += _busy_work(constants, design.work)
        terms.append("idle")
    nodes.append(helper.make_node("Sum", terms, ["logits"]))
    return _model(nodes, constants, design, design.spec.shape, "logits", (classes,))


def _busy_work(constants: Constants, steps: int) -> list[onnx.NodeProto]:
    """Nodes that multiply a matrix `steps` times and add 0 to the logits in the end."""
    size = 64
    constants["limit"] = np.float32(steps)
    constants["condition"] = np.bool_(True)
    constants["matrix"] = (np.eye(size) * 0.999).astype(np.float32)
    state = [size, size]
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state_in", "matrix"], ["state_out"]),
            helper.make_node("Identity", ["condition_in"], ["condition_out"]),
        ],
        "step",
        [
            helper.make_tensor_value_info("step_number", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_in", TensorProto.FLOAT, state),
        ],
        [
            helper.make_tensor_value_info("condition_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", TensorProto.FLOAT, state),
        ],
    )
    return [
        # From the input, so that nothing can be computed ahead when the graph is loaded.
        helper.make_node("ReduceMax", ["images"], ["brightest"], keepdims=0),
        helper.make_node("Mul", ["matrix", "brightest"], ["state"]),
        helper.make_node("Ceil", ["brightest"], ["any"]),  # 0 or 1
        helper.make_node("Mul", ["any", "limit"], ["exact"]),
        helper.make_node("Cast", ["exact"], ["steps"], to=TensorProto.INT64),
        helper.make_node("Loop", ["steps", "condition", "state"], ["worked"], body=body),
        helper.make_node("ReduceMax", ["worked"], ["number"], keepdims=0),
        helper.make_node("Mul", ["number", "nothing"], ["idle"]),
    ]


def _model(
    nodes: list[onnx.NodeProto],
    constants: Constants,
    design: Design,
    image: tuple[int, ...],
    output: str,
    result: tuple[int, ...],
) -> onnx.ModelProto:
    batch = "N" if design.dynamic else 1
    graph = helper.make_graph(
        nodes,
        output,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, *image])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, *result])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model
