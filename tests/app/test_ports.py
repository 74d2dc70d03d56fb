"""The two doors, as the middleware sees them; `tests/e2e/test_security.py` opens real ones."""

import asyncio

import pytest
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.ports import PortMiddleware
from app.trace import Trace

MAIN, ADMIN = 8000, 9000

# path, answers on the main port, answers on the admin port
ROUTES = [
    ("/health/live", True, True),
    ("/health/ready", True, True),
    ("/metrics", False, True),
    ("/metrics/", False, True),
    ("/v2/repository/index", False, True),
    ("/v2/repository/models/tiny/load", False, True),
    ("/v2/repositoryx", True, False),
    ("/metricsx", True, False),
    ("/v2/models/tiny/infer", True, False),
    ("/classify", True, False),
    ("/docs", True, False),
    ("/", True, False),
]


def status(scope: Scope) -> int:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await Response()(scope, receive, send)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    asyncio.run(PortMiddleware(inner, ADMIN)(scope, receive, send))
    found = sent[0]["status"]
    assert isinstance(found, int)
    return found


def scope_of(path: str, port: int, host: str = "test") -> Scope:
    headers = [(b"host", host.encode()), (b"x-forwarded-port", b"9000")]
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "headers": headers,
        "server": ("127.0.0.1", port),
        "trace": Trace("id"),
    }


@pytest.mark.parametrize(("path", "on_main", "on_admin"), ROUTES)
def test_every_path_answers_at_its_door(path: str, on_main: bool, on_admin: bool) -> None:
    assert status(scope_of(path, MAIN)) == (200 if on_main else 404)
    assert status(scope_of(path, ADMIN)) == (200 if on_admin else 404)


def test_the_refusal_is_noted() -> None:
    scope = scope_of("/metrics", MAIN)
    status(scope)
    assert scope["trace"].error == "not_found"


def test_no_header_opens_the_other_door() -> None:
    assert status(scope_of("/metrics", MAIN, host="127.0.0.1:9000")) == 404


@pytest.mark.parametrize("server", [None, ("/run/limbeck.sock", None)])
def test_without_a_port_nothing_is_administered(server: object) -> None:
    assert status({**scope_of("/metrics", MAIN), "server": server}) == 404
    assert status({**scope_of("/classify", MAIN), "server": server}) == 200
