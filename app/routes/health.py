"""`GET /health/live` and `GET /health/ready`."""

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.errors import NotLive, NotReady
from app.routes.context import wiring_of
from app.routes.documentation import problems
from app.schemas import Health

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live", response_model=None, responses={200: {"model": Health}, **problems(NotLive)})
async def live(request: Request) -> Response:
    """Whether the process can still compute: no inference hangs, the device is not lost."""
    if illness := wiring_of(request).service.illness:
        raise NotLive(f"Inference: {illness}.")
    return _status("live")


@router.get("/ready", response_model=None, responses={200: {"model": Health}, **problems(NotReady)})
async def ready(request: Request) -> Response:
    """Whether every bundle is loaded and warm, inference works, and no shutdown has begun."""
    service = wiring_of(request).service
    if not service.ready:
        raise NotReady("The service is starting or shutting down.")
    if illness := service.illness:
        raise NotReady(f"Inference: {illness}.")
    return _status("ready")


def _status(status: str) -> Response:
    return Response(orjson.dumps({"status": status}), media_type="application/json")
