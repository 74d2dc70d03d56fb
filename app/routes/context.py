"""What a route needs of its request: the service, the trace, the uploaded images."""

import math
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, Self

from fastapi import Header
from starlette.requests import Request

from app.budget import ByteHold
from app.catalog import Model
from app.repository import Repository
from app.service import Inference, Service, Wanted
from app.trace import Trace
from app.uploads import UploadLimits, Uploads, read_uploads

# Longer than a day nobody waits; the limit keeps the number a number of seconds.
TimeoutMs = Annotated[
    int | None,
    Header(
        alias="X-Request-Timeout-Ms",
        ge=1,
        le=86_400_000,
        description=(
            "milliseconds, from the request's head, after which the answer is of no use: it is "
            "dropped before it costs compute, and answered with 504"
        ),
    ),
]


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the app hands to its routes, as `app.state.wiring`."""

    service: Service
    repository: Repository
    upload_limits: UploadLimits
    workers: int


def wiring_of(request: Request) -> Wiring:
    """What the app was built with."""
    wiring = request.app.state.wiring
    assert isinstance(wiring, Wiring)
    return wiring


def trace_of(request: Request) -> Trace:
    """The request's notes."""
    trace = request.scope["trace"]
    assert isinstance(trace, Trace)
    return trace


class Exchange:
    """One request for inference: its model, its images, its deadline.

    A context manager: on leaving, the bytes that the request held are given back.

    Args:
        request: the request; its body has not been read.
        selector: `name`, `name@version` or None.
        timeout_ms: what the client waits from now on, None if it does not say.

    Raises:
        UnknownModel: there is no such model.

    Attributes:
        model: the one selected; settled once the body is there.
        deadline: when the answer must be ready, by the client's word; once the body is there, by
            the service's own as well.
        read_s: what reading the body took.
    """

    def __init__(
        self, request: Request, selector: str | None, timeout_ms: int | None = None
    ) -> None:
        self._request = request
        self._wiring = wiring_of(request)
        self._trace = trace_of(request)
        self._selector = selector
        self.service = self._wiring.service
        self.model: Model = self.service.catalog.find(selector)
        self._trace.model = self.model.key
        self._hold = ByteHold(self.service.budget)
        patience_s = math.inf if timeout_ms is None else timeout_ms / 1000
        self.deadline = time.monotonic() + patience_s
        self.read_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._hold.__exit__(kind, error, traceback)

    async def read(self) -> Uploads:
        """The request's image files; overload is refused before any of the body is read.

        Raises:
            UnknownModel: the model was unloaded meanwhile.
        """
        started = time.perf_counter()
        self.service.admit(self.model)
        uploads = await read_uploads(self._request, self._wiring.upload_limits, self._hold)
        # The model may have been replaced meanwhile. From here to the queue nothing waits, and what
        # is queued is answered by the model it was queued for.
        self.model = self.service.catalog.find(self._selector)
        self._trace.model = self.model.key
        self.deadline = min(self.deadline, self.service.deadline())
        self.read_s = time.perf_counter() - started
        self.service.observe(self.model, "read", self.read_s, self._trace)
        self._trace.images = len(uploads.contents)
        return uploads

    async def infer(self, uploads: Uploads, wanted: Wanted) -> list[Inference]:
        """What is wanted of each image."""
        return await self.service.infer(
            uploads.contents,
            self.model,
            wanted,
            deadline=self.deadline,
            gone=self._gone,
            trace=self._trace,
            hold=self._hold,
        )

    def encoded(self, started: float) -> None:
        """Note that the answer is written, which began at `time.perf_counter()` `started`."""
        self.service.observe(self.model, "encode", time.perf_counter() - started, self._trace)

    async def _gone(self) -> None:
        """Return when the client has hung up."""
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
