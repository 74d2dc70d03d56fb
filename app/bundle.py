"""The bundle: the one artefact that passes from training to the service.

A bundle is a folder `models/<name>/<version>/`. Its `bundle.json`, defined here and nowhere else,
names every other file with its SHA-256, so that a file that was changed is never loaded.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

SCHEMA_VERSION = 1
MANIFEST_FILE = "bundle.json"
PURIFIER_FILE = "purifier.onnx"
CLASSIFIER_FILE = "classifier.onnx"
PREPROCESS_FILE = "preprocess.onnx"
CARD_FILE = "card.json"
WEIGHTS_FILE = "weights.safetensors"

MOST_SIDE = 1024  # of the images that a bundle takes

# A probability of 0 has no logarithm: this far down it makes no difference to any other.
PROBABILITY_FLOOR = 1e-12

NAME_PATTERN = r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$"
FILE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"


class BundleError(ValueError):
    """A bundle that cannot be loaded; the message names the file and the reason."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputSpec(_Frozen):
    """The images both graphs of a bundle take: (N, channels, height, width), float32 in [0, 1]."""

    channels: Literal[1, 3]
    height: int = Field(ge=1, le=MOST_SIDE)
    width: int = Field(ge=1, le=MOST_SIDE)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width


class ClassifierSpec(_Frozen):
    """How a classifier that was not made by a recipe is run: its file is served as it was given.

    Where the bundle has a `preprocess.onnx`, that graph takes the images and makes of them what
    the classifier takes.
    """

    input: str = Field(description="name of the classifier's only input")
    output: str = Field(description="name of the output that counts, of perhaps several")
    gives: Literal["logits", "probabilities"] = Field(description="what this output holds")


class FileDigest(_Frozen):
    """What a file of the bundle must be, byte for byte."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Provenance(_Frozen):
    """Where a bundle came from: enough to train it again."""

    command: str
    recipe: str
    settings: dict[str, Any] = Field(description="the whole recipe as it was run")
    seed: int
    git_commit: str | None
    data_name: str
    data_sha256: str = Field(description="digest over all pixels and labels, in order")
    versions: dict[str, str] = Field(description="framework -> version")
    machine: str
    stage_seconds: dict[str, float] = Field(description="wall-clock seconds that each stage took")
    classifier: dict[str, Any] | None = Field(
        default=None,
        description="a classifier that was brought: its name, SHA-256 and how it is to be used",
    )


class Manifest(_Frozen):
    """The content of `bundle.json`."""

    schema_version: int = SCHEMA_VERSION
    name: str = Field(pattern=NAME_PATTERN)
    version: int = Field(ge=1)
    created: str = Field(description="UTC, ISO 8601")
    labels: tuple[str, ...] = Field(min_length=2)
    input: InputSpec
    files: dict[str, FileDigest]
    classifier: ClassifierSpec | None = Field(
        default=None, description="None: the classifier takes `images` and gives `logits`"
    )
    shift_threshold_bits: float | None = Field(
        ge=0,
        le=1,
        description="shift above this raises the alarm on 1 % of clean validation images",
    )
    provenance: Provenance

    @model_validator(mode="after")
    def _names_are_plain(self) -> "Manifest":
        """Refuse file names that could leave the folder, and bundles without their two graphs."""
        for name in self.files:
            if not re.match(FILE_PATTERN, name):
                raise ValueError(f"file name {name!r} is not a plain name")
        missing = {PURIFIER_FILE, CLASSIFIER_FILE} - self.files.keys()
        if missing:
            raise ValueError(f"files lists no {', '.join(sorted(missing))}")
        if PREPROCESS_FILE in self.files and self.classifier is None:
            raise ValueError(f"{PREPROCESS_FILE} needs a description of the classifier")
        return self


def digest(content: bytes) -> FileDigest:
    """The digest of one file's content."""
    return FileDigest(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the bundle in `folder`.

    Raises:
        BundleError: it is missing, unreadable, malformed, or of a newer schema.
    """
    return read_manifest_and_digest(folder)[0]


def read_manifest_and_digest(folder: Path) -> tuple[Manifest, FileDigest]:
    """The manifest of the bundle in `folder` and its own digest, of one and the same content.

    Raises:
        BundleError: it is missing, unreadable, malformed, or of a newer schema.
    """
    path = folder / MANIFEST_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    return _parse_manifest(path, content), digest(content)


def _parse_manifest(path: Path, content: bytes) -> Manifest:
    document = parse_json(path, content)
    schema = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        raise BundleError(
            f"{path}: has schema version {schema}; this program reads up to {SCHEMA_VERSION}"
        )
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}" for e in error.errors()
        )
        raise BundleError(f"{path}: {problems}") from error
    return manifest


def parse_json(path: Path, content: bytes) -> Any:
    """What a JSON file holds.

    Raises:
        BundleError: it is not JSON, or nested beyond reason.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: is not JSON: {error}") from error


def read_verified(folder: Path, manifest: Manifest, name: str) -> bytes:
    """The content of one file of the bundle, only if it is the one the manifest names.

    Raises:
        BundleError: the file is missing, unreadable, not in the manifest, or was changed.
    """
    path = folder / name
    expected = manifest.files.get(name)
    if expected is None:
        raise BundleError(f"{path}: is not listed in {MANIFEST_FILE}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    found = digest(content)
    if found != expected:
        raise BundleError(
            f"{path}: has SHA-256 {found.sha256} and {found.bytes} bytes, "
            f"{MANIFEST_FILE} says {expected.sha256} and {expected.bytes}"
        )
    return content
