"""A bundle's ONNX graphs as networks: what the service computes, without gradients."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from app.bundle import CLASSIFIER_FILE, PURIFIER_FILE
from training.classifier_file import session_of


class OnnxNetwork(nn.Module):
    """One graph, run by onnxruntime on the CPU.

    Args:
        content: the file.

    Shape:
        images: (N, C, H, W), float32 in [0, 1].
        returns: the graph's only output; no gradient flows back from it.
    """

    content: Tensor

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.session = session_of(content)
        self.input_name = self.session.get_inputs()[0].name
        # As a buffer it is part of the state, so that kept results are bound to the file's bytes.
        self.register_buffer("content", torch.from_numpy(np.frombuffer(content, np.uint8).copy()))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """The graph's output for the images."""
        pixels = np.ascontiguousarray(images.detach().cpu().numpy())
        (output,) = self.session.run(None, {self.input_name: pixels})
        return torch.from_numpy(output).to(images.device)

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnnxNetwork":
        """A session cannot be copied, and nothing here ever changes."""
        return self


def onnx_networks(purifier: bytes, classifier: bytes) -> dict[str, nn.Module]:
    """The bundle's two graphs under the names that its weights have them under.

    Raises:
        ValueError: onnxruntime cannot load a graph.
    """
    networks: dict[str, nn.Module] = {}
    for name, file, content in (
        ("student", PURIFIER_FILE, purifier),
        ("classifier", CLASSIFIER_FILE, classifier),
    ):
        try:
            networks[name] = OnnxNetwork(content)
        except ValueError as error:
            reason = error.__cause__
            raise ValueError(f"{file}: onnxruntime cannot load it: {reason}") from error
    return networks
