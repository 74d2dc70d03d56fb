"""API keys: who may send images, and how often."""

import hashlib
import hmac
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Protocol

from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from app.errors import Unauthorized
from app.headers import Headers, header

if TYPE_CHECKING:
    from app.rates import RateLimiter

Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Security(HTTPBearer(scheme_name="bearer", auto_error=False)),
]
KeyHeader = Annotated[
    str | None, Security(APIKeyHeader(name="X-API-Key", scheme_name="key", auto_error=False))
]


class Check(Protocol):
    """Decides whether a request may pass."""

    def check(self, request: Request) -> None:
        """Let the request pass, or raise a `ServiceError`."""


class KeyCheck:
    """Lets only requests with a known key pass; several keys allow rotation.

    As a dependency of the framework's it says in the documentation what it wants.

    Args:
        keys: the known ones, at least one.
        limiter: counts each key's requests, and by address those without a known key. Who sends
            too many of these is refused them, and let in with a known key all the same: others may
            have the same address. What keeps keys from being guessed is their length.
    """

    def __init__(self, keys: Iterable[str], limiter: "RateLimiter | None" = None) -> None:
        self._known = [_digest(key) for key in keys]
        self._limiter = limiter

    async def __call__(self, request: Request, bearer: Bearer, key: KeyHeader) -> None:
        """Let the request pass; see `check`."""
        self.check(request)

    def check(self, request: Request) -> None:
        """Let the request pass.

        Raises:
            RateLimited: it is one too many.
            Unauthorized: it offers no key, or none that is known.
        """
        headers = request.scope["headers"]
        keys = _bearer(headers), header(headers, b"x-api-key")
        offered = [given for given in keys if given]
        # A list: all of them are looked for, whichever is known.
        known = [
            number for number in [self._find(given) for given in offered] if number is not None
        ]
        if self._limiter:
            if known:
                self._limiter.count_key(known[0])
            else:
                self._limiter.count_address(address_of(request))
        if not offered:
            raise Unauthorized(
                "Send an API key as `Authorization: Bearer <key>` or as `X-API-Key`.",
                headers={"WWW-Authenticate": 'Bearer realm="limbeck"'},
            )
        if not known:
            raise Unauthorized(
                "The API key is not known.",
                headers={"WWW-Authenticate": 'Bearer realm="limbeck", error="invalid_token"'},
            )

    def _find(self, given: str) -> int | None:
        """Which of the keys it is, in a time that tells nothing of how near it came."""
        digest = _digest(given)
        # A list: all of them are compared, whichever fits.
        equal = [hmac.compare_digest(digest, known) for known in self._known]
        return equal.index(True) if any(equal) else None


class AddressCheck:
    """Limits how often one address may ask, where nobody needs a key."""

    def __init__(self, limiter: "RateLimiter") -> None:
        self._limiter = limiter

    async def __call__(self, request: Request) -> None:
        """Let the request pass; see `check`."""
        self.check(request)

    def check(self, request: Request) -> None:
        """Let the request pass.

        Raises:
            RateLimited: it is one too many.
        """
        self._limiter.count_address(address_of(request))


def _bearer(headers: Headers) -> str | None:
    """What comes with the scheme of that name."""
    scheme, _, credentials = (header(headers, b"authorization") or "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else None


def address_of(request: Request) -> str:
    """Where the request comes from, as the server knows it; empty over a Unix socket."""
    return request.client.host if request.client else ""


def _digest(key: str) -> bytes:
    """Of equal length for every key, so that comparing does not tell the length either."""
    return hashlib.sha256(key.encode()).digest()
