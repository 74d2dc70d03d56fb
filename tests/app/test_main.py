"""The app as a whole: what it is built from, and what it says of itself."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.bundle import BundleError
from app.main import create_app
from app.settings import Settings, SettingsError
from tests.app.routes.test_failures import UPLOADS
from tests.bundles import make_bundle
from tests.serving import running


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    found = client.get("/openapi.json").json()
    assert isinstance(found, dict)
    return found


def test_the_documented_routes_are_those_there_are(document: dict[str, Any]) -> None:
    assert {(path, method) for path, item in document["paths"].items() for method in item} == {
        ("/purify", "post"),
        ("/classify", "post"),
        ("/models", "get"),
        ("/models/{bundle}", "get"),
        ("/health/live", "get"),
        ("/health/ready", "get"),
        ("/metrics", "get"),
        ("/v2/repository/index", "post"),
        ("/v2/repository/models/{name}/load", "post"),
        ("/v2/repository/models/{name}/unload", "post"),
    }


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    references = set(re.findall(r"'#/components/schemas/(\w+)'", str(document)))
    assert references <= set(schemas)
    assert "Problem" in references
    assert "HTTPValidationError" not in str(document)


@pytest.mark.parametrize("route", ["/classify", "/purify"])
def test_every_failure_of_an_upload_is_documented(document: dict[str, Any], route: str) -> None:
    responses = document["paths"][route]["post"]["responses"]
    codes = [*((status, code) for *_, status, code in UPLOADS)]
    codes += [(404, "unknown_model"), (422, "invalid_parameter"), (500, "inference_failed")]
    codes += [(503, "queue_full"), (503, "not_ready"), (504, "deadline_exceeded")]
    codes += [(406, "not_acceptable")] if route == "/purify" else []
    for status, code in codes:
        response = responses[str(status)]
        assert f"`{code}`" in response["description"]
        assert list(response["content"]) == ["application/problem+json"]


@pytest.mark.parametrize("route", ["/classify", "/purify"])
def test_both_kinds_of_body_are_documented(document: dict[str, Any], route: str) -> None:
    body = document["paths"][route]["post"]["requestBody"]
    assert set(body["content"]) == {"image/*", "multipart/form-data"}
    assert "file" in body["content"]["multipart/form-data"]["schema"]["properties"]


def test_every_kind_of_answer_is_documented(document: dict[str, Any]) -> None:
    answers = document["paths"]["/purify"]["post"]["responses"]["200"]["content"]
    assert set(answers) == {"image/png", "application/x-npy", "application/json"}
    parameters = document["paths"]["/classify"]["post"]["parameters"]
    assert {parameter["name"] for parameter in parameters} == {
        "model", "purify", "detect", "top_k", "X-Request-Timeout-Ms",
    }  # fmt: skip


def test_the_documentation_is_served(client: httpx.Client) -> None:
    assert "swagger" in client.get("/docs").text.lower()


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/models", "/metrics", "/docs"])
def test_whatever_can_be_got_has_a_head(client: httpx.Client, path: str) -> None:
    answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == client.get(path).headers["content-type"]
    assert client.head("/purify").status_code == 405
    counted = f'limbeck_requests_total{{method="HEAD",route="{path}",status="200"}} 1.0'
    assert counted in client.get("/metrics").text


def test_other_origins_are_allowed_only_if_named(settings: Settings) -> None:
    origin = {"Origin": "https://page.example"}
    with running(create_app(settings)) as client:
        assert "access-control-allow-origin" not in client.get("/models", headers=origin).headers
    named = settings.model_copy(update={"cors_origins": ("https://page.example",)})
    with running(create_app(named)) as client:
        headers = client.get("/models", headers=origin).headers
        assert headers["access-control-allow-origin"] == "https://page.example"
        assert "x-request-id" in headers


def test_a_bundle_that_is_not_whole_is_not_served(tmp_path: Path, settings: Settings) -> None:
    (make_bundle(tmp_path) / "classifier.onnx").write_bytes(b"changed")
    with pytest.raises(BundleError, match=r"classifier\.onnx"):
        create_app(settings.model_copy(update={"models_dir": tmp_path}))


def test_without_settings_the_environment_is_read(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMBECK_MODELS_DIR", str(models_dir))
    monkeypatch.setenv("LIMBECK_MAX_BATCH_SIZE", "1")
    monkeypatch.setenv("LIMBECK_DEVICE", "cpu")
    assert create_app().state.wiring.service.catalog.default == "brittle"
    monkeypatch.setenv("LIMBECK_NO_SUCH", "1")
    with pytest.raises(SettingsError):
        create_app()
