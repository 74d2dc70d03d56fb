"""The two graphs as a user of onnxruntime and Pillow would run them; every peer shares this."""

import json
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from PIL import Image

BUNDLE_VARIABLE = "BENCHMARK_BUNDLE"
MAX_BATCH_SIZE = 32

Answer = dict[str, str | float]


class Model:
    """Purifier and classifier of one bundle, on one thread.

    Args:
        folder: of the bundle; None: the one that the environment names.
    """

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or Path(os.environ[BUNDLE_VARIABLE])
        manifest = json.loads((folder / "bundle.json").read_bytes())
        self._labels: list[str] = manifest["labels"]
        self._size = manifest["input"]["width"], manifest["input"]["height"]
        self._mode = "L" if manifest["input"]["channels"] == 1 else "RGB"
        self._purifier = _session(folder / "purifier.onnx")
        self._classifier = _session(folder / "classifier.onnx")

    def decode(self, content: bytes) -> npt.NDArray[np.float32]:
        """An image file as (C, H, W) in [0, 1]."""
        return self.prepare(Image.open(BytesIO(content)))

    def prepare(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """An image as (C, H, W) in [0, 1]."""
        image = image.convert(self._mode)
        if image.size != self._size:
            image = image.resize(self._size, Image.Resampling.BICUBIC)
        pixels = np.asarray(image, np.float32) / np.float32(255)
        return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    def classify(self, images: Sequence[npt.NDArray[np.float32]]) -> list[Answer]:
        """The label of each image, purified, and its confidence."""
        logits = self.logits(np.stack(images))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = powers / powers.sum(axis=1, keepdims=True)
        best = probabilities.argmax(axis=1)
        return [
            {"label": self._labels[index], "confidence": float(row[index])}
            for index, row in zip(best, probabilities, strict=True)
        ]

    def logits(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Of the purified images.

        Shape:
            images: (N, C, H, W), in [0, 1].
            returns: (N, K).
        """
        (purified,) = self._purifier.run(None, {"images": images})
        (logits,) = self._classifier.run(None, {"images": purified})
        returned: npt.NDArray[np.float32] = logits
        return returned


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
