import http.client
import shutil
from collections.abc import Iterator

import httpx
import pytest
from pydantic import SecretStr

from app.main import create_app
from app.settings import Settings
from tests.bundles import make_bundle, publish_bundle
from tests.images import PGM_TYPE, pgm
from tests.serving import running

ADMIN = {"Authorization": "Bearer admin-key"}
ROUTES = ["index", "models/tiny/load", "models/tiny/unload"]


@pytest.fixture(scope="module")
def admin_settings(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Settings:
    models_dir = tmp_path_factory.mktemp("outer") / "models"
    make_bundle(models_dir)
    return settings.model_copy(
        update={
            "models_dir": models_dir,
            "admin_key": SecretStr("admin-key"),
            "api_keys": (SecretStr("api-key"),),
        }
    )


@pytest.fixture(scope="module")
def admin(admin_settings: Settings) -> Iterator[httpx.Client]:
    """A service with both kinds of keys."""
    with running(create_app(admin_settings)) as client:
        yield client


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def names(client: httpx.Client) -> list[str]:
    listed = client.get("/models", headers={"X-API-Key": "api-key"}).json()
    return [model["name"] for model in listed["models"]]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "headers",
    [{}, {"X-API-Key": "api-key"}, {"X-API-Key": "admin-ke"}, {"Authorization": "Bearer x"}],
)
def test_only_the_admin_key_opens_it(
    admin: httpx.Client, route: str, headers: dict[str, str]
) -> None:
    answer = admin.post(f"/v2/repository/{route}", headers=headers)
    assert code(answer) == (401, "unauthorized")
    assert answer.json()["error"] == answer.json()["detail"]  # what that protocol's clients read
    assert "www-authenticate" in answer.headers
    assert names(admin) == ["tiny"]


def test_the_admin_key_is_no_api_key(admin: httpx.Client) -> None:
    assert code(admin.get("/models", headers=ADMIN)) == (401, "unauthorized")


@pytest.mark.parametrize("route", ROUTES)
def test_without_an_admin_key_it_is_closed(client: httpx.Client, route: str) -> None:
    answer = client.post(f"/v2/repository/{route}", headers=ADMIN)
    assert code(answer) == (403, "admin_disabled")


def test_a_body_is_not_read_before_the_key_is_checked(admin: httpx.Client) -> None:
    answer = admin.post("/v2/repository/index", content=b"{")
    assert code(answer) == (401, "unauthorized")


def test_an_index_may_be_of_what_is_ready(admin: httpx.Client, admin_settings: Settings) -> None:
    folder = publish_bundle(admin_settings.models_dir, "unused")
    try:
        for body, expected in ((b"", 2), (b"{}", 2), (b'{"ready":true}', 1)):
            listed = admin.post("/v2/repository/index", content=body, headers=ADMIN).json()
            assert len(listed) == expected
        assert listed[0]["name"] == "tiny"
    finally:
        folder.rename(admin_settings.models_dir / ".unused")


@pytest.mark.parametrize(
    ("route", "body", "status"),
    [
        ("index", b"[]", 422),
        ("index", b"{", 422),
        ("index", b'{"ready": "perhaps"}', 422),
        ("index", b'{"other": 1}', 422),
        ("index", bytes(70_000), 413),
        # Triton takes whole models this way.
        ("models/tiny/load", b'{"parameters": {"file:1/purifier.onnx": "AAAA"}}', 422),
        ("models/tiny/load", b'{"parameters": {"config": "{}"}}', 422),
        ("models/tiny/unload", b'{"parameters": {"unload_dependents": 5}}', 422),
    ],
)
def test_a_body_that_asks_for_something_else_is_refused(
    admin: httpx.Client, route: str, body: bytes, status: int
) -> None:
    answer = admin.post(f"/v2/repository/{route}", content=body, headers=ADMIN)
    expected = "invalid_parameter" if status == 422 else "body_too_large"
    assert code(answer) == (status, expected)
    assert names(admin) == ["tiny"]


def test_what_tritons_client_sends_is_understood(admin: httpx.Client) -> None:
    unload = "/v2/repository/models/tiny/unload"
    sent = {"parameters": {"unload_dependents": False}}
    assert admin.post(unload, json=sent, headers=ADMIN).status_code == 200
    assert names(admin) == []
    load = "/v2/repository/models/tiny/load"
    assert admin.post(load, json={"parameters": {}}, headers=ADMIN).status_code == 200
    assert names(admin) == ["tiny"]


@pytest.mark.parametrize(
    "name",
    [
        *("../outside", "..%2foutside", "%2e%2e", "%2e%2e%2foutside", "..", "a%5c..%5coutside"),
        *(".hidden", "Outside", "tiny%00", "tiny%0a", "tiny@1", "tiny%2f1", "%2fetc", "x" * 65),
        "none",
    ],
)
def test_a_name_never_leaves_the_folder(
    admin: httpx.Client, admin_settings: Settings, name: str
) -> None:
    models_dir = admin_settings.models_dir
    for outside in (models_dir.parent / "outside", models_dir / ".hidden", models_dir / "Outside"):
        (outside / "1").mkdir(parents=True, exist_ok=True)
    for action in ("load", "unload"):
        status, body = post(admin, f"/v2/repository/models/{name}/{action}")
        assert status == 404, body
    assert names(admin) == ["tiny"]
    # Had anything been looked at, it would have been refused for want of a manifest.
    listed = admin.get("/models", headers={"X-API-Key": "api-key"}).json()
    assert listed["failures"] == []


def post(client: httpx.Client, path: str) -> tuple[int, bytes]:
    """The answer to a path that no client library has tidied up."""
    connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port)
    try:
        connection.request("POST", path, headers=ADMIN)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_body_that_comes_slowly_is_answered_by_the_model_of_its_end(
    admin: httpx.Client, admin_settings: Settings
) -> None:
    def body() -> Iterator[bytes]:
        yield pgm(102)[:20]
        until_read(admin)
        make_bundle(admin_settings.models_dir, version=2)
        load = "/v2/repository/models/tiny/load"
        assert admin.post(load, headers=ADMIN).status_code == 200
        yield pgm(102)[20:]

    headers = {**PGM_TYPE, "X-API-Key": "api-key"}
    answer = admin.post("/classify", content=body(), headers=headers)
    assert (answer.status_code, answer.json().get("version")) == (200, 2)
    shutil.rmtree(admin_settings.models_dir / "tiny" / "2")
    assert admin.post("/v2/repository/models/tiny/load", headers=ADMIN).status_code == 200


def until_read(client: httpx.Client) -> None:
    """Wait until the service has begun a request beside this one."""
    while "limbeck_inflight_requests 2.0" not in client.get("/metrics").text:
        pass


def test_with_several_workers_the_folder_is_the_way(settings: Settings) -> None:
    several = settings.model_copy(update={"workers": 2, "admin_key": SecretStr("admin-key")})
    with running(create_app(several)) as client:
        for route in ROUTES[1:]:
            answer = client.post(f"/v2/repository/{route}", headers=ADMIN)
            assert code(answer) == (409, "single_worker_only")
            assert "LIMBECK_WATCH" in answer.json()["detail"]
        assert client.post("/v2/repository/index", headers=ADMIN).status_code == 200
