from collections.abc import Iterator

import httpx
import pytest
from pydantic import SecretStr

from app.errors import RateLimited
from app.main import create_app
from app.rates import MAX_CLIENTS, RateLimiter, WindowStorage, parse_rate
from app.settings import Settings
from tests.images import PGM_TYPE, pgm
from tests.serving import running


class Clock:
    """A time that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def allowed(limiter: RateLimiter, address: str = "192.0.2.1") -> bool:
    try:
        limiter.count_address(address)
    except RateLimited:
        return False
    return True


@pytest.mark.parametrize("text", ["100/second", "6000 per minute", "10/hour"])
def test_a_rate_is_understood(text: str) -> None:
    assert parse_rate(text).amount > 0


@pytest.mark.parametrize("text", ["", "fast", "0/second", "-1/second", "10", "9/second;1/hour"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="rate"):
        parse_rate(text)


def test_the_window_slides() -> None:
    clock = Clock()
    clock.now_s -= clock.now_s % 60  # the beginning of a minute
    limiter = RateLimiter("6/minute", clock)
    assert [allowed(limiter) for _ in range(7)] == [True] * 6 + [False]
    clock.now_s += 60  # what was asked a moment before the turn of the minute still counts
    assert not allowed(limiter)
    clock.now_s += 20  # two thirds of it do
    assert [allowed(limiter) for _ in range(3)] == [True, True, False]
    clock.now_s += 120
    assert [allowed(limiter) for _ in range(7)] == [True] * 6 + [False]


def test_clients_do_not_share_their_rate_and_an_ipv6_network_does() -> None:
    limiter = RateLimiter("1/hour", Clock())
    assert allowed(limiter, "192.0.2.1") and allowed(limiter, "192.0.2.2")
    assert allowed(limiter, "2001:db8::1")
    assert not allowed(limiter, "2001:db8::2:1")
    assert allowed(limiter, "2001:db8:0:1::1")
    assert not allowed(limiter, "::ffff:192.0.2.1")
    assert allowed(limiter, "") and allowed(limiter, "no address")
    limiter.count_key(0)
    limiter.count_key(1)
    with pytest.raises(RateLimited):
        limiter.count_key(0)


def test_retry_after_lies_within_the_window() -> None:
    limiter = RateLimiter("1/minute")
    limiter.count_key(0)
    with pytest.raises(RateLimited) as refused:
        limiter.count_key(0)
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 60


def test_only_the_most_recent_clients_are_kept() -> None:
    storage = WindowStorage(100, Clock())
    storage.acquire_sliding_window_entry("old", 1, 60)
    for number in range(10_000):
        storage.acquire_sliding_window_entry("kept", 1_000_000, 60)
        storage.acquire_sliding_window_entry(f"client {number}", 1, 60)
    assert len(storage) == 100
    assert storage.get_sliding_window("kept", 60)[2] == 10_000
    assert storage.get_sliding_window("old", 60)[2] == 0
    storage.clear_sliding_window("kept", 60)
    assert storage.reset() == 99 and len(storage) == 0


def test_a_crowd_of_addresses_does_not_let_a_key_start_again() -> None:
    limiter = RateLimiter("1/hour", Clock())
    limiter.count_key(0)
    for number in range(MAX_CLIENTS + 1):
        limiter.count_address(f"client {number}")
    with pytest.raises(RateLimited):
        limiter.count_key(0)


@pytest.fixture
def limited(settings: Settings) -> Iterator[httpx.Client]:
    changes = {"rate_limit": "2/hour", "api_keys": (SecretStr("one"), SecretStr("two"))}
    with running(create_app(settings.model_copy(update=changes))) as client:
        yield client


def classify(client: httpx.Client, **headers: str) -> httpx.Response:
    return client.post("/classify", content=pgm(102), headers={**PGM_TYPE, **headers})


def test_each_key_has_its_rate_and_guesses_have_one_too(limited: httpx.Client) -> None:
    one, two = {"X-API-Key": "one"}, {"Authorization": "Bearer two"}
    assert [classify(limited, **one).status_code for _ in range(3)] == [200, 200, 429]
    assert [classify(limited, **two).status_code for _ in range(3)] == [200, 200, 429]
    guesses = [classify(limited, **{"X-API-Key": f"guess {n}"}).status_code for n in range(3)]
    assert guesses == [401, 401, 429]
    answer = classify(limited, **one)
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert answer.json()["detail"] == "Allowed are 2 per 1 hour."
    assert 1 <= int(answer.headers["retry-after"]) <= 3600
    assert limited.get("/models", headers=one).status_code == 429
    for path in ("/health/live", "/health/ready", "/metrics", "/openapi.json"):
        assert [limited.get(path).status_code for _ in range(3)] == [200] * 3
    assert 'limbeck_rejected_total{reason="rate_limited"}' in limited.get("/metrics").text
    paths = limited.get("/openapi.json").json()["paths"]
    assert "429" in paths["/classify"]["post"]["responses"]


def test_without_keys_an_address_has_its_rate_and_needs_no_body(settings: Settings) -> None:
    with running(create_app(settings.model_copy(update={"rate_limit": "2/hour"}))) as client:
        assert [classify(client).status_code for _ in range(3)] == [200, 200, 429]
        huge = client.post("/classify", content=bytes(1_000_000), headers=PGM_TYPE)
        assert huge.status_code == 429  # 413 had it been looked at
        paths = client.get("/openapi.json").json()["paths"]
        assert "security" not in paths["/classify"]["post"]


def test_without_a_rate_nothing_is_limited(client: httpx.Client) -> None:
    assert {client.get("/models").status_code for _ in range(50)} == {200}
