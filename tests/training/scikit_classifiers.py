"""Classifiers from another world than PyTorch's: scikit-learn's, by skl2onnx."""

from functools import cache

import numpy as np
import torch
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPClassifier

from tests.training.tiny_runs import SPEC
from training.data import Dataset, Split


@cache
def digits() -> Dataset:
    """scikit-learn's own digits, 8x8, whose white is 16."""
    found = load_digits()
    images = torch.from_numpy(np.round(found.images / 16 * 255).astype(np.uint8))[:, None]
    labels, names = torch.from_numpy(found.target).long(), tuple("0123456789")
    splits = [
        Split(images[part], labels[part], tuple(f"{n}/{n}.png" for n in labels[part]), names)
        for part in (slice(0, 1400), slice(1400, None))
    ]
    return Dataset("digits", splits[0], splits[1], SPEC, "0" * 64)


@cache
def by_scikit_learn(kind: str, *, zipmap: bool = True) -> bytes:
    """A classifier of the digits by skl2onnx: of the kind `mlp` or `forest`."""
    train = digits().train
    rows = train.images.flatten(1).numpy() / 255 * 16
    if kind == "mlp":
        estimator = MLPClassifier((32,), max_iter=500, tol=1e-3, random_state=0)
    else:
        estimator = RandomForestClassifier(20, random_state=0)
    estimator.fit(rows, train.labels.numpy())
    options = None if zipmap else {id(estimator): {"zipmap": False}}
    model = to_onnx(estimator, rows[:1].astype(np.float32), options=options)
    content: bytes = model.SerializeToString()
    return content
