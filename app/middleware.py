"""What surrounds every request: its id, its timing, its count, its line in the log."""

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ServiceError
from app.headers import header, with_security
from app.metrics import Metrics
from app.problems import problem_response
from app.reports import Reports
from app.trace import Trace, request_id
from app.tracing import Spans

logger = logging.getLogger(__name__)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMiddleware:
    """Puts a `Trace` into each request's scope, and reports it when the request ends.

    Pure ASGI: bodies and answers pass through untouched.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, spans: Spans | None = None) -> None:
        self._app = app
        self._metrics = metrics
        self._spans = spans
        self._reports = Reports(metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = Trace(request_id(header(scope["headers"], b"x-request-id")))
        if self._spans is not None:
            trace.spans = []
        scope["trace"] = trace
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*with_security(message["headers"]), *trace.headers()]
            await send(message)

        self._metrics.inflight.inc()
        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            # Told once, here; the answer says nothing of it.
            logger.exception(
                "unexpected failure", extra={"fields": {"request_id": trace.request_id}}
            )
            trace.error = ServiceError.code
            if not status:
                await problem_response(ServiceError())(scope, receive, send_with_headers)
        finally:
            self._metrics.inflight.dec()
            self._report(scope, trace, status)

    def _report(self, scope: Scope, trace: Trace, status: int) -> None:
        # The route's pattern: paths and methods are the client's choice and would grow the metrics.
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        ended = self._reports.ended(trace, method, route, status)
        if self._spans is not None:
            self._spans.write(scope, trace, f"{method} {route}", status, ended)
