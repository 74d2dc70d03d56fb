"""The service's settings: read once from the environment, prefix `LIMBECK_`."""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.secrets import SECRET_PATTERN, read_secrets

PREFIX = "LIMBECK_"
_MIB = 1024 * 1024

# Set by others in our namespace: Kubernetes for a Service named limbeck, and the data folder.
_FOREIGN = re.compile(r"LIMBECK_(DATA|SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_\w+)")

# Their values are never printed.
_SECRET = {"api_keys", "admin_key"}

Device = Literal["auto", "cpu", "cuda", "tensorrt"]


class SettingsError(ValueError):
    """Settings that cannot be used; the message names the variable and says why."""


class Settings(BaseSettings):
    """Everything an operator can choose."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", allow_inf_nan=False
    )

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8000, ge=0, le=65_535, description="0 takes any free port")
    admin_host: str = Field(default="127.0.0.1", min_length=1)
    admin_port: int | None = Field(
        default=None,
        ge=0,
        le=65_535,
        description="metrics and administration answer here and nowhere else",
    )
    workers: int = Field(default=1, ge=0, le=1024, description="processes; 0: one per core")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    models_dir: Path = Path("models")
    default_model: str | None = Field(
        default=None, description="the bundle used when none is named; unset: the first by name"
    )
    bundle_public_key: Path | None = Field(
        default=None, description="only bundles signed with its private key are loaded"
    )
    watch: float = Field(
        default=0,
        ge=0,
        le=3600,
        description="seconds between two looks for changed bundles; 0: none is taken",
    )
    device: Device = "auto"
    inference_threads: int = Field(
        default=0,
        ge=0,
        le=256,
        description="threads of one inference on the CPU; 0: cores / workers",
    )

    max_image_bytes: int = Field(default=16 * _MIB, ge=1)
    max_image_pixels: int = Field(default=25_000_000, ge=1)
    max_request_images: int = Field(default=32, ge=1, description="`file` parts of one form")
    max_request_bytes: int = Field(default=64 * _MIB, ge=1, description="a whole multipart body")

    max_batch_size: int = Field(default=32, ge=1, le=1024)
    max_queue_delay_ms: float = Field(
        default=1.0,
        ge=0,
        le=1000,
        description="how long a batch waits for requests that are already being decoded",
    )
    max_queue_size: int = Field(default=256, ge=1, description="images waiting, per model")
    max_queue_bytes: int = Field(
        default=256 * _MIB,
        ge=1,
        description="of uploads held and decoded pixels waiting, over all models",
    )
    request_timeout_s: float = Field(
        default=30.0, gt=0, description="from the last byte of the body"
    )

    hang_seconds: float | None = Field(
        default=None,
        gt=0,
        description="an inference that takes longer hangs; unset: 4 request timeouts, at least 60",
    )

    max_connections: int = Field(default=1024, ge=1, description="at the same time, per worker")
    keep_alive_s: float = Field(default=5.0, gt=0, description="between two requests")
    header_timeout_s: float = Field(default=10.0, gt=0, description="for a request's head")
    body_timeout_s: float = Field(
        default=30.0, gt=0, description="that a request's body may lie behind 64 KiB a second"
    )
    write_timeout_s: float = Field(
        default=30.0, gt=0, description="to fetch an answer, and a second more for each 64 KiB"
    )

    shutdown_delay_s: float = Field(
        default=1.0, ge=0, description="between failing readiness and closing the listeners"
    )
    drain_seconds: float = Field(default=30.0, ge=0, description="to answer what was accepted")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(), description="separated by commas; unset: nobody is asked for one"
    )
    api_keys_file: Path | None = Field(
        default=None, description="more of them, one a line; read at the start"
    )
    rate_limit: str | None = Field(
        default=None, description="of one key, or one address; such as 100/second"
    )
    admin_key: SecretStr | None = Field(
        default=None, description="opens the admin routes; unset: they are closed"
    )
    admin_key_file: Path | None = Field(
        default=None, description="the admin key from a file; read at the start"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="separated by commas"
    )

    @property
    def processes(self) -> int:
        """How many workers there are."""
        return self.workers or cores()

    @property
    def hang_s(self) -> float:
        """How long an inference may take before it counts as hanging."""
        return self.hang_seconds or max(4 * self.request_timeout_s, 60.0)

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        keys = [part.strip() for part in value.split(",")]
        if not all(SECRET_PATTERN.fullmatch(key) for key in keys):
            # An empty one too: somebody who sets keys must not end up with an open service.
            raise ValueError("every key must be printable ASCII without spaces, and not empty")
        return tuple(keys)

    @field_validator("rate_limit")
    @classmethod
    def _is_a_rate(cls, value: str | None) -> str | None:
        if value is not None:
            from app.rates import parse_rate  # costs a second of start that only a limit is worth

            parse_rate(value)
        return value

    @field_validator("admin_key")
    @classmethod
    def _admin_key_can_be_asked_for(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not SECRET_PATTERN.fullmatch(value.get_secret_value()):
            raise ValueError("a key must be printable ASCII without spaces, and not empty")
        return value

    @field_validator("port", mode="before")
    @classmethod
    def _not_a_service_link(cls, value: object) -> object:
        if isinstance(value, str) and value.startswith("tcp://"):
            raise ValueError(
                "this is the address that Kubernetes sets for a Service named limbeck; "
                "set enableServiceLinks: false in the pod"
            )
        return value

    @model_validator(mode="after")
    def _ports_differ(self) -> "Settings":
        # Requests are told apart by the port they came in on.
        if self.admin_port and self.admin_port == self.port:
            raise ValueError(f"LIMBECK_ADMIN_PORT must not be LIMBECK_PORT ({self.port})")
        return self

    @model_validator(mode="after")
    def _admin_key_is_no_api_key(self) -> "Settings":
        # Both are read, so that a file that cannot be used stops the start.
        api_keys, admin_key = self.known_keys(), self.known_admin_key()
        if admin_key is not None and admin_key in api_keys:
            raise ValueError(
                "LIMBECK_ADMIN_KEY must not be one of LIMBECK_API_KEYS: whoever may send images "
                "could unload the models"
            )
        return self

    @model_validator(mode="after")
    def _request_fits_queue(self) -> "Settings":
        if self.max_request_images > self.max_queue_size:
            raise ValueError(
                f"LIMBECK_MAX_REQUEST_IMAGES ({self.max_request_images}) must not exceed "
                f"LIMBECK_MAX_QUEUE_SIZE ({self.max_queue_size}): such a request could never run"
            )
        # What is read alone must fit alone, or a client would be told to try again for ever.
        if max(self.max_image_bytes, self.max_request_bytes) > self.max_queue_bytes:
            raise ValueError(
                f"LIMBECK_MAX_IMAGE_BYTES ({self.max_image_bytes}) and LIMBECK_MAX_REQUEST_BYTES "
                f"({self.max_request_bytes}) must not exceed LIMBECK_MAX_QUEUE_BYTES "
                f"({self.max_queue_bytes}): such a request could never run"
            )
        return self

    def known_keys(self) -> tuple[SecretStr, ...]:
        """The API keys of the environment and of the file, none if nobody is asked for one.

        Raises:
            ValueError: the file cannot be used.
        """
        if self.api_keys_file is None:
            return self.api_keys
        return self.api_keys + read_secrets(self.api_keys_file, f"{PREFIX}API_KEYS_FILE")

    def known_admin_key(self) -> SecretStr | None:
        """The admin key of the environment or of the file, None if the admin routes are closed.

        Raises:
            ValueError: the file cannot be used, or there is more than one key.
        """
        if self.admin_key_file is None:
            return self.admin_key
        found = read_secrets(self.admin_key_file, f"{PREFIX}ADMIN_KEY_FILE")
        if self.admin_key is not None or len(found) > 1:
            raise ValueError("there is one admin key: LIMBECK_ADMIN_KEY or LIMBECK_ADMIN_KEY_FILE")
        return found[0]


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of the environment.

    Raises:
        SettingsError: a `LIMBECK_*` name is unknown, or a value impossible.
    """
    names = os.environ if environ is None else environ
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    problems = []
    values: dict[str, Any] = {}
    for name, value in names.items():
        if not name.startswith(PREFIX) or _FOREIGN.fullmatch(name):
            continue
        if name in known:
            values[name.removeprefix(PREFIX).lower()] = value
            continue
        close = difflib.get_close_matches(name, known, n=1)
        problems.append(f"{name} is no setting" + (f"; did you mean {close[0]}?" if close else ""))
    try:
        # The values are handed over, not looked up again: what was checked is what is used.
        settings = Settings(**values)
    except ValidationError as error:
        problems += [_explain(dict(problem)) for problem in error.errors()]
    if problems:
        raise SettingsError("; ".join(problems))
    return settings


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _explain(problem: Mapping[str, Any]) -> str:
    """One validation problem in the operator's terms."""
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    field = str(problem["loc"][0])
    value = "..." if field in _SECRET else repr(problem["input"])
    return f"{PREFIX}{field.upper()}={value}: {message}"
