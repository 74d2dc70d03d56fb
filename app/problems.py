"""Failures as answers: `application/problem+json` (RFC 9457), for every failure there is."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.errors import InvalidParameter, MethodNotAllowed, NotFound, ServiceError
from app.trace import Trace

MEDIA_TYPE = "application/problem+json"

# More of them help nobody, and how many there are is the sender's choice.
_MAX_ERRORS = 10

Handler = Callable[[Request, Any], Awaitable[Response]]


def problem_response(error: ServiceError) -> Response:
    """The answer to a failed request."""
    return Response(
        orjson.dumps(error.problem()), error.status, error.headers, media_type=MEDIA_TYPE
    )


def install_problem_handlers(app: FastAPI) -> None:
    """Answer the service's own errors, the framework's, and refused parameters alike."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    trace = request.scope.get("trace")
    if isinstance(trace, Trace):
        trace.error = error.code
    return problem_response(error)


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
    return await _service_error(request, problem)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [
        {"parameter": str(problem["loc"][-1])[:100], "message": problem["msg"]}
        for problem in error.errors()[:_MAX_ERRORS]
    ]
    detail = "; ".join(f"{entry['parameter']}: {entry['message']}" for entry in found)
    return await _service_error(request, InvalidParameter(detail, extra={"errors": found}))
