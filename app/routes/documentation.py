"""The parts of the OpenAPI document that the framework cannot derive."""

from typing import Any

from app.errors import (
    BodyTooLarge,
    CorruptImage,
    DeadlineExceeded,
    EmptyBody,
    InferenceFailed,
    InvalidParameter,
    MalformedMultipart,
    MissingFile,
    NotAcceptable,
    NotAnImage,
    NotReady,
    OutOfMemory,
    QueueFull,
    RequestTimeout,
    ServiceError,
    TooManyImages,
    TooManyPixels,
    UnknownModel,
    UnsupportedContentType,
    UnsupportedFormat,
)
from app.problems import MEDIA_TYPE

Document = dict[str, Any]

UPLOAD_ERRORS: tuple[type[ServiceError], ...] = (
    EmptyBody,
    MalformedMultipart,
    UnknownModel,
    RequestTimeout,
    BodyTooLarge,
    TooManyPixels,
    TooManyImages,
    UnsupportedContentType,
    UnsupportedFormat,
    MissingFile,
    NotAnImage,
    CorruptImage,
    InvalidParameter,
    InferenceFailed,
    QueueFull,
    NotReady,
    OutOfMemory,
    DeadlineExceeded,
)
PURIFY_ERRORS = (*UPLOAD_ERRORS, NotAcceptable)

_BINARY: Document = {"type": "string", "format": "binary"}

UPLOAD_BODY: Document = {
    "requestBody": {
        "required": True,
        "description": (
            "One image as the body itself, or a form with one or several parts named `file`. "
            "PNG, JPEG, WebP, BMP or PNM of any size within the limits; told apart by their "
            "content, whatever the content type says."
        ),
        "content": {
            "image/*": {"schema": _BINARY},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "array", "items": _BINARY, "minItems": 1}},
                    "additionalProperties": False,
                }
            },
        },
    }
}


def problems(*errors: type[ServiceError]) -> dict[int | str, Document]:
    """Responses for these failures, one a status, with the codes that it can carry."""
    by_status: dict[int, list[type[ServiceError]]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return {
        status: {
            "description": "; ".join(f"`{error.code}`: {error.title}" for error in same),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, same in sorted(by_status.items())
    }
