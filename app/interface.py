"""A bundle's graphs, opened from verified bytes and held against what the manifest says of them."""

from collections.abc import Sequence
from pathlib import Path

from app.bundle import BundleError, Manifest, read_verified
from app.sessions import Device, Session, Tensor, open_session


def open_graph(
    folder: Path,
    manifest: Manifest,
    name: str,
    device: Device,
    threads: int,
    output: str | None = None,
) -> Session:
    """One graph of the bundle in `folder`.

    Raises:
        BundleError: the file was changed or is not a graph.
        DeviceError: the device cannot be used.
    """
    try:
        return open_session(read_verified(folder, manifest, name), device, threads, output)
    except BundleError:
        raise
    except ValueError as error:
        raise BundleError(f"{folder / name}: {error}") from error


def check_graph(
    path: Path, session: Session, image: Sequence[int], output: str, result: Sequence[int] | None
) -> None:
    """Refuse a graph of ours whose interface contradicts the manifest.

    Sizes that the graph leaves open are settled by the warm-up.

    Args:
        path: of the graph, for the message.
        session: the graph.
        image: (C, H, W) of its input `images`.
        output: name of its only output.
        result: shape of the output of one image; None: anything.

    Raises:
        BundleError: it does.
    """
    for kind, tensors, name, shape in (
        ("input", session.inputs, "images", image),
        ("output", session.outputs, output, result),
    ):
        tensor = only_tensor(path, kind, tensors, name)
        if not tensor.shape or tensor.shape[0] is not None:
            raise BundleError(f"{path}: its {kind} {tensor.shape} has no dynamic batch dimension")
        if shape is not None:
            check_shape(path, kind, tensor, (None, *shape))


def only_tensor(path: Path, kind: str, tensors: Sequence[Tensor], name: str) -> Tensor:
    """The only one of a graph's inputs or outputs, of floats and of that name.

    Raises:
        BundleError: there are others, or it is of another type.
    """
    if [tensor.name for tensor in tensors] != [name]:
        found = [tensor.name for tensor in tensors]
        raise BundleError(f"{path}: its {kind}s are {found}, wanted is one named {name!r}")
    if tensors[0].type != "tensor(float)":
        raise BundleError(f"{path}: its {kind} is {tensors[0].type}, wanted is tensor(float)")
    return tensors[0]


def check_shape(path: Path, kind: str, tensor: Tensor, wanted: Sequence[int | None]) -> None:
    """Refuse a tensor whose known sizes contradict those that are wanted, batch apart.

    Raises:
        BundleError: they do.
    """
    fits = len(tensor.shape) == len(wanted) and all(
        size is None or other is None or size == other
        for size, other in zip(tensor.shape[1:], wanted[1:], strict=True)
    )
    if not fits:
        raise BundleError(
            f"{path}: its {kind} has the shape {tensor.shape}, the manifest says {tuple(wanted)}"
        )
