"""`POST /classify`."""

import time
from typing import Annotated

import orjson
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from app.answers import classification
from app.routes.context import Exchange, TimeoutMs
from app.routes.direct import DirectRoute
from app.routes.documentation import UPLOAD_BODY, UPLOAD_ERRORS, problems
from app.schemas import Classification
from app.service import Wanted

router = APIRouter(tags=["images"])


class ClassifyQuery(BaseModel):
    """The parameters of `/classify`; others are refused, so that a misspelt one is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(None, max_length=100, description="`name` or `name@version`")
    purify: bool = Field(False, description="classify the purified image")
    detect: bool = Field(False, description="classify both and tell how far the answers are apart")
    top_k: int = Field(5, ge=1, le=1000, description="how many classes to list, at most")


@router.post(
    "/classify",
    response_model=None,
    responses={
        200: {
            "description": "One object; for a form with several files a list, in their order.",
            "model": Classification | list[Classification],
        },
        **problems(*UPLOAD_ERRORS),
    },
    openapi_extra=UPLOAD_BODY,
)
async def classify(
    request: Request, query: Annotated[ClassifyQuery, Query()], timeout_ms: TimeoutMs = None
) -> Response:
    """Classify one or several images, purified first if `purify` is set."""
    wanted = Wanted(plain=query.detect or not query.purify, purified=query.detect or query.purify)
    with Exchange(request, query.model, timeout_ms) as exchange:
        uploads = await exchange.read()
        inferences = await exchange.infer(uploads, wanted)
        started = time.perf_counter()
        answers = [
            classification(
                inference,
                exchange.model,
                purify=query.purify,
                top_k=query.top_k,
                read_s=exchange.read_s,
            )
            for inference in inferences
        ]
        body = orjson.dumps(answers if uploads.several else answers[0])
        exchange.encoded(started)
    return Response(body, media_type="application/json")


DIRECT = DirectRoute.only(router, ClassifyQuery)
