"""Requests with images, answered without the framework's routing.

The framework looks for its route, its parameters and its dependencies anew for each request, which
takes more time than the service's own work on a small image. Its routes are registered all the
same: they are the documentation, and they answer every other method.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self
from urllib.parse import parse_qsl

from fastapi.routing import APIRoute, APIRouter
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import ServiceError
from app.headers import header
from app.keys import Check
from app.problems import answered, invalid_parameters
from app.routes.context import TimeoutMs

_TIMEOUT_HEADER = "X-Request-Timeout-Ms"
_TIMEOUT: TypeAdapter[int | None] = TypeAdapter(TimeoutMs)

# Clients repeat few of them; longer ones are parsed each time, so that nobody fills the memory.
_REMEMBERED = 256
_REMEMBERED_BYTES = 256


@dataclass(frozen=True, slots=True)
class DirectRoute:
    """A route for images, as it is registered, and the model of its query.

    Attributes:
        route: its endpoint takes the request, the query and the client's timeout.
        query: what the endpoint takes as the query.
    """

    route: APIRoute
    query: type[BaseModel]

    @classmethod
    def only(cls, router: APIRouter, query: type[BaseModel]) -> Self:
        """The only route of a router."""
        (route,) = router.routes
        assert isinstance(route, APIRoute)
        assert not route.dependencies  # they would be passed by as well
        return cls(route, query)


class DirectRoutes:
    """Answers POST on some paths itself and hands everything else on.

    Args:
        app: what the endpoints find as `request.app`.
        rest: answers everything else.
        routes: each with one path.
        check: of every request.
    """

    def __init__(
        self,
        app: Starlette,
        rest: ASGIApp,
        routes: Iterable[DirectRoute],
        check: Check | None = None,
    ) -> None:
        self._app = app
        self._rest = rest
        self._routes = {direct.route.path: direct for direct in routes}
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        direct = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if direct is None or scope["method"] != "POST" or scope.get("root_path"):
            await self._rest(scope, receive, send)
            return
        scope["app"], scope["route"] = self._app, direct.route
        request = Request(scope, receive)
        try:
            if self._check is not None:
                self._check.check(request)
            query, timeout_ms = _parameters(direct.query, scope)
            endpoint: Callable[..., Awaitable[Response]] = direct.route.endpoint
            response = await endpoint(request, query, timeout_ms)
        except ServiceError as error:
            response = answered(request, error)
        except Exception:
            # Within the layers, as the framework does it; the outermost puts it into the log.
            await answered(request, ServiceError())(scope, receive, send)
            raise
        await response(scope, receive, send)


def _parameters(model: type[BaseModel], scope: Scope) -> tuple[BaseModel | None, int | None]:
    """The query, of a repeated parameter the last, and what the client says it waits.

    Raises:
        InvalidParameter: of all that are wrong in either.
    """
    found: list[Mapping[str, Any]] = []
    query, timeout_ms = None, None
    text: bytes = scope["query_string"]
    try:
        query = (_remembered if len(text) <= _REMEMBERED_BYTES else _parsed)(model, text)
    except ValidationError as error:
        found += error.errors()
    told = header(scope["headers"], _TIMEOUT_HEADER.lower().encode())
    try:
        timeout_ms = None if told is None else _TIMEOUT.validate_python(told)
    except ValidationError as error:
        found += [{**problem, "loc": (_TIMEOUT_HEADER,)} for problem in error.errors()]
    if found:
        raise invalid_parameters(found)
    return query, timeout_ms


def _parsed(model: type[BaseModel], query: bytes) -> BaseModel:
    return model.model_validate(dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)))


_remembered = lru_cache(_REMEMBERED)(_parsed)
