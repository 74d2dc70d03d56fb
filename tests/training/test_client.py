import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.training.stub_service import Reply, Step, StubService, stub
from training.address import address_of
from training.client import Client, OutOfTime, Patience, ServiceFailure

PATIENT = Patience()
FINE = Reply(body=b'{"fine": true}')


def busy(status: int = 503, retry_after: str | None = "0") -> Reply:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    problem = {"title": "Busy", "code": "queue_full", "detail": "The queue is full."}
    return Reply(status, json.dumps(problem).encode(), headers)


def client_of(
    service: StubService,
    patience: Patience = PATIENT,
    pause: Callable[[float], None] | None = None,
) -> Client:
    def never(seconds: float) -> None:
        assert seconds == 0, "no test waits"

    return Client(service.address, patience=patience, pause=pause or never)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_passes_is_waited_for(status: int) -> None:
    with stub(busy(status), busy(status), FINE) as service:
        client = client_of(service)
        assert client.get("/models") == {"fine": True}
        client.close()
    assert (client.tally.requests, client.tally.repeated) == (3, 2)
    assert [path for path, _, _ in service.asked] == ["/models"] * 3


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("7", [7.0, 7.0]), ("1.5", [1.5, 1.5]), (None, [0.5, 1.0]), ("soon", [0.5, 1.0])],
)
def test_it_waits_as_long_as_it_is_asked_to(retry_after: str | None, seconds: list[float]) -> None:
    waits: list[float] = []
    with stub(busy(503, retry_after), busy(429, retry_after), FINE) as service:
        client = client_of(service, pause=waits.append)
        client.get("/")
        client.close()
    assert waits == seconds
    assert client.tally.waited_s == sum(seconds)


def test_a_date_to_come_back_at_is_understood() -> None:
    waits: list[float] = []
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    with stub(busy(503, later), busy(503, "Thu, 01 Jan 2015 00:00:00 GMT"), FINE) as service:
        client = client_of(service, pause=waits.append)
        client.get("/")
        client.close()
    assert 20 < waits[0] <= 40 and waits[1] == 0


def test_after_some_attempts_it_gives_up() -> None:
    with stub(busy()) as service:
        client = client_of(service, Patience(attempts=3))
        with pytest.raises(ServiceFailure, match="3 attempts failed, at last: / answers 503 queue"):
            client.get("/")
        client.close()
    assert len(service.asked) == 3


def test_a_wait_that_is_too_long_is_not_begun() -> None:
    with stub(busy(429, "3600")) as service:
        client = client_of(service)
        with pytest.raises(ServiceFailure, match="asks to wait 3600 s, which is more than 60 s"):
            client.get("/")
        client.close()
    assert len(service.asked) == 1


def test_the_whole_time_is_bounded() -> None:
    with stub(FINE, busy(503, "30")) as service:
        client = client_of(service, Patience(total_s=29))
        client.get("/")
        with pytest.raises(OutOfTime, match=r"the 0\.483333 minutes are over"):
            client.get("/")
        client.close()
        late = client_of(service, Patience(total_s=0))
        with pytest.raises(OutOfTime):
            late.get("/")
    assert len(service.asked) == 2


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(401, busy().body), "/models answers 401 queue_full: The queue is full"),
        (Reply(500, b"oops"), "/models answers 500$"),
        (Reply(302, b"", {"Location": "/elsewhere"}), "/models answers 302$"),
        (Reply(404, b"[]"), "/models answers 404$"),
        (Reply(200, b"<html>"), "answers no JSON"),
    ],
)
def test_what_does_not_pass_is_not_asked_again(reply: Reply, message: str) -> None:
    with stub(reply) as service:
        client = client_of(service)
        with pytest.raises(ServiceFailure, match=message):
            client.get("/models")
        client.close()
    assert len(service.asked) == 1


@pytest.mark.parametrize("trouble", ["drop", "hang", "drip"])
def test_a_broken_or_silent_connection_is_replaced(trouble: Step) -> None:
    waits: list[float] = []
    with stub(FINE, trouble, FINE) as service:
        client = client_of(service, Patience(timeout_s=0.3), waits.append)
        client.get("/")
        assert client.get("/") == {"fine": True}
        client.close()
    assert (client.tally.requests, client.tally.repeated, waits) == (3, 1, [0.5])


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    with stub(Reply(body=b" " * (17 << 20))) as service:
        client = client_of(service)
        with pytest.raises(ServiceFailure, match="is longer than"):
            client.get("/")
        client.close()


def test_one_connection_serves_all_requests() -> None:
    with stub(FINE) as service:
        client = client_of(service)
        client.get("/a")
        connection = client._connection
        assert connection is not None
        before = connection.sock.getsockname()
        for _ in range(5):
            client.post("/b", b"body", "text/plain")
        assert connection.sock.getsockname() == before
        client.close()
    path, headers, body = service.asked[-1]
    assert (path, headers["Content-Type"], body) == ("/b", "text/plain", b"body")
    assert client.tally.repeated == 0
    assert "Authorization" not in headers


def test_the_key_is_sent_and_not_shown() -> None:
    with stub(Reply(401, b"{}")) as service:
        client = Client(service.address, "secret-key")
        with pytest.raises(ServiceFailure) as raised:
            client.get("/")
        client.close()
    assert service.asked[0][1]["Authorization"] == "Bearer secret-key"
    assert "secret-key" not in str(raised.value) + repr(client)


def test_nobody_there_is_told_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = address_of(f"http://127.0.0.1:{taken.getsockname()[1]}")
        client = Client(address)
        with pytest.raises(ServiceFailure, match=r"cannot be reached: ConnectionRefusedError"):
            client.get("/")
        client.close()
    assert client.tally.requests == 1
