"""`GET /models` and `GET /models/{bundle}`."""

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app import answers
from app.errors import UnknownModel
from app.routes.context import wiring_of
from app.routes.documentation import problems
from app.schemas import BundleDetail, Models

router = APIRouter(tags=["models"])


@router.get("/models", response_model=None, responses={200: {"model": Models}})
async def list_models(request: Request) -> Response:
    """What is loaded: bundles, versions, digests, labels, devices; and what was refused."""
    wiring = wiring_of(request)
    answer = answers.models(wiring.service.catalog, wiring.repository.failures)
    return Response(orjson.dumps(answer), media_type="application/json")


@router.get(
    "/models/{bundle}",
    response_model=None,
    responses={200: {"model": BundleDetail}, **problems(UnknownModel)},
)
async def describe_bundle(request: Request, bundle: str) -> Response:
    """One bundle with the origin and the robustness card of each version."""
    catalog = wiring_of(request).service.catalog
    if bundle not in catalog.bundles:
        raise UnknownModel(f"There is no model {bundle[:80]!r}; see /models.")
    answer = answers.bundle(catalog, bundle, detail=True)
    return Response(orjson.dumps(answer), media_type="application/json")
