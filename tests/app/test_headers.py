import base64
import hashlib
import re

import httpx
import pytest

from app.headers import page_policy, with_security
from app.main import create_app
from app.settings import Settings
from tests.images import PGM_TYPE, pgm
from tests.serving import running

POLICY = "content-security-policy"
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/classify", 200),
        ("POST", "/purify", 200),
        ("POST", "/classify?model=none", 404),
        ("POST", "/classify?top_k=x", 422),
        ("GET", "/classify", 405),
        ("GET", "/models", 200),
        ("GET", "/health/live", 200),
        ("GET", "/metrics", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs", 200),
        ("GET", "/none", 404),
    ],
)
def test_every_answer_carries_them(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    content = pgm(102) if method == "POST" else None
    answer = client.request(method, path, content=content, headers=PGM_TYPE)
    assert answer.status_code == status
    headers = answer.headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert headers[POLICY].startswith(NOTHING)
    assert (headers[POLICY] == NOTHING) == (path != "/docs")


def test_the_documentation_allows_its_own_scripts_and_no_others(client: httpx.Client) -> None:
    answer = client.get("/docs")
    directives = {
        name: sources
        for name, *sources in (part.split() for part in answer.headers[POLICY].split(";"))
    }
    (script,) = re.findall(r"<script>(.*?)</script>", answer.text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (url,) = re.findall(r'<script src="([^"]+)"', answer.text)
    (style,) = re.findall(r'<link[^>]*href="([^"]+\.css)"', answer.text)
    assert directives["script-src"] == [url, f"'sha256-{digest}'"]
    assert directives["style-src"] == [style, "'unsafe-inline'"]
    assert directives["connect-src"] == ["'self'"]
    assert re.findall(r'rel="shortcut icon" href="([^"]+)"', answer.text) == ["data:,"]


def test_what_an_answer_says_itself_stands() -> None:
    own = (b"Cache-Control", b"max-age=9")
    names = [name.lower() for name, _ in with_security([own])]
    assert with_security([own])[0] == own
    assert len(names) == len(set(names)) == 5


def test_a_page_is_allowed_what_it_names_and_nothing_else() -> None:
    assert page_policy({"img-src": ["data:"]}) == f"{NOTHING}; img-src data:"


def test_other_origins_may_read_where_they_are_named(settings: Settings) -> None:
    named = settings.model_copy(update={"cors_origins": ("https://page.example",)})
    with running(create_app(named)) as client:
        preflight = {
            "Origin": "https://page.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "X-API-Key",
        }
        answer = client.options("/classify", headers=preflight)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        other = client.options("/classify", headers=preflight | {"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
