"""Builds the app: the one place where its parts are wired together."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware

from app.catalog import LoadOptions, load_catalog
from app.errors import Unauthorized
from app.keys import KeyCheck
from app.lane import Limits
from app.metrics import Metrics
from app.middleware import RequestMiddleware
from app.problems import install_problem_handlers
from app.routes import classify, health, metrics, models, purify
from app.routes.context import Wiring
from app.routes.documentation import problems
from app.schemas import Problem
from app.service import Service
from app.settings import Settings, cores, load_settings
from app.uploads import UploadLimits

logger = logging.getLogger(__name__)

# After the requests were drained only an inference that hangs can keep the thread.
_CLOSE_TIMEOUT_S = 2.0

_DESCRIPTION = """
Removes adversarial noise from an image before a classifier sees it.

Every failure is answered as `application/problem+json` (RFC 9457) with a stable `code`.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The app with every bundle verified, loaded and warm; it serves once its lifespan begins.

    Args:
        settings: None reads the environment.

    Raises:
        SettingsError: the environment cannot be used.
        BundleError: a bundle cannot be loaded; the message names the file and the reason.
        DeviceError: the device cannot be used.
    """
    settings = settings or load_settings()
    service = build_service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        if not await service.close(_CLOSE_TIMEOUT_S):
            logger.error("an inference did not end in time and is abandoned")

    app = FastAPI(
        title="Limbeck",
        version=_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
    )
    app.state.wiring = Wiring(
        service,
        UploadLimits(
            settings.max_image_bytes, settings.max_request_bytes, settings.max_request_images
        ),
    )
    _include_routes(app, [key.get_secret_value() for key in settings.api_keys])
    install_problem_handlers(app)
    _describe_problems(app)
    # The last added is the outermost.
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Server-Timing", "X-Request-ID", "X-Limbeck-Model", "X-Limbeck-Note"],
        )
    app.add_middleware(RequestMiddleware, metrics=service.metrics)
    return app


def build_service(settings: Settings) -> Service:
    """The service behind the app, every bundle loaded; see `create_app` for what it raises."""
    threads = settings.inference_threads or max(1, cores() // settings.processes)
    options = LoadOptions(settings.device, threads, settings.max_batch_size)
    catalog = load_catalog(settings.models_dir, settings.default_model, options)
    limits = Limits(
        settings.max_batch_size, settings.max_queue_size, settings.max_queue_delay_ms / 1000
    )
    return Service(
        catalog,
        Metrics(),
        limits,
        settings.max_image_pixels,
        settings.request_timeout_s,
        settings.hang_s,
    )


def _include_routes(app: FastAPI, keys: Sequence[str]) -> None:
    """All routes; with keys, only probes, scrapers and readers of the documentation need none."""
    needed = [Depends(KeyCheck(keys))] if keys else []
    refusals = problems(Unauthorized) if keys else {}
    for module in (purify, classify, models):
        app.include_router(module.router, dependencies=needed, responses=refusals)
    for module in (health, metrics):
        app.include_router(module.router)


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
