"""The JSON answers, built as plain dictionaries; `app/schemas.py` describes them."""

import base64
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from app.catalog import Catalog, Failure, Model
from app.repository import Entry
from app.service import Inference
from app.shift import Probabilities

Json = dict[str, Any]


def classification(
    inference: Inference, model: Model, *, purify: bool, top_k: int, read_s: float
) -> Json:
    """A `Classification`; with the detection if both probabilities are there."""
    probabilities = inference.purified if purify else inference.plain
    assert probabilities is not None
    labels = model.manifest.labels
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    best = int(order[0])
    answer: Json = {
        "label": labels[best],
        "confidence": float(probabilities[best]),
        "top": [{"label": labels[i], "probability": float(probabilities[i])} for i in order],
        "purified": purify,
    }
    if inference.shift_bits is not None:
        assert inference.plain is not None and inference.purified is not None
        answer["detection"] = {
            "label_unpurified": labels[_best(inference.plain)],
            "label_purified": labels[_best(inference.purified)],
            **_alarm(inference.shift_bits, model),
        }
    return answer | _result(inference, model, read_s)


def purification(inference: Inference, model: Model, png: bytes, *, read_s: float) -> Json:
    """A `Purification`."""
    assert inference.shift_bits is not None
    return {
        "png_base64": base64.b64encode(png).decode(),
        **_alarm(inference.shift_bits, model),
        **_result(inference, model, read_s),
    }


def frames_note(inference: Inference) -> str | None:
    """What the sender of an animated file should know."""
    frames = inference.image.frames
    return f"only the first of {frames} frames was used" if frames > 1 else None


def models(catalog: Catalog, failures: Iterable[Failure]) -> Json:
    """A `Models`."""
    return {
        "default": catalog.default,
        "models": [bundle(catalog, name, detail=False) for name in catalog.bundles],
        "failures": [asdict(failure) for failure in failures],
    }


def repository(entries: Iterable[Entry]) -> list[Json]:
    """`RepositoryEntry` after `RepositoryEntry`."""
    return [
        {
            "name": entry.name,
            "version": entry.version,
            "state": "READY" if entry.ready else "UNAVAILABLE",
            "reason": entry.reason,
        }
        for entry in entries
    ]


def bundle(catalog: Catalog, name: str, *, detail: bool) -> Json:
    """A `Bundle`, or with `detail` a `BundleDetail`."""
    versions = catalog.bundles[name]
    return {
        "name": name,
        "default": name == catalog.default,
        "served_version": max(versions),
        "versions": [
            _version(model) | (_origin(model) if detail else {}) for model in versions.values()
        ],
    }


def _version(model: Model) -> Json:
    manifest = model.manifest
    return {
        "version": manifest.version,
        "sha256": model.sha256,
        "files": {name: file.sha256 for name, file in manifest.files.items()},
        "created": manifest.created,
        "labels": list(manifest.labels),
        "input": manifest.input.model_dump(),
        "shift_threshold_bits": manifest.shift_threshold_bits,
        "provider": model.engine.provider,
    }


def _origin(model: Model) -> Json:
    return {"provenance": model.manifest.provenance.model_dump(), "card": model.card}


def _alarm(shift: float, model: Model) -> Json:
    threshold = model.manifest.shift_threshold_bits
    return {
        "shift_bits": shift,
        "threshold_bits": threshold,
        "over_threshold": None if threshold is None else shift > threshold,
    }


def _result(inference: Inference, model: Model, read_s: float) -> Json:
    """What every answer about an image says."""
    image = inference.image
    source: Json = {
        "format": image.format,
        "width": image.width,
        "height": image.height,
        "frames": image.frames,
    }
    if note := frames_note(inference):
        source["note"] = note
    stages = {"read": read_s, **inference.stages}
    return {
        "model": model.manifest.name,
        "version": model.manifest.version,
        "image": source,
        "latency_ms": {stage: round(seconds * 1000, 3) for stage, seconds in stages.items()},
    }


def _best(probabilities: Probabilities) -> int:
    return int(probabilities.argmax())
