"""What a route needs of its request: the service, the trace, the uploaded images."""

import time
from dataclasses import dataclass

from starlette.requests import Request

from app.catalog import Model
from app.repository import Repository
from app.service import Inference, Service, Wanted
from app.trace import Trace
from app.uploads import UploadLimits, Uploads, read_uploads


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

    Args:
        request: the request.
        selector: `name`, `name@version` or None.

    Raises:
        UnknownModel: there is no such model.

    Attributes:
        model: the one selected; settled once the body is there.
        deadline: when the answer must be ready; set once the body is there.
        read_s: what reading the body took.
    """

    def __init__(self, request: Request, selector: str | None) -> None:
        self._request = request
        self._wiring = wiring_of(request)
        self._trace = trace_of(request)
        self._selector = selector
        self.service = self._wiring.service
        self.model: Model = self.service.catalog.find(selector)
        self._trace.model = self.model.key
        self.deadline = 0.0
        self.read_s = 0.0

    async def read(self) -> Uploads:
        """The request's image files.

        Raises:
            UnknownModel: the model was unloaded meanwhile.
        """
        started = time.perf_counter()
        uploads = await read_uploads(self._request, self._wiring.upload_limits)
        # The model may have been replaced meanwhile. From here to the queue nothing waits, and what
        # is queued is answered by the model it was queued for.
        self.model = self.service.catalog.find(self._selector)
        self._trace.model = self.model.key
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
