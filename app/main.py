"""Builds the app: the one place where its parts are wired together."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.admin import AdminCheck
from app.budget import ByteBudget
from app.catalog import Catalog, LoadOptions, load_catalog
from app.errors import RateLimited, ServiceError, Unauthorized
from app.keys import AddressCheck, Check, KeyCheck
from app.lane import Limits
from app.memory import limit_slack, trim_memory
from app.metrics import Metrics
from app.middleware import RequestMiddleware
from app.ports import PortMiddleware
from app.problems import install_problem_handlers
from app.repository import Repository
from app.routes import classify, docs, health, metrics, models, purify
from app.routes import repository as repository_routes
from app.routes.context import Wiring
from app.routes.direct import DirectRoutes
from app.routes.documentation import problems
from app.schemas import Problem
from app.service import Service
from app.sessions import CPU
from app.settings import Settings, cores, load_settings
from app.signature import SignatureCheck
from app.tracing import Spans, spans_wanted
from app.uploads import UploadLimits
from app.watch import FolderWatch

logger = logging.getLogger(__name__)

# After the requests were drained only an inference that hangs can keep the thread.
_CLOSE_TIMEOUT_S = 2.0

_DESCRIPTION = """
Removes adversarial noise from an image before a classifier sees it.

Every failure is answered as `application/problem+json` (RFC 9457) with a stable `code`.
"""


class Application(FastAPI):
    """The framework's app inside the layers that every request goes through.

    Attributes:
        layers: what is called; in the end it calls `routed`.
    """

    layers: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self.layers(scope, receive, send)

    async def routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request as the framework does, HEAD as GET: the server leaves out the body."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await super().__call__(scope, receive, send)
            return
        inner = {**scope, "method": "GET"}
        try:
            await super().__call__(inner, receive, send)
        finally:
            scope["route"] = inner.get("route")  # by which it is counted


def create_app(
    settings: Settings | None = None,
    spans: Spans | None = None,
    versions: Container[str] | None = None,
) -> Application:
    """The app with every bundle verified, loaded and warm; it serves once its lifespan begins.

    Args:
        settings: None reads the environment.
        spans: where traces are written; None does as the standard `OTEL_*` variables say.
        versions: `name/version` of what is loaded; None: all there is.

    Raises:
        SettingsError: the environment cannot be used.
        BundleError: a bundle cannot be loaded; the message names the file and the reason.
        DeviceError: the device cannot be used.
    """
    settings = settings or load_settings()
    spans = spans or spans_wanted(os.environ)
    # Before anything is loaded, so that no change between the two is missed.
    watch = FolderWatch(settings.models_dir) if settings.watch else None
    service = build_service(settings, versions)
    repository = Repository(
        service, settings.models_dir, _load_options(settings), watch, settings.watch
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        repository.start()
        yield
        repository.close()
        if not await service.close(_CLOSE_TIMEOUT_S):
            logger.error("an inference did not end in time and is abandoned")
        if spans is not None:
            await asyncio.to_thread(spans.close)

    app = Application(
        title="Limbeck",
        version=_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        # The framework's own would tell each request twice, and log what was in a refused one.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.wiring = Wiring(
        service,
        repository,
        UploadLimits(
            settings.max_image_bytes, settings.max_request_bytes, settings.max_request_images
        ),
        settings.processes,
    )
    check = _include_routes(app, settings)
    install_problem_handlers(app)
    _describe_problems(app)
    layers: ASGIApp = DirectRoutes(app, app.routed, (classify.DIRECT, purify.DIRECT), check)
    if settings.cors_origins:
        layers = CORSMiddleware(
            layers,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=["Server-Timing", "X-Request-ID", "X-Limbeck-Model", "X-Limbeck-Note"],
        )
    if settings.admin_port is not None:
        layers = PortMiddleware(layers, settings.admin_port)
    app.layers = RequestMiddleware(layers, service.metrics, spans)
    return app


def build_service(settings: Settings, versions: Container[str] | None = None) -> Service:
    """The service behind the app, every bundle loaded; see `create_app` for what it raises."""
    limit_slack()
    catalog = load_catalog(
        settings.models_dir, settings.default_model, _load_options(settings), versions
    )
    trim_memory()
    limits = Limits(
        settings.max_batch_size, settings.max_queue_size, settings.max_queue_delay_ms / 1000
    )
    metrics = Metrics()
    for failure in catalog.failures:
        metrics.model_loads.labels(failure.name, "refused").inc()
    budget = ByteBudget(settings.max_queue_bytes, metrics.queue_bytes.inc)
    return Service(
        catalog,
        metrics,
        limits,
        settings.max_image_pixels,
        settings.request_timeout_s,
        budget,
        settings.hang_s,
        shared_core=cores() <= settings.processes and _is_on_the_cpu(catalog),
    )


def _is_on_the_cpu(catalog: Catalog) -> bool:
    return all(model.engine.provider == CPU for model in catalog.models)


def _load_options(settings: Settings) -> LoadOptions:
    threads = settings.inference_threads or max(1, cores() // settings.processes)
    key = settings.bundle_public_key
    check = None if key is None else SignatureCheck(key)
    return LoadOptions(settings.device, threads, settings.max_batch_size, check)


def _include_routes(app: FastAPI, settings: Settings) -> Check | None:
    """All routes; only probes, scrapers and readers of the documentation need no key.

    Returns:
        What the others ask of a request, if they ask anything.
    """
    keys = [key.get_secret_value() for key in settings.known_keys()]
    limiter = None
    if settings.rate_limit is not None:
        from app.rates import RateLimiter  # costs a second of start that only a limit is worth

        limiter = RateLimiter(settings.rate_limit)
    check: KeyCheck | AddressCheck | None = None
    refusals: list[type[ServiceError]] = []
    if keys:
        check = KeyCheck(keys, limiter)
        refusals.append(Unauthorized)
    elif limiter:
        check = AddressCheck(limiter)
    if limiter:
        refusals.append(RateLimited)
    needed = [Depends(check)] if check else []
    for module in (purify, classify, models):
        app.include_router(module.router, dependencies=needed, responses=problems(*refusals))
    for module in (health, metrics, docs):
        app.include_router(module.router)
    admin_key = settings.known_admin_key()
    app.include_router(
        repository_routes.router,
        dependencies=[Depends(AdminCheck(admin_key, limiter))],
        responses=problems(RateLimited) if limiter else None,
    )
    return check


def _describe_problems(app: FastAPI) -> None:
    """Make the OpenAPI document say how failures are really answered."""
    derived = app.openapi

    def openapi() -> dict[str, Any]:
        document = derived()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema()
        # The framework's own shape for refused parameters, which is never sent.
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        for path in document["paths"].values():
            for operation in path.values():
                if "HTTPValidationError" in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the framework's documented way


def _version() -> str:
    """The installed version; a checkout that is not installed has none."""
    try:
        return version("limbeck")
    except PackageNotFoundError:
        return "0"
