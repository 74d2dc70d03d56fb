"""From uploaded files to results: decode, queue, infer, compare.

Knows nothing of HTTP. A request reserves its places in the queue before its images are decoded,
and gives them back the moment it fails, expires, or its client hangs up.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from app.batching import Dispatcher
from app.catalog import Catalog, Model
from app.codecs import CodecPool
from app.engine import Outcome, Task, probe_task
from app.errors import ClientGone, DeadlineExceeded, OutOfMemory, ServiceError
from app.images import DecodedImage
from app.lane import Answer, Lane, Limits
from app.metrics import Metrics, ModelMetrics
from app.shift import shift_bits, softmax
from app.trace import Trace

logger = logging.getLogger(__name__)

Probabilities = npt.NDArray[np.float64]
Gone = Callable[[], Awaitable[object]]

# Listening for a hang-up costs a task; a request that is answered sooner than this needs none.
_LISTEN_AFTER_S = 0.01


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


@dataclass(frozen=True, slots=True, eq=False)
class _Served:
    """A model with its queue and its metrics."""

    model: Model
    lane: Lane[Task, Outcome]
    metrics: ModelMetrics


@dataclass(slots=True)
class Service:
    """The models of a catalog behind their queues.

    Args:
        catalog: what is served.
        metrics: where it is counted.
        limits: of each model's queue.
        max_image_pixels: larger images are refused.
        request_timeout_s: from the end of a request's body to its answer.
        hang_s: an inference that takes longer hangs.
    """

    catalog: Catalog
    metrics: Metrics
    limits: Limits
    max_image_pixels: int
    request_timeout_s: float
    hang_s: float = 120.0
    ready: bool = False
    codecs: CodecPool = field(init=False)
    _dispatcher: Dispatcher = field(init=False)
    _served: dict[str, _Served] = field(init=False)

    def __post_init__(self) -> None:
        """Give every model its queue."""
        self.codecs = CodecPool(self.max_image_pixels)
        self._dispatcher = Dispatcher()
        self._served = {model.key: self._serve(model) for model in self.catalog.models}

    def _serve(self, model: Model) -> _Served:
        manifest = model.manifest
        metrics = ModelMetrics(self.metrics, manifest.name)
        lane: Lane[Task, Outcome] = Lane(
            self._dispatcher,
            self._dispatcher.watched(
                model.engine.run, lambda: model.engine.run([probe_task(manifest)]), model.key
            ),
            self.limits,
            on_batch=metrics.batch_size.observe,
            on_depth=metrics.queue_depth.inc,
        )
        self._dispatcher.add(lane)
        self.metrics.model_info.labels(
            manifest.name, str(manifest.version), model.sha256, model.engine.provider
        ).set(1)
        return _Served(model, lane, metrics)

    def start(self) -> None:
        """Begin to compute, and be ready."""
        self._dispatcher.start()
        self.ready = True

    async def close(self, timeout_s: float) -> bool:
        """Answer what waits and stop; whether that ended in time."""
        self.ready = False
        ended = await self._dispatcher.close(timeout_s)
        self.codecs.close()
        return ended

    @property
    def busy(self) -> bool:
        """Whether an inference runs, or something waits for one."""
        return self._dispatcher.busy

    @property
    def illness(self) -> str | None:
        """Why only a new process helps; None while all is well."""
        return self._dispatcher.illness(self.hang_s)

    def deadline(self) -> float:
        """When a request whose body has just arrived must be answered, `time.monotonic()`."""
        return time.monotonic() + self.request_timeout_s

    async def infer(
        self,
        contents: Sequence[bytes],
        model: Model,
        wanted: Wanted,
        *,
        deadline: float,
        gone: Gone,
        trace: Trace,
    ) -> list[Inference]:
        """What is wanted of each image file.

        Args:
            contents: the files.
            model: one of the catalog's.
            wanted: the same for each.
            deadline: `time.monotonic()` after which nothing is computed any more.
            gone: returns when the client has hung up.
            trace: where the stages are noted.

        Raises:
            ServiceError: of the first image that cannot be answered; none is answered then.
        """
        served = self._served[model.key]
        with served.lane.reserve(len(contents)) as reservation:
            images, decode_s = await self._decode(contents, model, deadline)
            tasks = [
                Task(image.pixels, wanted.purified_image, wanted.plain, wanted.purified)
                for image in images
            ]
            answers = await _all(reservation.submit(tasks, deadline), deadline, gone)
        return [
            self._inference(served, image, seconds, answer, trace)
            for image, seconds, answer in zip(images, decode_s, answers, strict=True)
        ]

    async def _decode(
        self, contents: Sequence[bytes], model: Model, deadline: float
    ) -> tuple[list[DecodedImage], list[float]]:
        """The decoded images and the seconds each took; an error names the file it is about."""
        images, seconds = [], []
        for index, content in enumerate(contents):
            started = time.perf_counter()
            try:
                images.append(await self.codecs.decode(content, model.manifest.input, deadline))
            except ServiceError as error:
                if len(contents) > 1:
                    error.extra["file_index"] = index
                raise
            except MemoryError as error:
                logger.error("out of memory while an image was decoded")
                raise OutOfMemory(headers={"Retry-After": "1"}) from error
            seconds.append(time.perf_counter() - started)
        return images, seconds

    def _inference(
        self,
        served: _Served,
        image: DecodedImage,
        decode_s: float,
        answer: Answer[Outcome],
        trace: Trace,
    ) -> Inference:
        """An image's results, compared and counted."""
        outcome = answer.result
        stages = {"decode": decode_s, "queue": answer.queue_s}
        if outcome.purify_s is not None:
            stages["purify"] = outcome.purify_s
        if outcome.classify_s is not None:
            stages["classify"] = outcome.classify_s
        for stage, seconds in stages.items():
            served.metrics.observe(stage, seconds)
            trace.note(stage, seconds)
        plain = None if outcome.plain_logits is None else softmax(outcome.plain_logits)
        purified = None if outcome.purified_logits is None else softmax(outcome.purified_logits)
        shift = None
        if plain is not None and purified is not None:
            shift = shift_bits(plain, purified)
            served.metrics.shift_ratio.observe(shift)
            if plain.argmax() != purified.argmax():
                served.metrics.label_changed.inc()
        return Inference(image, outcome.purified_image, plain, purified, shift, stages)

    def observe(self, model: Model, stage: str, seconds: float, trace: Trace) -> None:
        """Count a stage that happens outside: reading and encoding."""
        self._served[model.key].metrics.observe(stage, seconds)
        trace.note(stage, seconds)


async def _all(
    futures: Sequence[asyncio.Future[Answer[Outcome]]], deadline: float, gone: Gone
) -> list[Answer[Outcome]]:
    """Every answer, unless the deadline comes or the client goes first."""
    loop = asyncio.get_running_loop()
    listeners: list[asyncio.Task[None]] = []

    def fail(error: ServiceError) -> None:
        for future in futures:
            if not future.done():
                future.set_exception(error)

    async def listen() -> None:
        await gone()
        fail(ClientGone())

    timers = (
        loop.call_later(
            max(0.0, deadline - time.monotonic()),
            lambda: fail(DeadlineExceeded("The answer was not ready in time.")),
        ),
        loop.call_later(_LISTEN_AFTER_S, lambda: listeners.append(loop.create_task(listen()))),
    )
    try:
        return [await future for future in futures]
    finally:
        for timer in timers:
            timer.cancel()
        for listener in listeners:
            listener.cancel()
