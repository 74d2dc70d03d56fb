"""What turns uploads away under overload before they cost more than that.

Of several times the capacity nearly everything has to be refused, on the event loop that also
serves the rest and answers probes. So the protocol asks here as soon as a request's head is
complete: the app would cost it a task, and the answer's way through every layer.
"""

import asyncio
from functools import lru_cache
from urllib.parse import parse_qs

import orjson

from app.budget import RETRY_AFTER
from app.errors import ServiceError, UnknownModel
from app.headers import header, with_security
from app.problems import MEDIA_TYPE
from app.reports import Reports
from app.service import Service
from app.trace import Trace, request_id

_PATHS = {b"/classify": "/classify", b"/purify": "/purify"}


class Admission:
    """Judges uploads by their heads: whether their model's queue has room.

    Args:
        service: whose queues they go to.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._reports = Reports(service.metrics)
        self._coming = 0

    def refuse(self, method: bytes, url: bytes, headers: list[tuple[bytes, bytes]]) -> bytes | None:
        """The whole answer to a head that is refused, on a connection that stays open.

        None: the request may come in. It is counted and logged as every other.
        """
        if method != b"POST":
            return None
        path, _, query = url.partition(b"?")
        route = _PATHS.get(path)
        if route is None:
            return None
        refusal = self._refusal(query)
        if refusal is None:
            self._expect_one()
            return None
        trace = Trace(request_id(header(headers, b"x-request-id")), error=refusal.code)
        self._reports.ended(trace, "POST", route, refusal.status)
        body = orjson.dumps(refusal.problem())
        head = _head(refusal.status, refusal.title, len(body))
        return b"".join((head, trace.request_id.encode(), b"\r\n\r\n", body))

    def _refusal(self, query: bytes) -> ServiceError | None:
        """Why an upload with this query is refused; None if it may come in."""
        selector = None
        if b"model" in query:  # not where it is percent-encoded: the route will look closely
            selector = parse_qs(query.decode("latin-1")).get("model", [None])[-1]
        try:
            self._service.admit(self._service.catalog.find(selector), 1 + self._coming)
        except UnknownModel:
            return None  # the route says so
        except ServiceError as refusal:
            return refusal
        return None

    def _expect_one(self) -> None:
        """Count an upload that is let in until it can have taken its place.

        Of many heads that arrive in one turn of the loop none takes a place before the next turn,
        which begins with those that were let in.
        """
        if not self._coming:
            asyncio.get_running_loop().call_soon(self._expect_none)
        self._coming += 1

    def _expect_none(self) -> None:
        self._coming = 0


@lru_cache(maxsize=64)
def _head(status: int, title: str, body_bytes: int) -> bytes:
    """The head of an answer, up to the request's id."""
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        *((name.lower().encode(), value.encode()) for name, value in RETRY_AFTER.items()),
        (b"content-length", b"%d" % body_bytes),
    ]
    lines = b"".join(b"%s: %s\r\n" % item for item in with_security(headers))
    return f"HTTP/1.1 {status} {title}\r\n".encode() + lines + b"x-request-id: "
