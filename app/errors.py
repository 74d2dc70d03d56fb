"""What can go wrong with a request: one tree, each class with its true status and a stable code."""

from collections.abc import Mapping
from typing import ClassVar


class ServiceError(Exception):
    """A request that cannot be answered as asked.

    Args:
        detail: what was wrong, safe to show to the caller.
        headers: response headers that belong to the failure.
        extra: members added to the problem document.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """Keep what the answer needs; see the class."""
        super().__init__(detail or self.title)
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    def problem(self) -> dict[str, object]:
        """The answer's body, a problem document (RFC 9457)."""
        document: dict[str, object] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "code": self.code,
        }
        if self.detail:
            document["detail"] = self.detail
        return document | self.extra


class EmptyBody(ServiceError):
    """The request has no body."""

    status, code, title = 400, "empty_body", "The body is empty"


class MalformedMultipart(ServiceError):
    """The body is not the multipart form that its content type promises."""

    status, code, title = 400, "malformed_multipart", "The multipart body is malformed"


class MalformedRequest(ServiceError):
    """What came over the connection is not HTTP; the connection is closed."""

    status, code, title = 400, "malformed_request", "The request is malformed"


class Unauthorized(ServiceError):
    """No API key, or not one of ours."""

    status, code, title = 401, "unauthorized", "An API key is needed"


class AdminDisabled(ServiceError):
    """An admin route of a service without an admin key."""

    status, code, title = 403, "admin_disabled", "The admin routes are closed"


class NotFound(ServiceError):
    """No such route."""

    status, code, title = 404, "not_found", "No such resource"


class UnknownModel(ServiceError):
    """No such bundle, or not that version of it."""

    status, code, title = 404, "unknown_model", "No such model"


class MethodNotAllowed(ServiceError):
    """The route exists, but not for this method."""

    status, code, title = 405, "method_not_allowed", "Method not allowed"


class NotAcceptable(ServiceError):
    """The `Accept` header leaves no answer to give."""

    status, code, title = 406, "not_acceptable", "No acceptable representation"


class RequestTimeout(ServiceError):
    """The client took too long to send its request."""

    status, code, title = 408, "request_timeout", "The request took too long to arrive"


class SingleWorkerOnly(ServiceError):
    """What would reach only one of several workers."""

    status, code, title = 409, "single_worker_only", "Not possible with several workers"


class BodyTooLarge(ServiceError):
    """An image, the whole body, or what is held of a request has more bytes than allowed."""

    status, code, title = 413, "body_too_large", "The body is too large"


class TooManyPixels(ServiceError):
    """An image's header announces more pixels than allowed."""

    status, code, title = 413, "too_many_pixels", "The image has too many pixels"


class TooManyImages(ServiceError):
    """One request carries more images, or form parts, than allowed."""

    status, code, title = 413, "too_many_images", "Too many images in one request"


class UnsupportedFormat(ServiceError):
    """A file of a known format that is not accepted."""

    status, code, title = 415, "unsupported_format", "The image format is not supported"


class UnsupportedContentType(ServiceError):
    """The request's content type is neither an image's nor a multipart form's."""

    status, code, title = 415, "unsupported_content_type", "The content type is not supported"


class MissingFile(ServiceError):
    """A multipart form without a `file` part."""

    status, code, title = 422, "missing_file", "The form has no file"


class NotAnImage(ServiceError):
    """Bytes that are no image."""

    status, code, title = 422, "not_an_image", "The file is not an image"


class CorruptImage(ServiceError):
    """An image that is truncated, broken, or cannot be interpreted."""

    status, code, title = 422, "corrupt_image", "The image cannot be decoded"


class InvalidParameter(ServiceError):
    """A parameter with an impossible value."""

    status, code, title = 422, "invalid_parameter", "A parameter is invalid"


class BundleRefused(ServiceError):
    """A bundle on disk that is not whole; what was served before serves on."""

    status, code, title = 422, "bundle_refused", "The bundle cannot be loaded"


class RateLimited(ServiceError):
    """The client asks more often than allowed."""

    status, code, title = 429, "rate_limited", "Too many requests"


class HeadersTooLarge(ServiceError):
    """The request line and headers, or the trailers, have more bytes than allowed."""

    status, code, title = 431, "headers_too_large", "The headers are too large"


class ClientGone(ServiceError):
    """The client hung up; never sent, only logged and counted."""

    status, code, title = 499, "client_gone", "The client closed the connection"


class InferenceFailed(ServiceError):
    """The model failed on this image."""

    status, code, title = 500, "inference_failed", "Inference failed"


class QueueFull(ServiceError):
    """The queue has no room."""

    status, code, title = 503, "queue_full", "The queue is full"


class NotReady(ServiceError):
    """The service is starting or shutting down."""

    status, code, title = 503, "not_ready", "The service is not ready"


class TooManyConnections(ServiceError):
    """All connections are taken by others."""

    status, code, title = 503, "too_many_connections", "Too many connections"


class NotLive(ServiceError):
    """Inference hangs or has failed for good: only a new process helps."""

    status, code, title = 503, "not_live", "The service must be restarted"


class OutOfMemory(ServiceError):
    """There was not enough memory for this image."""

    status, code, title = 503, "out_of_memory", "Out of memory"


class DeadlineExceeded(ServiceError):
    """The request's time was up before its answer was ready."""

    status, code, title = 504, "deadline_exceeded", "The deadline was exceeded"
