"""The JSON answers, as the OpenAPI document describes them.

They are built as plain dictionaries (`app/answers.py`) and written at once; these models are their
description, and the tests hold every answer against it.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Schema(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ClassProbability(_Schema):
    """One class and its probability."""

    label: str
    probability: float = Field(ge=0, le=1)


class SourceImage(_Schema):
    """What was found in the uploaded file."""

    format: str = Field(examples=["PNG"])
    width: int = Field(description="as shown: EXIF orientation applied")
    height: int = Field(description="as shown: EXIF orientation applied")
    frames: int = Field(ge=1, description="frames in the file; only the first was used")
    note: str | None = Field(None, description="what was left out of an animated file")


class Latency(_Schema):
    """Milliseconds that this image spent in each stage; stages that were not needed are absent."""

    read: float | None = Field(None, description="of the whole body")
    decode: float
    queue: float
    purify: float | None = Field(None, description="of the whole batch")
    classify: float | None = Field(None, description="of the whole batch")


class Detection(_Schema):
    """How purification moved the classifier; large shifts point to adversarial noise."""

    label_unpurified: str
    label_purified: str
    shift_bits: float = Field(
        ge=0,
        le=1,
        description="Jensen-Shannon divergence between the class probabilities before and after",
    )
    threshold_bits: float | None = Field(description="null: the bundle has none")
    over_threshold: bool | None = Field(description="null: the bundle has no threshold")


class _Result(_Schema):
    model: str = Field(examples=["mnist"])
    version: int
    image: SourceImage
    latency_ms: Latency


class Classification(_Result):
    """A classified image."""

    label: str
    confidence: float = Field(ge=0, le=1)
    top: list[ClassProbability] = Field(description="most probable first")
    purified: bool = Field(description="whether the label is that of the purified image")
    detection: Detection | None = Field(None, description="only with detect=true")


class Purification(_Result):
    """A purified image, in JSON."""

    png_base64: str = Field(description="the purified image as an 8-bit PNG")
    shift_bits: float = Field(ge=0, le=1)
    threshold_bits: float | None
    over_threshold: bool | None


class InputShape(_Schema):
    """What the bundle's graphs take; uploads of any size are brought to it."""

    channels: int
    height: int
    width: int


class ModelVersion(_Schema):
    """One loaded version of a bundle."""

    version: int
    sha256: str = Field(description="of the manifest, which holds the digests of all other files")
    files: dict[str, str] = Field(description="file -> SHA-256")
    created: str
    labels: list[str]
    input: InputShape
    shift_threshold_bits: float | None
    provider: str = Field(description="what it runs on", examples=["CPUExecutionProvider"])


class Bundle(_Schema):
    """A bundle: the highest version is served unless `model=name@version` asks otherwise."""

    name: str
    default: bool
    served_version: int
    versions: list[ModelVersion]


class ModelFailure(_Schema):
    """A version on disk that was refused; whatever was served before serves on."""

    name: str
    version: str = Field(description="the name of its folder")
    reason: str
    time: str = Field(description="UTC, ISO 8601")


class Models(_Schema):
    """Everything that is loaded."""

    default: str = Field(description="settled at the start; it may have been unloaded since")
    models: list[Bundle]
    failures: list[ModelFailure]


class RepositoryEntry(_Schema):
    """A version of a bundle, on disk or in memory."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = Field(description="why the content on disk is not served; empty if it is")


class ModelVersionDetail(ModelVersion):
    """One loaded version with its origin and its robustness card."""

    provenance: dict[str, Any]
    card: dict[str, Any] | None = Field(description="null: the bundle was not evaluated")


class BundleDetail(_Schema):
    """A bundle with origins and cards."""

    name: str
    default: bool
    served_version: int
    versions: list[ModelVersionDetail]


class Health(_Schema):
    """The state of the process."""

    status: str


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str = Field(description="stable, for programs", examples=["corrupt_image"])
    detail: str | None = Field(None, description="for people")
    file_index: int | None = Field(None, description="which of several files, from 0")
    errors: list[dict[str, Any]] | None = Field(None, description="the parameters at fault")
    error: str | None = Field(None, description="below /v2: the detail, as that protocol has it")
