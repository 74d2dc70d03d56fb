"""Two doors: what administration needs can answer on a port of its own."""

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import NotFound
from app.problems import answered

# Paths, and whatever lies below them. Routes are matched against the same string, exactly.
_ADMINISTRATION = ("/metrics", "/v2/repository")
_BOTH = ("/health",)


class PortMiddleware:
    """Hides administration from the main port, and everything else from the admin port.

    Args:
        app: what answers.
        admin_port: the local port, which a request cannot choose: it is its connection's, told by
            the socket and by no header.
    """

    def __init__(self, app: ASGIApp, admin_port: int) -> None:
        self._app = app
        self._admin_port = admin_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or say that there is no such route."""
        if scope["type"] != "http" or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        response = answered(Request(scope), NotFound("There is no such route."))
        await response(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"]
        if _below(path, _BOTH):
            return True
        server = scope.get("server")
        on_admin_port = server is not None and server[1] == self._admin_port
        return on_admin_port == _below(path, _ADMINISTRATION)


def _below(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(f"{root}/") for root in roots)
