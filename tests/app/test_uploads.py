"""The parts of reading bodies that no complete HTTP request reaches."""

import asyncio
from collections.abc import Iterable

import pytest
from starlette.requests import Request
from starlette.types import Message

from app.budget import ByteBudget, ByteHold
from app.errors import BodyTooLarge, ClientGone, EmptyBody, MalformedMultipart, QueueFull
from app.uploads import UploadLimits, Uploads, read_uploads
from tests.images import multipart

LIMITS = UploadLimits(max_image_bytes=100, max_request_bytes=1000, max_request_images=3)
PNG = {"content-type": "image/png"}


def read(
    messages: Iterable[Message],
    headers: dict[str, str],
    limits: UploadLimits = LIMITS,
    budget: ByteBudget | None = None,
) -> tuple[Uploads | Exception, int]:
    """What comes of the body, and how many messages were left unread."""
    waiting = list(messages)

    async def receive() -> Message:
        return waiting.pop(0)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "method": "POST", "headers": raw}, receive)
    try:
        with ByteHold(budget or ByteBudget(10_000)) as hold:
            result: Uploads | Exception = asyncio.run(read_uploads(request, limits, hold))
    except Exception as error:
        result = error
    return result, len(waiting)


def pieces(*contents: bytes) -> list[Message]:
    return [{"type": "http.request", "body": content, "more_body": True} for content in contents]


END: Message = {"type": "http.request", "body": b"", "more_body": False}
GONE: Message = {"type": "http.disconnect"}
CHUNKED = {**PNG, "transfer-encoding": "chunked"}


def test_a_chunked_body_is_put_together() -> None:
    assert read([*pieces(b"ab", b"", b"c"), END], CHUNKED)[0] == Uploads([b"abc"])


def test_a_chunked_body_without_content_is_empty() -> None:
    assert isinstance(read([END], CHUNKED)[0], EmptyBody)
    headers = {"content-type": "multipart/form-data; boundary=b", "transfer-encoding": "chunked"}
    assert isinstance(read([END], headers)[0], EmptyBody)


def test_reading_stops_where_the_limit_is_passed() -> None:
    error, unread = read([*pieces(b"x" * 60, b"x" * 60, b"x" * 60), END], CHUNKED)
    assert isinstance(error, BodyTooLarge)
    assert unread == 2


def test_an_announced_length_above_the_limit_is_refused_unread() -> None:
    error, unread = read([END], {**PNG, "content-length": "101"})
    assert isinstance(error, BodyTooLarge)
    assert unread == 1


def test_the_limit_is_inclusive() -> None:
    assert read([*pieces(b"x" * 100), END], CHUNKED)[0] == Uploads([b"x" * 100])


def test_an_unreadable_length_is_counted_instead() -> None:
    headers = {**PNG, "content-length": "a lot"}
    assert read([*pieces(b"ab"), END], headers)[0] == Uploads([b"ab"])


@pytest.mark.parametrize("content_type", ["image/png", "multipart/form-data; boundary=b"])
def test_a_client_that_hangs_up_on_the_way_is_gone(content_type: str) -> None:
    headers = {"content-type": content_type, "content-length": "50"}
    assert isinstance(read([*pieces(b"--b\r\n"), GONE], headers)[0], ClientGone)


def test_a_form_is_read_in_any_pieces() -> None:
    body, headers = multipart(("file", b"one"), ("file", b"\r\n--limi\r\n"))
    headers = {"content-type": headers["Content-Type"], "transfer-encoding": "chunked"}
    for size in (1, 2, 5, len(body)):
        parts = pieces(*(body[i : i + size] for i in range(0, len(body), size)))
        uploads, _ = read([*parts, END], headers)
        assert uploads == Uploads([b"one", b"\r\n--limi\r\n"])
        assert uploads.several


def test_a_boundary_of_absurd_length_is_refused() -> None:
    headers = {
        "content-type": "multipart/form-data; boundary=" + "b" * 5000,
        "content-length": "10",
    }
    assert isinstance(read([*pieces(b"x" * 10), END], headers)[0], MalformedMultipart)


def test_a_part_with_countless_headers_is_refused() -> None:
    body = b"--b\r\n" + b"X-Y: z\r\n" * 100 + b"\r\nfile\r\n--b--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b", "content-length": "900"}
    assert isinstance(read([*pieces(body), END], headers)[0], MalformedMultipart)


@pytest.mark.parametrize("content_type", ["image/png", "multipart/form-data; boundary=b"])
def test_overload_is_told_before_anything_is_read(content_type: str) -> None:
    headers = {"content-type": content_type, "content-length": "90"}
    error, unread = read([*pieces(b"x" * 90), END], headers, budget=ByteBudget(80))
    assert isinstance(error, QueueFull)
    assert unread == 2


@pytest.mark.parametrize(
    ("content_type", "beginning"),
    [
        ("image/png", b""),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n',
        ),
    ],
)
def test_overload_stops_the_reading_of_a_body_of_unknown_length(
    content_type: str, beginning: bytes
) -> None:
    headers = {"content-type": content_type, "transfer-encoding": "chunked"}
    budget = ByteBudget(70)
    chunks = pieces(beginning + b"x" * 30, b"x" * 30, b"x")
    with ByteHold(budget) as other:
        other.add(20)
        error, unread = read([*chunks, END], headers, budget=budget)
        assert isinstance(error, QueueFull)
        assert (unread, budget.held_bytes) == (2, 20)


def test_of_a_form_only_the_files_are_held() -> None:
    body, headers = multipart(("file", b"one"), ("file", b"three"))
    message: Message = {"type": "http.request", "body": body, "more_body": False}
    budget = ByteBudget(1000)

    async def receive() -> Message:
        return message

    raw = [(b"content-type", headers["Content-Type"].encode()), (b"transfer-encoding", b"chunked")]
    request = Request({"type": "http", "method": "POST", "headers": raw}, receive)
    with ByteHold(budget) as hold:
        asyncio.run(read_uploads(request, LIMITS, hold))
        assert budget.held_bytes == len("one") + len("three")
