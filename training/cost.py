"""What purification costs: multiply-adds, and the time of one image as the service runs it."""

import time
from statistics import median

import onnxruntime
from torch import Tensor, nn

from training.card import Cost
from training.classifier_file import session_of
from training.export import INPUT_NAME
from training.networks import multiply_adds
from training.provenance import processor

_WARM_UP = 10
_RUNS, _LEAST_RUNS = 200, 5
_LONGEST_S = 5.0


def cost_of(content: bytes, purifier: nn.Module, image: Tensor) -> Cost:
    """The cost of purifying one image.

    Args:
        content: `purifier.onnx`, which is timed.
        purifier: the same in PyTorch on the CPU, in which multiply-adds are counted.
        image: a real one (1, C, H, W), float32 in [0, 1].
    """
    channels, height, width = image.shape[1:]
    took_s = _seconds(content, image)
    return Cost(
        image=(channels, height, width),
        multiply_adds=multiply_adds(purifier, (channels, height, width)),
        milliseconds=1000 * median(took_s),
        runs=len(took_s),
        runtime=f"onnxruntime {onnxruntime.__version__}",
        processor=processor(),
    )


def _seconds(content: bytes, image: Tensor) -> list[float]:
    """What each of many runs on one thread took."""
    session = session_of(content, threads=1)
    feed = {INPUT_NAME: image.numpy()}
    for _ in range(_WARM_UP):
        session.run(None, feed)
    took: list[float] = []
    ends = time.perf_counter() + _LONGEST_S
    while len(took) < _RUNS and (len(took) < _LEAST_RUNS or time.perf_counter() < ends):
        started = time.perf_counter()
        session.run(None, feed)
        took.append(time.perf_counter() - started)
    return took
