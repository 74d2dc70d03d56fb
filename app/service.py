"""From uploaded files to results: decode, queue, infer, compare.

Knows nothing of HTTP. A request reserves its places in the queue before its images are decoded,
and gives them back the moment it fails, expires, or its client hangs up.
"""

import logging
import math
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.batching import Dispatcher
from app.budget import ByteBudget, ByteHold
from app.bundle import InputSpec
from app.catalog import Catalog, Model
from app.codecs import CodecPool
from app.engine import Outcome, Task
from app.errors import OutOfMemory, ServiceError
from app.fleet import Fleet, Served
from app.images import DecodedImage
from app.lane import Limits
from app.metrics import Metrics
from app.patience import Gone, Patience
from app.shift import Probabilities, shift_bits
from app.tickets import Answer
from app.trace import Trace

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request wants of each of its images."""

    purified_image: bool = False
    plain: bool = False
    purified: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """Everything that came out for one image.

    Attributes:
        image: what was decoded.
        purified_image: (C, H, W), float32.
        plain: class probabilities without purification.
        purified: class probabilities after purification.
        shift_bits: between the two.
        stages: stage -> seconds.
    """

    image: DecodedImage
    purified_image: npt.NDArray[np.float32] | None
    plain: Probabilities | None
    purified: Probabilities | None
    shift_bits: float | None
    stages: dict[str, float]


class _Decoded(NamedTuple):
    """A decoded image, when its decoding began (`time.perf_counter()`) and what it took."""

    image: DecodedImage
    started: float
    seconds: float


@dataclass(slots=True)
class Service:
    """The models of a catalog behind their queues.

    Args:
        catalog: what is served; `swap` changes it.
        metrics: where it is counted.
        limits: of each model's queue.
        max_image_pixels: larger images are refused.
        request_timeout_s: from the end of a request's body to its answer.
        budget: of the bytes that requests hold, over all models.
        hang_s: an inference that takes longer hangs.
        shared_core: whether the event loop and the inference have one core together.
    """

    catalog: Catalog
    metrics: Metrics
    limits: Limits
    max_image_pixels: int
    request_timeout_s: float
    budget: ByteBudget
    hang_s: float = 120.0
    shared_core: bool = False
    ready: bool = False
    codecs: CodecPool = field(init=False)
    _dispatcher: Dispatcher = field(init=False)
    _fleet: Fleet = field(init=False)

    def __post_init__(self) -> None:
        """Give every model its queue."""
        self.codecs = CodecPool(self.max_image_pixels)
        self._dispatcher = Dispatcher(pauses=self.shared_core)
        self._fleet = Fleet(self._dispatcher, self.metrics, self.limits)
        self._fleet.swap(self.catalog.models)

    def swap(self, catalog: Catalog) -> None:
        """Serve another catalog from now on; called on the event loop.

        Requests that were queued before are answered by the models they were queued for, which are
        freed after the last of them.
        """
        self.catalog = catalog
        self._fleet.swap(catalog.models)

    def start(self) -> None:
        """Begin to compute, and be ready."""
        self._dispatcher.start()
        self.ready = True

    async def close(self, timeout_s: float) -> bool:
        """Answer what waits and stop; whether that ended in time."""
        self.ready = False
        self._fleet.close()
        ended = await self._dispatcher.close(timeout_s)
        self.codecs.close()
        return ended

    @property
    def busy(self) -> bool:
        """Whether an inference runs, or something waits for one."""
        return self._dispatcher.busy

    def admit(self, model: Model, places: int = 1) -> None:
        """Refuse a request of which only the head was read, if there are not so many places.

        No place is held for it: a body that comes slowly must not keep others out.

        Raises:
            QueueFull: the model's queue is full.
            NotReady: the service is shutting down.
            UnknownModel: it was unloaded since it was found.
        """
        self._fleet.served(model).lane.check(places)

    @property
    def illness(self) -> str | None:
        """Why only a new process helps; None while all is well."""
        return self._dispatcher.illness(self.hang_s)

    def deadline(self) -> float:
        """When a request whose body has just arrived must be answered, `time.monotonic()`."""
        return time.monotonic() + self.request_timeout_s

    async def infer(
        self,
        contents: list[bytes],
        model: Model,
        wanted: Wanted,
        *,
        deadline: float,
        gone: Gone,
        trace: Trace,
        hold: ByteHold,
    ) -> list[Inference]:
        """What is wanted of each image file.

        Args:
            contents: the files; each is replaced by nothing once it is decoded.
            model: one of the catalog's.
            wanted: the same for each.
            deadline: `time.monotonic()` after which nothing is computed any more.
            gone: returns when the client has hung up.
            trace: where the stages are noted.
            hold: of the files' bytes; the decoded pixels are added, the files given back.

        Raises:
            ServiceError: of the first image that cannot be answered; none is answered then.
        """
        served = self._fleet.served(model)
        spec = model.manifest.input
        with served.lane.reserve(len(contents)) as reservation:
            hold.add(len(contents) * math.prod(spec.shape))
            async with Patience(deadline, gone):
                decoded = await self._decode(contents, spec, deadline, hold)
                tasks = [
                    Task(one.image.pixels, wanted.purified_image, wanted.plain, wanted.purified)
                    for one in decoded
                ]
                queued = time.perf_counter()
                answers = [await future for future in reservation.submit(tasks, deadline)]
        return [
            self._inference(served, one, queued, answer, trace)
            for one, answer in zip(decoded, answers, strict=True)
        ]

    async def _decode(
        self, contents: list[bytes], spec: InputSpec, deadline: float, hold: ByteHold
    ) -> list[_Decoded]:
        """The decoded images; an error names the file it is about."""
        decoded = []
        for index, content in enumerate(contents):
            started = time.perf_counter()
            try:
                image = await self.codecs.decode(content, spec, deadline)
            except ServiceError as error:
                if len(contents) > 1:
                    error.extra["file_index"] = index
                raise
            except MemoryError as error:
                logger.error("out of memory while an image was decoded")
                raise OutOfMemory(headers={"Retry-After": "1"}) from error
            decoded.append(_Decoded(image, started, time.perf_counter() - started))
            # From here on its pixels stand for the file, which may be a thousand times as large.
            contents[index] = b""
            hold.give_back(len(content))
        return decoded

    def _inference(
        self,
        served: Served,
        decoded: _Decoded,
        queued: float,
        answer: Answer[Outcome],
        trace: Trace,
    ) -> Inference:
        """An image's results, compared and counted; `queued` by `time.perf_counter()`."""
        outcome = answer.result
        stages = {"decode": decoded.seconds, "queue": answer.queue_s}
        if outcome.purify_s is not None:
            stages["purify"] = outcome.purify_s
        if outcome.classify_s is not None:
            stages["classify"] = outcome.classify_s
        began = queued  # of the stages after the decoding each begins where the one before ends
        for stage, seconds in stages.items():
            served.metrics.observe(stage, seconds)
            if stage == "decode":
                trace.note(stage, seconds, decoded.started)
            else:
                trace.note(stage, seconds, began)
                began += seconds
        plain, purified = outcome.plain, outcome.purified
        shift = None
        if plain is not None and purified is not None:
            shift = shift_bits(plain, purified)
            served.metrics.shift_ratio.observe(shift)
            if plain.argmax() != purified.argmax():
                served.metrics.label_changed.inc()
        return Inference(decoded.image, outcome.purified_image, plain, purified, shift, stages)

    def observe(self, model: Model, stage: str, seconds: float, trace: Trace) -> None:
        """Count a stage that happens outside: reading and encoding."""
        self._fleet.observe(model, stage, seconds)
        trace.note(stage, seconds)
