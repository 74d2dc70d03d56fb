from collections.abc import Iterator

import httpx
import pytest
from pydantic import SecretStr

from app.main import create_app
from app.settings import Settings
from tests.images import PGM_TYPE, pgm
from tests.serving import running

KEYS = ("old-key", "new-key")

# method, path
GUARDED = [
    ("POST", "/classify"),
    ("POST", "/purify"),
    ("GET", "/models"),
    ("GET", "/models/tiny"),
]


@pytest.fixture(scope="module")
def guarded(settings: Settings) -> Iterator[httpx.Client]:
    """A service that asks for keys."""
    keys = tuple(SecretStr(key) for key in KEYS)
    with running(create_app(settings.model_copy(update={"api_keys": keys}))) as client:
        yield client


def send(
    client: httpx.Client, method: str, path: str, headers: dict[str, str] | None = None
) -> httpx.Response:
    content = pgm(102) if method == "POST" else None
    return client.request(method, path, content=content, headers={**PGM_TYPE, **(headers or {})})


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("key", KEYS)
def test_every_key_opens_every_route_in_both_headers(
    guarded: httpx.Client, method: str, path: str, key: str
) -> None:
    for headers in (
        {"Authorization": f"Bearer {key}"},
        {"Authorization": f"bearer {key}"},
        {"X-API-Key": key},
        {"X-API-Key": key, "Authorization": "Basic dXNlcjpwYXNz"},
    ):
        assert send(guarded, method, path, headers).status_code == 200


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_without_a_key_nothing_is_answered(guarded: httpx.Client, method: str, path: str) -> None:
    answer = send(guarded, method, path)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == 'Bearer realm="limbeck"'


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer other"},
        {"Authorization": "Bearer old-key new-key"},
        {"Authorization": "Bearer old-key,new-key"},
        {"X-API-Key": "old-ke"},
        {"X-API-Key": "old-key2"},
        {"X-API-Key": "OLD-KEY"},
    ],
)
def test_another_key_opens_nothing(guarded: httpx.Client, headers: dict[str, str]) -> None:
    answer = send(guarded, "POST", "/classify", headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].endswith('error="invalid_token"')


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic b2xkLWtleQ=="}])
def test_a_bad_request_without_a_key_learns_nothing_else(
    guarded: httpx.Client, headers: dict[str, str]
) -> None:
    for path in ("/classify?model=none", "/classify?top_k=x", "/models/none"):
        method = "POST" if path.startswith("/classify") else "GET"
        assert send(guarded, method, path, headers).status_code == 401


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics", "/openapi.json"])
def test_probes_and_scrapers_need_no_key(guarded: httpx.Client, path: str) -> None:
    assert guarded.get(path).status_code == 200


def test_the_documentation_says_where_a_key_is_needed(
    guarded: httpx.Client, client: httpx.Client
) -> None:
    paths = guarded.get("/openapi.json").json()["paths"]
    for method, path in (("post", "/classify"), ("get", "/models")):
        assert paths[path][method]["security"] == [{"bearer": []}, {"key": []}]
        assert list(paths[path][method]["responses"]["401"]["content"]) == [
            "application/problem+json"
        ]
    assert "security" not in paths["/health/live"]["get"]
    for path, item in client.get("/openapi.json").json()["paths"].items():
        for operation in item.values():
            # The admin routes are never open.
            admin = path.startswith("/v2/repository/")
            assert ("security" in operation, "401" in operation["responses"]) == (admin, admin)
