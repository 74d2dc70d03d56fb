"""A bundle's ONNX graphs as networks: what the service computes, without gradients."""

from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from app.bundle import CLASSIFIER_FILE, PURIFIER_FILE


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
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
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
        except Exception as error:  # onnxruntime's errors share no class but this
            raise ValueError(f"{file}: onnxruntime cannot load it: {error}") from error
    return networks
