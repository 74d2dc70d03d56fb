"""API keys: who may send images."""

import hashlib
import hmac
from collections.abc import Iterable
from typing import Annotated

from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.errors import Unauthorized

Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Security(HTTPBearer(scheme_name="bearer", auto_error=False)),
]
KeyHeader = Annotated[
    str | None, Security(APIKeyHeader(name="X-API-Key", scheme_name="key", auto_error=False))
]


class KeyCheck:
    """A dependency that lets only requests with a known key pass; several keys allow rotation.

    Args:
        keys: the known ones, at least one.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._known = [_digest(key) for key in keys]

    async def __call__(self, bearer: Bearer, key: KeyHeader) -> None:
        """Let the request pass.

        Raises:
            Unauthorized: it offers no key, or none that is known.
        """
        offered = [given for given in (bearer and bearer.credentials, key) if given]
        if not offered:
            raise Unauthorized(
                "Send an API key as `Authorization: Bearer <key>` or as `X-API-Key`.",
                headers={"WWW-Authenticate": 'Bearer realm="limbeck"'},
            )
        if not any([self._knows(given) for given in offered]):
            raise Unauthorized(
                "The API key is not known.",
                headers={"WWW-Authenticate": 'Bearer realm="limbeck", error="invalid_token"'},
            )

    def _knows(self, given: str) -> bool:
        """Whether it is one of the keys, in a time that tells nothing of how near it came."""
        digest = _digest(given)
        # A list: all of them are compared, whichever fits.
        return any([hmac.compare_digest(digest, known) for known in self._known])


def _digest(key: str) -> bytes:
    """Of equal length for every key, so that comparing does not tell the length either."""
    return hashlib.sha256(key.encode()).digest()
