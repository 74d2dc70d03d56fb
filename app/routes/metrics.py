"""`GET /metrics`."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.metrics import CONTENT_TYPE
from app.routes.context import wiring_of

router = APIRouter(tags=["metrics"])


@router.get(
    "/metrics",
    response_model=None,
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """The metrics in Prometheus' text format."""
    body = wiring_of(request).service.metrics.render()
    return Response(body, headers={"Content-Type": CONTENT_TYPE})
