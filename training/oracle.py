"""A running service as an outsider has it: images go in as 8-bit PNG, scores come out."""

import io
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from app.bundle import InputSpec
from training.attacks import Norm
from training.client import Client, ServiceFailure

Pixels = npt.NDArray[np.uint8]  # (N, C, H, W)
_Told = TypeVar("_Told", bound=BaseModel)


class _Version(BaseModel):
    version: int
    labels: tuple[str, ...] = Field(min_length=2)
    input: InputSpec


class _Bundle(BaseModel):
    name: str
    served_version: int
    versions: tuple[_Version, ...]


class _Models(BaseModel):
    default: str
    models: tuple[_Bundle, ...]


class _Card(BaseModel):
    norm: str | None = None
    epsilon: float | None = None


class _Judged(BaseModel):
    version: int
    card: _Card | None


class _Detail(BaseModel):
    versions: tuple[_Judged, ...]


class _Probability(BaseModel):
    label: str
    probability: float = Field(ge=0, le=1)


class Answer(BaseModel):
    """What the service says of one image, as far as an attack needs it."""

    label: str
    top: tuple[_Probability, ...] = Field(min_length=2)  # most probable first
    purified: bool

    @property
    def best(self) -> tuple[float, float]:
        """Probabilities of the label and of the next class."""
        return self.top[0].probability, self.top[1].probability


_ANSWERS = TypeAdapter(tuple[Answer, ...])


@dataclass
class Oracle:
    """One version of one bundle of a service.

    Args:
        client: of the service.
        name: of the bundle.
        version: of the bundle; asked for by number, so that it cannot change in between.
        labels: of the classes, in order.
        spec: the size in which images are sent, so that nothing resizes them.
        purify: whether the purifier stands before the classifier.
        per_request: images in one request, at most; fewer if the service says so.
    """

    client: Client
    name: str
    version: int
    labels: tuple[str, ...]
    spec: InputSpec
    purify: bool
    per_request: int = 32

    @classmethod
    def of(cls, client: Client, model: str | None, *, purify: bool) -> "Oracle":
        """The bundle `name` or `name@version`; None is the default one.

        Raises:
            ServiceFailure: the service has no such model, or is no Limbeck.
        """
        models = _told(client, "/models", _Models)
        name, _, number = (model or models.default).partition("@")
        for bundle in models.models:
            for version in bundle.versions:
                if bundle.name == name and str(version.version) == (
                    number or str(bundle.served_version)
                ):
                    return cls(client, name, version.version, version.labels, version.input, purify)
        there = ", ".join(f"{b.name}@{v.version}" for b in models.models for v in b.versions)
        raise ServiceFailure(f"{client.address} has no model {model!r}; it has {there}")

    def epsilon_of_card(self, norm: Norm) -> float | None:
        """The radius that its robustness card speaks of; None without a card in this norm.

        Raises:
            ServiceFailure: the service does not answer, or is no Limbeck.
        """
        for judged in _told(self.client, f"/models/{self.name}", _Detail).versions:
            if judged.version == self.version and judged.card and judged.card.norm == norm:
                return judged.card.epsilon
        return None

    def __str__(self) -> str:
        purified = "purified" if self.purify else "not purified"
        return f"{self.client.address}, {self.name}@{self.version}, {purified}"

    def ask(self, images: Pixels) -> Iterator[tuple[slice, tuple[Answer, ...]]]:
        """The answers to the images, request by request, each with the rows that it is about.

        Raises:
            ServiceFailure: the service does not answer.
            OutOfTime: the time is over.
        """
        start = 0
        while start < len(images):
            rows = slice(start, min(start + self.per_request, len(images)))
            try:
                answers = self._answers(images[rows])
            except ServiceFailure as failure:
                if failure.code != "too_many_images" or self.per_request == 1:
                    raise
                self.per_request //= 2
                continue
            yield rows, answers
            start = rows.stop

    def _answers(self, images: Pixels) -> tuple[Answer, ...]:
        """The answers to the images of one request."""
        # While an image stands its own class is the best one: two classes give its margin.
        query = urlencode(
            {
                "model": f"{self.name}@{self.version}",
                "purify": str(self.purify).lower(),
                "top_k": 2,
            }
        )
        body, content_type = _form([png(image) for image in images])
        found = self.client.post(f"/classify?{query}", body, content_type)
        try:
            answers = _ANSWERS.validate_python(found if isinstance(found, list) else [found])
        except ValidationError as error:
            raise ServiceFailure(f"{self.client.address} is no Limbeck: odd answer") from error
        if len(answers) != len(images) or any(a.purified != self.purify for a in answers):
            raise ServiceFailure(f"{self.client.address} answers something else than was asked")
        return answers


def _told(client: Client, path: str, kind: type[_Told]) -> _Told:
    """What the service tells there, as far as an attack needs it."""
    try:
        return kind.model_validate(client.get(path))
    except ValidationError as error:
        raise ServiceFailure(f"{client.address} is no Limbeck: {path} is another") from error


def png(image: Pixels) -> bytes:
    """The PNG of an image (C, H, W) of one or three channels."""
    file = io.BytesIO()
    pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    Image.fromarray(pixels).save(file, "png", compress_level=1)
    return file.getvalue()


def _form(files: Sequence[bytes]) -> tuple[bytes, str]:
    """A multipart form of the files, and its content type."""
    boundary = uuid.uuid4().hex
    head = (
        f"--{boundary}\r\n"
        'Content-Disposition: form-data; name="file"; filename="image.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode()
    body = b"".join(head + file + b"\r\n" for file in files) + f"--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"
