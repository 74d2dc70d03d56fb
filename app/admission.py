"""What turns uploads away under overload before they cost more than that.

Of several times the capacity nearly everything has to be refused, on the event loop that also
serves the rest and answers probes. So the protocol asks here as soon as a request's head is
complete: the app would cost it a task, and the answer's way through every layer.
"""

import asyncio
from collections import Counter
from functools import lru_cache
from urllib.parse import parse_qsl

from app.errors import ServiceError, UnknownModel
from app.headers import Headers, header
from app.problems import problem_bytes
from app.reports import Reports
from app.service import Service
from app.trace import Trace, request_id

_PATHS = {b"/classify": "/classify", b"/purify": "/purify"}


class Admission:
    """Judges uploads by their heads: whether their model's queue has room.

    It asks for no key and counts nothing against a rate, so it is not for services that do.

    Args:
        service: whose queues they go to.
        admin_port: where there are no uploads.
    """

    def __init__(self, service: Service, admin_port: int | None = None) -> None:
        self._service = service
        self._admin_port = admin_port
        self._reports = Reports(service.metrics)
        self._coming: Counter[str] = Counter()

    def refuse(self, port: int | None, method: bytes, url: bytes, headers: Headers) -> bytes | None:
        """The whole answer to a head that is refused, on a connection that stays open.

        Args:
            port: that the request came to; None for a socket without one.
            method: the request's.
            url: its path and query, as they came.
            headers: the request's, names in lower case.

        Returns:
            None if the request may come in.
        """
        path, _, query = url.partition(b"?")
        route = _PATHS.get(path)
        if route is None or method != b"POST" or b"#" in query:
            return None
        if port is not None and port == self._admin_port:
            return None
        try:
            model = self._service.catalog.find(_selector_in(query))
            self._service.admit(model, 1 + self._coming[model.key])
        except UnknownModel:
            return None  # the route says so
        except ServiceError as refusal:
            trace = Trace(request_id(header(headers, b"x-request-id")), model=model.key)
            trace.error = refusal.code
            self._reports.ended(trace, "POST", route, refusal.status)
            return problem_bytes(refusal, trace.headers())
        self._expect(model.key)
        return None

    def _expect(self, model: str) -> None:
        """Count an upload that is let in until it can have taken its place.

        Of many heads that arrive in one turn of the loop none takes a place before the next turn,
        which begins with those that were let in.
        """
        if not self._coming:
            asyncio.get_running_loop().call_soon(self._coming.clear)
        self._coming[model] += 1


@lru_cache(64)
def _selector_in(query: bytes) -> str | None:
    """The model that a query asks for, percent-encoded or not: the same as the route will find."""
    return dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)).get("model")
