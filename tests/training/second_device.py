"""A second device for machines without a GPU, on which forgotten moves show.

Its tensors compute on the CPU, but they refuse to be mixed with the CPU's own, and NumPy does not
get at them, as it is with a GPU's. For PyTorch they lie on `meta`, the one other device that every
build has.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

SECOND = torch.device("meta")
_MAY_MIX = ("aten::_to_copy", "aten::copy_", "aten::index", "aten::index_put", "aten::index_put_")


def moved(network: nn.Module) -> nn.Module:
    """The network, its weights on the second device."""
    with SecondDevice():  # type: ignore[no-untyped-call]
        return network.to(SECOND)


class SecondDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, `to` and whatever makes tensors know the second device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Compute one operator."""
        return _computed(func, args, kwargs or {})


class _Elsewhere(Tensor):
    """A tensor of the second device."""

    held: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> "_Elsewhere":
        made: _Elsewhere = Tensor._make_wrapper_subclass(
            cls, real.shape, strides=real.stride(), dtype=real.dtype, device=SECOND
        )
        made.held = real
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Compute one operator."""
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What the operator gives, on the device where its tensors are or that it is asked for."""
    leaves, shape = tree_flatten((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    here = [tensor for tensor in tensors if not isinstance(tensor, _Elsewhere)]
    there = len(here) < len(tensors)
    # Numbers may come from the CPU, and places of an index.
    if there and any(tensor.dim() for tensor in here) and func._schema.name not in _MAY_MIX:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    asked = kwargs.get("device")
    real = [leaf.held if isinstance(leaf, _Elsewhere) else leaf for leaf in leaves]
    given, named = tree_unflatten(real, shape)
    result = func(*given, **({**named, "device": "cpu"} if asked is not None else named))
    for leaf, tensor in zip(leaves, real, strict=True):
        if result is tensor and isinstance(leaf, Tensor):  # changed in its place
            return leaf
    goes_there = there if asked is None else torch.device(asked) == SECOND
    return tree_map_only(Tensor, _Elsewhere, result) if goes_there else result
