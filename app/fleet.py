"""The models that are served, each behind its queue; they come and go while the others serve."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from app.batching import Dispatcher
from app.catalog import Model
from app.engine import Engine, Outcome, Task, probe_task
from app.errors import UnknownModel
from app.lane import Lane, Limits
from app.memory import trim_memory
from app.metrics import Metrics, ModelMetrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A model with its queue and its metrics."""

    model: Model
    lane: Lane[Task, Outcome]
    metrics: ModelMetrics


class Fleet:
    """What is served at the moment.

    Everything happens on the event loop, so that a request finds either the models before a swap or
    those after it.

    Args:
        dispatcher: the thread that computes.
        metrics: where it is counted.
        limits: of each model's queue.
    """

    def __init__(self, dispatcher: Dispatcher, metrics: Metrics, limits: Limits) -> None:
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._limits = limits
        self._served: dict[Model, Served] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    def swap(self, models: Sequence[Model]) -> None:
        """Serve these from now on; those that are not among them answer what they hold, then go."""
        gone = [self._served.pop(model) for model in set(self._served).difference(models)]
        for served in gone:
            self._metrics.forget_model(*_info(served.model))
        for model in models:
            if model not in self._served:
                self._served[model] = self._serve(model)
        for served in gone:
            task = asyncio.get_running_loop().create_task(self._retire(served))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    def served(self, model: Model) -> Served:
        """The model's queue and metrics.

        Raises:
            UnknownModel: it was unloaded or replaced since it was found.
        """
        served = self._served.get(model)
        if served is None:
            raise UnknownModel(f"{model.key} was unloaded meanwhile; see /models.")
        return served

    def observe(self, model: Model, stage: str, seconds: float) -> None:
        """Count what a request spent in a stage outside; its model may be gone by then."""
        if model in self._served:
            self._served[model].metrics.observe(stage, seconds)
        else:
            self._metrics.stage_seconds.labels(stage, model.manifest.name).observe(seconds)

    def close(self) -> None:
        """Wait for no model any more; the process ends and frees them."""
        for task in self._retiring:
            task.cancel()

    def _serve(self, model: Model) -> Served:
        metrics = ModelMetrics(self._metrics, model.manifest.name)
        lane: Lane[Task, Outcome] = Lane(
            self._dispatcher,
            self._dispatcher.watched(
                model.engine.run,
                lambda: model.engine.run([probe_task(model.manifest)]),
                model.key,
            ),
            self._limits,
            on_batch=metrics.batch_size.observe,
            on_depth=metrics.queue_depth.inc,
        )
        self._dispatcher.add(lane)
        self._metrics.model_info.labels(*_info(model)).set(1)
        return Served(model, lane, metrics)

    async def _retire(self, served: Served) -> None:
        """Let a model answer what it holds, then free its memory."""
        name = served.model.manifest.name
        await served.lane.drain()
        self._dispatcher.remove(served.lane)
        await asyncio.to_thread(_free, served.model.engine)
        if not any(model.manifest.name == name for model in self._served):
            self._metrics.forget_bundle(name)
        logger.info("unloaded %s", served.model.key)


def _free(engine: Engine) -> None:
    engine.close()
    trim_memory()


def _info(model: Model) -> tuple[str, str, str, str]:
    """The labels of `limbeck_model_info`."""
    manifest = model.manifest
    return manifest.name, str(manifest.version), model.sha256, model.engine.provider
