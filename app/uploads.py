"""Request bodies: raw images and multipart forms, read in bounded memory.

A body is counted while it arrives, so its size is bounded whatever `Content-Length` says or omits.
Forms are parsed as they come, in memory: nothing is spooled to disk, and parts that are not wanted
are not kept.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.budget import ByteHold
from app.errors import (
    BodyTooLarge,
    ClientGone,
    EmptyBody,
    InvalidParameter,
    MalformedMultipart,
    MissingFile,
    RequestTimeout,
    ServiceError,
    TooManyImages,
    UnsupportedContentType,
)
from app.headers import header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# Parts of a form that are no files are an error in the end, but one the sender should be told of.
_SPARE_PARTS = 8


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What one request may carry; see the settings of the same names."""

    max_image_bytes: int
    max_request_bytes: int
    max_request_images: int


@dataclass(frozen=True, slots=True)
class Uploads:
    """The images of one request, as files.

    Attributes:
        several: the answer is a list, because the form held more than one file.
    """

    contents: list[bytes]

    @property
    def several(self) -> bool:
        """Whether a list is to be answered."""
        return len(self.contents) > 1


async def read_uploads(request: Request, limits: UploadLimits, hold: ByteHold) -> Uploads:
    """The image files that a request carries, at least one.

    Args:
        request: nothing of its body has been read.
        limits: of this request.
        hold: counts what is kept; in the end the bytes of the files.

    Raises:
        EmptyBody: there is no body.
        UnsupportedContentType: neither `image/*` nor `multipart/form-data`.
        BodyTooLarge: an image or the whole form has too many bytes.
        MalformedMultipart: the form cannot be parsed.
        MissingFile: the form has no `file`, or an empty one.
        InvalidParameter: the form has other parts too.
        TooManyImages: the form has too many parts.
        QueueFull: its bytes have no place beside those of the other requests.
        ClientGone: the client hung up on the way.
        RequestTimeout: the client was too slow.
    """
    content_type = header(request.scope["headers"], b"content-type") or ""
    kind = content_type.partition(";")[0].strip().lower()
    announced = _announced_length(request)
    if announced == 0:
        raise EmptyBody("Send an image as the body, or a form with a part named 'file'.")
    if kind.startswith("image/"):
        return Uploads([await _read_raw(request, announced, limits.max_image_bytes, hold)])
    if kind == "multipart/form-data":
        return Uploads(await _read_form(request, content_type, announced, limits, hold))
    raise UnsupportedContentType(
        f"Send image/* or multipart/form-data, not {kind[:100] or 'a body without a content type'}."
    )


def _announced_length(request: Request) -> int | None:
    """`Content-Length`; 0 without a body, None for a chunked one."""
    length = header(request.scope["headers"], b"content-length")
    if length is None:
        return None if header(request.scope["headers"], b"transfer-encoding") else 0
    return int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None


def broken_off(request: Request) -> ServiceError:
    """Why a body did not come to its end: its client was too slow, or hung up."""
    timed_out = request.scope.get("state", {}).get("timed_out")
    return RequestTimeout() if timed_out else ClientGone()


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """The body as it arrives; a client that hangs up or is too slow is told apart from an end."""
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise broken_off(request)
        if chunk := message.get("body"):
            yield chunk
        more = message.get("more_body", False)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"An image may have {limit} bytes.")


async def _read_raw(request: Request, announced: int | None, limit: int, hold: ByteHold) -> bytes:
    if announced is not None and announced > limit:
        raise _too_large(limit)
    hold.expect(announced or 0)
    chunks: list[bytes] = []
    size = 0
    async for chunk in _chunks(request):
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        hold.add(len(chunk))
        chunks.append(chunk)
    if not size:
        raise EmptyBody("Send an image as the body.")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _read_form(
    request: Request,
    content_type: str,
    announced: int | None,
    limits: UploadLimits,
    hold: ByteHold,
) -> list[bytes]:
    too_large = BodyTooLarge(f"A form may have {limits.max_request_bytes} bytes.")
    if announced is not None and announced > limits.max_request_bytes:
        raise too_large
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise MalformedMultipart("The content type names no boundary.")
    hold.expect(announced or 0)
    form = _Form(limits)
    size = 0
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in _chunks(request):
            size += len(chunk)
            if size > limits.max_request_bytes:
                raise too_large
            before = form.kept_bytes
            parser.write(chunk)
            hold.add(form.kept_bytes - before)
    except FormParserError as error:
        raise MalformedMultipart("The form cannot be parsed.") from error
    if not size:
        raise EmptyBody("Send a form with a part named 'file'.")
    return form.files()


@dataclass(slots=True)
class _Form:
    """What the parser's callbacks gather: the parts named `file`, and the names of the others.

    Attributes:
        kept_bytes: of the files.
    """

    limits: UploadLimits
    kept_bytes: int = 0
    _files: list[bytearray] = field(default_factory=list)
    _others: list[str] = field(default_factory=list)
    _header: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _name: str = ""
    _ended: bool = False

    def callbacks(self) -> "MultipartCallbacks":
        """The callbacks, by the names the parser knows them under."""
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_end": self._on_end,
        }

    def files(self) -> list[bytes]:
        """The files of the complete form."""
        if not self._ended:
            raise MalformedMultipart("The form ends before its closing boundary.")
        if not self._files:
            raise MissingFile("The form needs a part named 'file'.")
        if self._others:
            raise InvalidParameter(
                f"The form takes parts named 'file' only, not {self._others[0]!r}; "
                "parameters belong into the query."
            )
        if not all(self._files):
            raise MissingFile("A part named 'file' is empty.")
        return [bytes(file) for file in self._files]

    def _on_part_begin(self) -> None:
        self._name = ""
        parts = len(self._files) + len(self._others)
        if parts >= self.limits.max_request_images + _SPARE_PARTS:
            raise TooManyImages(f"A form may have {self.limits.max_request_images} files.")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            name = parse_options_header(bytes(self._value))[1].get(b"name", b"")
            self._name = name.decode("utf-8", "replace")
        self._header.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        if self._name != "file":
            self._others.append(self._name[:50])
        elif len(self._files) >= self.limits.max_request_images:
            raise TooManyImages(f"A form may have {self.limits.max_request_images} files.")
        else:
            self._files.append(bytearray())

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name != "file":
            return
        file = self._files[-1]
        if len(file) + end - start > self.limits.max_image_bytes:
            raise _too_large(self.limits.max_image_bytes)
        file += memoryview(data)[start:end]
        self.kept_bytes += end - start

    def _on_end(self) -> None:
        self._ended = True
