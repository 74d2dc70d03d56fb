"""What a route needs of its request: the service, the trace, the uploaded images."""

import time
from dataclasses import dataclass

from starlette.requests import Request

from app.catalog import Model
from app.service import Inference, Service, Wanted
from app.trace import Trace
from app.uploads import UploadLimits, Uploads, read_uploads


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the app hands to its routes, as `app.state.wiring`."""

    service: Service
    upload_limits: UploadLimits


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

    Args:
        request: the request.
        selector: `name`, `name@version` or None.

    Raises:
        UnknownModel: there is no such model.

    Attributes:
        model: the one selected.
        deadline: when the answer must be ready; set once the body is there.
        read_s: what reading the body took.
    """

    def __init__(self, request: Request, selector: str | None) -> None:
        self._request = request
        self._wiring = wiring_of(request)
        self._trace = trace_of(request)
        self.service = self._wiring.service
        self.model: Model = self.service.catalog.find(selector)
        self._trace.model = self.model.key
        self.deadline = 0.0
        self.read_s = 0.0

    async def read(self) -> Uploads:
        """The request's image files."""
        started = time.perf_counter()
        uploads = await read_uploads(self._request, self._wiring.upload_limits)
        self.deadline = self.service.deadline()
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
        )

    def encoded(self, started: float) -> None:
        """Note that the answer is written, which began at `time.perf_counter()` `started`."""
        self.service.observe(self.model, "encode", time.perf_counter() - started, self._trace)

    async def _gone(self) -> None:
        """Return when the client has hung up."""
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
