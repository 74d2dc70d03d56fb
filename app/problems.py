"""Failures as answers: `application/problem+json` (RFC 9457), for every failure there is."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import formatdate
from functools import lru_cache
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.errors import InvalidParameter, MethodNotAllowed, NotFound, ServiceError
from app.headers import Headers, with_security
from app.trace import Trace

MEDIA_TYPE = "application/problem+json"

_PROTOCOL_PATH = "/v2/"

# More of them help nobody, and how many there are is the sender's choice.
_MAX_ERRORS = 10

Handler = Callable[[Request, Any], Awaitable[Response]]


def problem_response(error: ServiceError) -> Response:
    """The answer to a failed request."""
    return Response(
        orjson.dumps(error.problem()), error.status, error.headers, media_type=MEDIA_TYPE
    )


def problem_bytes(error: ServiceError, headers: Headers) -> bytes:
    """The same as the bytes of a whole answer, for a request that the app never sees.

    Args:
        error: the failure.
        headers: beside those that every answer has.
    """
    body = orjson.dumps(error.problem())
    head = _head(error.status, error.title, tuple(error.headers.items()), len(body))
    own = [(b"date", _date(int(time.time()))), *headers]
    return b"".join([head, *(b"%s: %s\r\n" % item for item in own), b"\r\n", body])


@lru_cache(1)
def _date(second: int) -> bytes:
    """A moment as HTTP writes it; `second` by `time.time()`."""
    return formatdate(second, usegmt=True).encode()


@lru_cache(64)
def _head(
    status: int, title: str, own_headers: tuple[tuple[str, str], ...], length_bytes: int
) -> bytes:
    """An answer's head up to the headers of one request; under overload thousands are the same."""
    own = [
        (b"content-type", MEDIA_TYPE.encode()),
        *((name.lower().encode(), value.encode()) for name, value in own_headers),
        (b"content-length", str(length_bytes).encode()),
    ]
    lines = b"".join(b"%s: %s\r\n" % item for item in with_security(own))
    return f"HTTP/1.1 {status} {title}\r\n".encode() + lines


def install_problem_handlers(app: FastAPI) -> None:
    """Answer the service's own errors, the framework's, and refused parameters alike."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(Exception, _unexpected)


def answered(request: Request, error: ServiceError) -> Response:
    """The answer to a failed request, noted in its trace."""
    trace = request.scope.get("trace")
    if isinstance(trace, Trace):
        trace.error = error.code
    return problem_response(for_protocol(error, request.scope["path"]))


def for_protocol(error: ServiceError, path: str) -> ServiceError:
    """The error, with the member that clients of the Open Inference Protocol read on its paths."""
    if path.startswith(_PROTOCOL_PATH):
        error.extra["error"] = error.detail or error.title
    return error


def invalid_parameters(errors: Sequence[Mapping[str, Any]]) -> InvalidParameter:
    """What Pydantic found wrong with parameters; each is named by the last of its `loc`."""
    found = [
        {"parameter": str(problem["loc"][-1])[:100], "message": problem["msg"]}
        for problem in errors[:_MAX_ERRORS]
    ]
    detail = "; ".join(f"{entry['parameter']}: {entry['message']}" for entry in found)
    return InvalidParameter(detail, extra={"errors": found})


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return answered(request, error)


async def _http_error(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: unknown routes and methods."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        problem: ServiceError = MethodNotAllowed(
            f"{request.method[:20]} is not possible here.", headers=error.headers
        )
    elif error.status_code == 404:
        problem = NotFound("There is no such route; see /docs.")
    else:
        raise error
    return answered(request, problem)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return answered(request, invalid_parameters(error.errors()))


async def _unexpected(request: Request, error: Exception) -> Response:
    """The answer tells nothing; the middleware puts the error into the log."""
    return answered(request, ServiceError())
