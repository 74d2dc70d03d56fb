"""The service does what its OpenAPI document says, for requests that nobody thought of.

A real server answers, so that whatever a client can send is met by the whole of it.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.main import create_app
from app.settings import Settings
from tests.bundles import Design, make_bundle
from tests.images import encoded, gradient, pgm
from tests.serving import running

Operation = schemathesis.APIOperation[Any, Any, Any, Any]
Case = schemathesis.Case[Any]

# Bounded, because the whole document is tried; a longer run is a matter of this number.
EXAMPLES = 20
OVERLOAD = (503, 504)
IMAGES = [pgm(102), encoded(gradient(20, 30)), encoded(gradient(20, 30), "JPEG"), b"no image"]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

# The document cannot say what an image is.
schemathesis.openapi.media_type("image/*", st.sampled_from(IMAGES) | st.binary(max_size=200))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    models = tmp_path_factory.mktemp("models")
    make_bundle(models, "tiny", 1, Design(card={"rows": []}))
    chosen = Settings(models_dir=models, device="cpu", inference_threads=1, max_batch_size=4)
    with running(create_app(chosen)) as client:
        yield client


@pytest.fixture(scope="module")
def operations(served: httpx.Client) -> dict[str, Operation]:
    """Method and path -> operation."""
    schema = schemathesis.openapi.from_dict(served.get("/openapi.json").json())
    found = {}
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result  # the document itself would be wrong
        found[result.ok().label] = result.ok()
    return found


LABELS = [
    "GET /health/live",
    "GET /health/ready",
    "GET /metrics",
    "GET /models",
    "GET /models/{bundle}",
    "POST /classify",
    "POST /purify",
    "POST /v2/repository/index",
    "POST /v2/repository/models/{name}/load",
    "POST /v2/repository/models/{name}/unload",
]


def test_every_operation_is_tried(operations: dict[str, Operation]) -> None:
    assert sorted(operations) == LABELS


POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
# Where nothing is to be said, nothing wrong can be said.
TRIED = [
    *((label, POSITIVE) for label in LABELS),
    *((label, NEGATIVE) for label in LABELS if label.startswith("POST")),
]


@pytest.mark.parametrize(("label", "mode"), TRIED)
def test_every_answer_is_one_that_the_document_describes(
    operations: dict[str, Operation],
    served: httpx.Client,
    label: str,
    mode: schemathesis.GenerationMode,
) -> None:
    base_url = str(served.base_url)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,  # the same requests in every run: a failure can be looked at
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operations[label].as_strategy(generation_mode=mode))
    def hold_the_service_against_the_document(case: Case) -> None:
        answer = case.call(base_url=base_url)
        if answer.status_code in OVERLOAD:
            assert answer.headers["content-type"] == ["application/problem+json"]
        else:
            case.validate_response(answer, checks=CHECKS)

    hold_the_service_against_the_document()
