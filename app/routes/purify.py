"""`POST /purify`."""

import time
from typing import Annotated

import numpy as np
import orjson
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from app.answers import frames_note, purification
from app.codecs import encode_npy
from app.negotiation import negotiate
from app.routes.context import Exchange, TimeoutMs
from app.routes.direct import DirectRoute
from app.routes.documentation import PURIFY_ERRORS, UPLOAD_BODY, problems
from app.schemas import Purification
from app.service import Inference, Wanted
from app.uploads import Uploads

router = APIRouter(tags=["images"])

PNG, NPY, JSON = "image/png", "application/x-npy", "application/json"


class PurifyQuery(BaseModel):
    """The parameters of `/purify`; others are refused, so that a misspelt one is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(None, max_length=100, description="`name` or `name@version`")


@router.post(
    "/purify",
    response_model=None,
    responses={
        200: {
            "description": (
                "The purified image, in the bundle's size. By `Accept`: `image/png` (the default, "
                "8 bits), `application/x-npy` (float32 in [0, 1], (C, H, W); of several files "
                "(N, C, H, W)), or `application/json`. A PNG holds one image: for a form with "
                "several files the default is JSON, a list, and asking for PNG alone gives 406."
            ),
            "content": {
                PNG: {"schema": {"type": "string", "format": "binary"}},
                NPY: {"schema": {"type": "string", "format": "binary"}},
            },
            "headers": {
                "X-Limbeck-Model": {
                    "description": "`name@version`",
                    "schema": {"type": "string"},
                },
                "X-Limbeck-Note": {
                    "description": "Only for animated files: that the first frame was used.",
                    "schema": {"type": "string"},
                },
            },
            "model": Purification | list[Purification],
        },
        **problems(*PURIFY_ERRORS),
    },
    openapi_extra=UPLOAD_BODY,
)
async def purify(
    request: Request, query: Annotated[PurifyQuery, Query()], timeout_ms: TimeoutMs = None
) -> Response:
    """Remove adversarial noise from one or several images."""
    with Exchange(request, query.model, timeout_ms) as exchange:
        uploads = await exchange.read()
        offered = (JSON, NPY) if uploads.several else (PNG, NPY, JSON)
        media_type = negotiate(", ".join(request.headers.getlist("accept")), offered)
        # Only JSON reports the shift, so only JSON pays for the classifier.
        compare = media_type == JSON
        wanted = Wanted(purified_image=True, plain=compare, purified=compare)
        inferences = await exchange.infer(uploads, wanted)
        started = time.perf_counter()
        body = await _encode(exchange, uploads, inferences, media_type)
        exchange.encoded(started)
    headers = {"X-Limbeck-Model": exchange.model.key, "Vary": "Accept"}
    notes = [note for inference in inferences if (note := frames_note(inference))]
    if notes:
        headers["X-Limbeck-Note"] = notes[0]
    return Response(body, headers=headers, media_type=media_type)


DIRECT = DirectRoute.only(router, PurifyQuery)


async def _encode(
    exchange: Exchange, uploads: Uploads, inferences: list[Inference], media_type: str
) -> bytes:
    images = [i.purified_image for i in inferences if i.purified_image is not None]
    if media_type == NPY:
        return encode_npy(np.stack(images) if uploads.several else images[0])
    codecs = exchange.service.codecs
    pngs = [await codecs.png(image, exchange.deadline) for image in images]
    if media_type == PNG:
        return pngs[0]
    answers = [
        purification(inference, exchange.model, png, read_s=exchange.read_s)
        for inference, png in zip(inferences, pngs, strict=True)
    ]
    return orjson.dumps(answers if uploads.several else answers[0])
