"""`POST /v2/repository/...`: the repository extension of the Open Inference Protocol."""

from typing import TypeVar

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app import answers
from app.errors import (
    AdminDisabled,
    BodyTooLarge,
    BundleRefused,
    InvalidParameter,
    SingleWorkerOnly,
    Unauthorized,
    UnknownModel,
)
from app.repository import Repository
from app.routes.context import wiring_of
from app.routes.documentation import problems
from app.schemas import RepositoryEntry
from app.uploads import broken_off

_MAX_BODY_BYTES = 64 * 1024
_ADMIN_ERRORS = (Unauthorized, AdminDisabled, BodyTooLarge, InvalidParameter)

router = APIRouter(prefix="/v2/repository", tags=["repository"])


class _Request(BaseModel):
    """What a request may carry; clients of other servers send empty parameters."""

    model_config = ConfigDict(extra="forbid")


class IndexRequest(_Request):
    """The body of `index`."""

    ready: bool = False


class LoadParameters(_Request):
    """Nothing: configurations and files come from disk, never over the network."""


class LoadRequest(_Request):
    """The body of `load`."""

    parameters: LoadParameters = LoadParameters()


class UnloadParameters(_Request):
    """What Triton's client always sends; bundles have no dependents."""

    unload_dependents: bool = False


class UnloadRequest(_Request):
    """The body of `unload`."""

    parameters: UnloadParameters = UnloadParameters()


BodyT = TypeVar("BodyT", bound=_Request)


def _optional(body: type[_Request]) -> dict[str, object]:
    """The OpenAPI description of a body that may be left out."""
    schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, definition in schema.pop("$defs", {}).items():
        schema["properties"]["parameters"] = {**definition, "title": name}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


@router.post(
    "/index",
    response_model=None,
    responses={200: {"model": list[RepositoryEntry]}, **problems(*_ADMIN_ERRORS)},
    openapi_extra=_optional(IndexRequest),
)
async def index(request: Request) -> Response:
    """Every version on disk or in memory, and why one that is on disk is not served."""
    wanted = await _read(request, IndexRequest)
    entries = await wiring_of(request).repository.index()
    listed = answers.repository(entry for entry in entries if entry.ready or not wanted.ready)
    return Response(orjson.dumps(listed), media_type="application/json")


@router.post(
    "/models/{name}/load",
    response_model=None,
    responses={
        200: {"description": "Every version on disk is served."},
        **problems(*_ADMIN_ERRORS, UnknownModel, SingleWorkerOnly, BundleRefused),
    },
    openapi_extra=_optional(LoadRequest),
)
async def load(request: Request, name: str) -> Response:
    """Serve the bundle as it is on disk; versions that have not changed serve on."""
    await _read(request, LoadRequest)
    await _repository(request).load(name)
    return Response()


@router.post(
    "/models/{name}/unload",
    response_model=None,
    responses={
        200: {"description": "It is not found any more; what was accepted is still answered."},
        **problems(*_ADMIN_ERRORS, UnknownModel, SingleWorkerOnly),
    },
    openapi_extra=_optional(UnloadRequest),
)
async def unload(request: Request, name: str) -> Response:
    """Serve no version of the bundle any more, and free its memory."""
    await _read(request, UnloadRequest)
    await _repository(request).unload(name)
    return Response()


def _repository(request: Request) -> Repository:
    """The repository, if a change of it reaches everybody."""
    wiring = wiring_of(request)
    if wiring.workers > 1:
        raise SingleWorkerOnly(
            "Only one of several workers would hear of it: set LIMBECK_WATCH and change the folder."
        )
    return wiring.repository


async def _read(request: Request, body: type[BodyT]) -> BodyT:
    """The request's body, which may be left out.

    The framework would read it before the key is checked, and whatever its size.
    """
    content = bytearray()
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > _MAX_BODY_BYTES:
                raise BodyTooLarge(f"The body may have {_MAX_BODY_BYTES} bytes.")
    except ClientDisconnect as error:
        raise broken_off(request) from error
    try:
        return body.model_validate_json(bytes(content) or b"{}")
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))[:100] or "body"
        raise InvalidParameter(f"{place}: {problem['msg'][:200]}") from error
