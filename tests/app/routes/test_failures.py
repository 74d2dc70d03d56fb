"""Every failure, over HTTP: its true status, its code, and that it cost no inference."""

from collections.abc import Iterator

import httpx
import pytest

from tests.images import PGM_TYPE, encoded, gradient, multipart, noise, pgm, png_bomb

GREY = pgm(102)
PNG = {"Content-Type": "image/png"}
FORM = {"Content-Type": "multipart/form-data; boundary=limit"}
FORM_ONLY = {"Content-Type": "multipart/form-data"}
GIF = encoded(gradient(8, 8), "GIF")
DAMAGED = encoded(gradient(40, 40)).replace(b"IDAT", b"IDAX")
LARGE = encoded(gradient(1001, 1000), "JPEG", quality=1)


def batches(client: httpx.Client) -> float:
    """How many batches were computed so far."""
    lines = client.get("/metrics").text.splitlines()
    return sum(float(n.split()[-1]) for n in lines if n.startswith("limbeck_batch_size_count"))


def check(client: httpx.Client, request: httpx.Request, status: int, code: str) -> httpx.Response:
    before = batches(client)
    answer = client.send(request)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert answer.json()["title"] and "x-request-id" in answer.headers
    assert batches(client) == before
    return answer


def form(*parts: tuple[str, bytes]) -> bytes:
    return multipart(*parts)[0]


UPLOADS = [
    ("no body", b"", {}, 400, "empty_body"),
    ("no raw body", b"", PNG, 400, "empty_body"),
    ("an empty form body", b"", FORM, 400, "empty_body"),
    ("a form without a boundary", b"x", FORM_ONLY, 400, "malformed_multipart"),
    ("no form at all", b"hello", FORM, 400, "malformed_multipart"),
    ("a form cut short", form(("file", GREY))[:-20], FORM, 400, "malformed_multipart"),
    ("a form without parts", b"--limit--\r\n", FORM, 422, "missing_file"),
    ("a form without a file", form(("image", GREY)), FORM, 422, "missing_file"),
    ("a form with an empty file", form(("file", b"")), FORM, 422, "missing_file"),
    ("a foreign part", form(("file", GREY), ("top_k", b"1")), FORM, 422, "invalid_parameter"),
    ("too many files", form(*[("file", GREY)] * 5), FORM, 413, "too_many_images"),
    ("too many parts", form(*[("x", b"")] * 50), FORM, 413, "too_many_images"),
    ("no image", b"hello", PNG, 422, "not_an_image"),
    ("a truncated image", encoded(gradient(40, 40))[:-30], PNG, 422, "corrupt_image"),
    ("a corrupt image", DAMAGED, PNG, 422, "corrupt_image"),
    ("another format", GIF, {"Content-Type": "image/gif"}, 415, "unsupported_format"),
    ("another format in disguise", GIF, PNG, 415, "unsupported_format"),
    ("text", GREY, {"Content-Type": "text/plain"}, 415, "unsupported_content_type"),
    ("no content type", GREY, {}, 415, "unsupported_content_type"),
    ("too many bytes", bytes(20_001), PNG, 413, "body_too_large"),
    ("a file of too many bytes", form(("file", bytes(20_001))), FORM, 413, "body_too_large"),
    ("a form of too many bytes", form(*[("file", bytes(19_000))] * 3), FORM, 413, "body_too_large"),
    ("too many pixels", LARGE, PNG, 413, "too_many_pixels"),
    ("a bomb", png_bomb(60_000, 60_000), PNG, 413, "too_many_pixels"),
]  # fmt: skip


@pytest.mark.parametrize("route", ["/classify", "/purify"])
@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [pytest.param(*upload[1:], id=upload[0]) for upload in UPLOADS],
)
def test_bad_uploads(
    client: httpx.Client,
    route: str,
    content: bytes,
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    check(
        client, client.build_request("POST", route, content=content, headers=headers), status, code
    )


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("model=none", 404, "unknown_model"),
        ("model=tiny@9", 404, "unknown_model"),
        ("model=../../etc", 404, "unknown_model"),
        ("model=" + "x" * 101, 422, "invalid_parameter"),
        ("top_k=0", 422, "invalid_parameter"),
        ("top_k=many", 422, "invalid_parameter"),
        ("purify=perhaps", 422, "invalid_parameter"),
        ("purfy=true", 422, "invalid_parameter"),
    ],
)
def test_bad_parameters(client: httpx.Client, query: str, status: int, code: str) -> None:
    url = f"/classify?{query}"
    request = client.build_request("POST", url, content=GREY, headers=PGM_TYPE)
    answer = check(client, request, status, code)
    if code == "invalid_parameter":
        (error,) = answer.json()["errors"]
        assert error["parameter"] == query.partition("=")[0]


@pytest.mark.parametrize("timeout", ["0", "-1", "soon", "1.5", "", "9" * 400])
@pytest.mark.parametrize("route", ["/classify", "/purify"])
def test_a_timeout_that_is_no_number_of_milliseconds(
    client: httpx.Client, route: str, timeout: str
) -> None:
    headers = {**PGM_TYPE, "X-Request-Timeout-Ms": timeout}
    request = client.build_request("POST", route, content=GREY, headers=headers)
    answer = check(client, request, 422, "invalid_parameter")
    assert "X-Request-Timeout-Ms" in answer.json()["detail"]


def test_an_answer_does_not_grow_with_the_number_of_bad_parameters(client: httpx.Client) -> None:
    url = "/classify?" + "&".join(f"p{number}" for number in range(5000))
    request = client.build_request("POST", url, content=GREY, headers=PGM_TYPE)
    answer = check(client, request, 422, "invalid_parameter")
    assert len(answer.json()["errors"]) == 10


@pytest.mark.parametrize("accept", ["text/html", "image/jpeg", "image/png;q=0"])
def test_an_answer_that_is_not_acceptable(client: httpx.Client, accept: str) -> None:
    headers = {**PGM_TYPE, "Accept": accept}
    request = client.build_request("POST", "/purify", content=GREY, headers=headers)
    check(client, request, 406, "not_acceptable")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/classify/", 404, "not_found"),
        ("GET", "/models/none", 404, "unknown_model"),
        ("GET", "/classify", 405, "method_not_allowed"),
        ("DELETE", "/models", 405, "method_not_allowed"),
        ("PATCH", "/classify", 405, "method_not_allowed"),
    ],
)
def test_bad_routes(client: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    answer = check(client, client.build_request(method, path), status, code)
    assert ("allow" in answer.headers) == (status == 405)


def test_of_several_files_the_broken_one_is_named(client: httpx.Client) -> None:
    body = form(("file", GREY), ("file", b"hello"), ("file", GREY))
    request = client.build_request("POST", "/classify", content=body, headers=FORM)
    assert check(client, request, 422, "not_an_image").json()["file_index"] == 1


def test_an_image_that_the_model_fails_on_fails_alone(client: httpx.Client) -> None:
    white = client.post("/classify?model=brittle", content=pgm(255), headers=PGM_TYPE)
    assert (white.status_code, white.json()["code"]) == (500, "inference_failed")
    assert client.post("/classify?model=brittle", content=GREY, headers=PGM_TYPE).is_success


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=limit"])
def test_a_body_that_does_not_end_is_refused_without_a_length(
    client: httpx.Client, kind: str
) -> None:
    beginning = b'--limit\r\nContent-Disposition: form-data; name="file"\r\n\r\n'

    def pieces() -> Iterator[bytes]:
        yield beginning
        yield from (bytes(10_000) for _ in range(2_000))

    request = client.build_request(
        "POST", "/classify", content=pieces(), headers={"Content-Type": kind}
    )
    assert "content-length" not in request.headers
    check(client, request, 413, "body_too_large")


def test_a_content_length_that_lies_is_not_believed(client: httpx.Client) -> None:
    noisy = encoded(gradient(8, 8)) + noise(8, 8).tobytes()
    assert client.post("/classify", content=noisy, headers=PNG).is_success
