"""Over HTTP it is asked in `routes/test_repository.py`."""

import asyncio

import pytest
from pydantic import SecretStr
from starlette.requests import Request

from app.admin import AdminCheck
from app.errors import AdminDisabled, RateLimited, Unauthorized
from app.rates import RateLimiter


def ask(key: str | None) -> Request:
    headers = [] if key is None else [(b"x-api-key", key.encode())]
    return Request({"type": "http", "headers": headers})


def test_only_the_admin_key_passes() -> None:
    check = AdminCheck(SecretStr("sesame"))
    asyncio.run(check(ask("sesame"), None, None))
    for key in (None, "", "sesam", "sesame2"):
        with pytest.raises(Unauthorized):
            asyncio.run(check(ask(key), None, None))


def test_guesses_count_against_the_address() -> None:
    check = AdminCheck(SecretStr("sesame"), RateLimiter("2/hour"))
    for _ in range(2):
        with pytest.raises(Unauthorized):
            asyncio.run(check(ask("guess"), None, None))
    with pytest.raises(RateLimited):
        asyncio.run(check(ask("guess"), None, None))
    asyncio.run(check(ask("sesame"), None, None))


def test_without_an_admin_key_nothing_passes() -> None:
    for key in (None, "", "None"):
        with pytest.raises(AdminDisabled):
            asyncio.run(AdminCheck(None)(ask(key), None, None))
