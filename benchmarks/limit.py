"""The limit: decode, purifier, classifier in a loop on one core, without any server.

Run as a process of its own, so that it is pinned like a server; prints JSON.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.bundle import read_manifest
from app.images import decode_image
from benchmarks.servers.model import Answer, Model

Decode = Callable[[bytes], npt.NDArray[np.uint8 | np.float32]]

_BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Limit:
    """Seconds in process for one image.

    Attributes:
        single_s: at batch 1, the median.
        single_mean_s: at batch 1, the mean.
        batched_s: at batch 32, the mean.
        plain_batched_s: at batch 32, decoded by Pillow without reduced scale.
        answers: what every server should answer to each file.
    """

    single_s: float
    single_mean_s: float
    batched_s: float
    plain_batched_s: float
    answers: list[Answer]


def measure_limit(bundle: Path, files: Sequence[bytes], seconds: float) -> Limit:
    """The limit for these files, each figure measured for about `seconds`."""
    spec = read_manifest(bundle).input
    model = Model(bundle)

    def decode(content: bytes) -> npt.NDArray[np.uint8 | np.float32]:
        return decode_image(content, spec).pixels

    answers = model.classify([_floats(decode(file)) for file in files])
    single = _iterations(model, decode, files, 1, seconds)
    batched = _iterations(model, decode, files, _BATCH_SIZE, seconds)
    plain = _iterations(model, model.decode, files, _BATCH_SIZE, seconds)
    return Limit(
        single_s=statistics.median(single),
        single_mean_s=statistics.fmean(single),
        batched_s=statistics.fmean(batched) / _BATCH_SIZE,
        plain_batched_s=statistics.fmean(plain) / _BATCH_SIZE,
        answers=answers,
    )


def _iterations(
    model: Model, decode: Decode, files: Sequence[bytes], batch_size: int, seconds: float
) -> list[float]:
    """Seconds that each batch took; at least one, after one that does not count."""
    contents = itertools.cycle(files)
    durations: list[float] = []
    ends = time.perf_counter() + seconds
    while len(durations) < 2 or time.perf_counter() < ends:
        started = time.perf_counter()
        decoded = [decode(next(contents)) for _ in range(batch_size)]
        model.logits(_floats(np.stack(decoded))).argmax(axis=1)
        durations.append(time.perf_counter() - started)
    return durations[1:]


def _floats(pixels: npt.NDArray[np.uint8 | np.float32]) -> npt.NDArray[np.float32]:
    """Pixels in [0, 1], which Pillow's own way of decoding gives already."""
    if pixels.dtype == np.float32:
        return pixels.astype(np.float32, copy=False)
    return np.divide(pixels, np.float32(255), dtype=np.float32)


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    files = [path.read_bytes() for path in options.files]
    print(json.dumps(asdict(measure_limit(options.bundle, files, options.seconds))))


if __name__ == "__main__":
    main()
