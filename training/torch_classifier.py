"""A PyTorch classifier that a user brings, as the ONNX file that is served."""

import importlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from app.bundle import InputSpec
from training.classifier_file import ClassifierError
from training.classifier_options import ClassifierOptions
from training.export import INPUT_NAME, OPSET, OUTPUT_NAMES, ParityError, check_parity, export_onnx

# Under which training programs put the weights among other things.
_WEIGHT_KEYS = ("state_dict", "model_state_dict", "model")


def exported_classifier(
    options: ClassifierOptions, spec: InputSpec, images: Tensor
) -> tuple[str, bytes]:
    """The name and the ONNX file of a module or of a TorchScript file.

    Args:
        options: `source` names it.
        spec: the images that it takes, in the layout (N, C, H, W).
        images: at least 32 of the size of `spec`, for the check of the export.

    Raises:
        ClassifierError: it cannot be loaded, run or exported.
    """
    if options.layout not in (None, "chw"):
        raise ClassifierError(f"{options.source}: PyTorch's classifiers take --layout chw")
    scripted = options.is_file
    network = _loaded(options.source) if scripted else _made(options)
    network.eval()
    for parameter in network.parameters():  # a ScriptModule cannot do it by itself
        parameter.requires_grad_(False)
    name = Path(options.source).name if scripted else options.source
    _try(name, network, spec)
    content = _traced(name, network, spec) if scripted else _exported(name, network, spec)
    try:
        check_parity(network, content, images)
    except ParityError as error:
        raise ClassifierError(f"{name}: its export is not what it computes: {error}") from error
    return name, content


def _made(options: ClassifierOptions) -> nn.Module:
    """What `package.module:factory` gives, with its weights."""
    module, _, factory = options.source.partition(":")
    if not module or not factory:
        raise ClassifierError(f"{options.source}: a module is named as package.module:factory")
    try:
        made = getattr(importlib.import_module(module), factory)()
    except (ImportError, AttributeError) as error:
        raise ClassifierError(f"{options.source}: cannot be made: {error}") from error
    except Exception as error:  # a user's code raises what it likes
        raise ClassifierError(f"{options.source}: cannot be made: {_said(error)}") from error
    if not isinstance(made, nn.Module):
        raise ClassifierError(f"{options.source}: gives {type(made).__name__}, no torch.nn.Module")
    if options.weights is not None:
        try:
            made.load_state_dict(_weights(options.weights))
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ClassifierError(f"{options.weights}: does not fit: {reason}") from error
    return made


def _weights(path: Path) -> dict[str, Any]:
    """A state dict, on its own or as a part of a checkpoint."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
        raise ClassifierError(f"{path}: cannot be read as a state dict: {error}") from error
    for key in _WEIGHT_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise ClassifierError(f"{path}: holds {type(content).__name__}, no state dict")
    return content


def _loaded(source: str) -> nn.Module:
    """A TorchScript file's module."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is no longer developed
            loaded: nn.Module = torch.jit.load(  # type: ignore[no-untyped-call]
                source, map_location="cpu"
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise ClassifierError(
            f"{source}: is no .onnx file, no package.module:factory, and no TorchScript: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return loaded


def _try(name: str, network: nn.Module, spec: InputSpec) -> None:
    """Refuse a network that does not take the images or does not give a row for each."""
    try:
        with torch.no_grad():
            found = network(torch.zeros(2, *spec.shape))
    except Exception as error:  # of many kinds: networks check their input as they like
        raise ClassifierError(
            f"{name}: it does not take images of {spec.width}x{spec.height}x{spec.channels} "
            f"({_said(error)}); --size and --grey change the images"
        ) from error
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != 2:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ClassifierError(f"{name}: it gives {shape} for two images; wanted is (2, classes)")


def _said(error: Exception) -> str:
    """The last line of an error with its kind, which may be all there is."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


def _exported(name: str, network: nn.Module, spec: InputSpec) -> bytes:
    """By torch.export, or traced where that does not understand the module."""
    try:
        return export_onnx(network, "classifier", spec)
    except Exception as first:  # of many kinds; what tracing makes of it is checked all the same
        try:
            return _traced(name, network, spec)
        except ClassifierError as error:
            raise ClassifierError(f"{error}; by torch.export: {_said(first)}") from first


def _traced(name: str, network: nn.Module, spec: InputSpec) -> bytes:
    """By the exporter that knows TorchScript, which torch.export does not take."""
    file = io.BytesIO()
    output = OUTPUT_NAMES["classifier"]
    try:
        with warnings.catch_warnings(), _silent():
            warnings.simplefilter("ignore")  # that it is the older exporter
            torch.onnx.export(
                network,
                (torch.zeros(2, *spec.shape),),
                file,  # type: ignore[arg-type]  # a stream is taken, whatever the stub says
                input_names=[INPUT_NAME],
                output_names=[output],
                dynamic_axes={INPUT_NAME: {0: "N"}, output: {0: "N"}},
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:  # of many kinds
        raise ClassifierError(f"{name}: cannot be exported: {error}") from error
    return file.getvalue()


@contextmanager
def _silent() -> Iterator[None]:
    """Without what is written to standard output: the exporter prints whole graphs that it refuses.

    It does so beneath Python, so the file descriptor itself is turned away.
    """
    if sys.stdout is None:  # as where the terminal is gone
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
