"""The admin key: who may change what is served."""

from typing import TYPE_CHECKING

from pydantic import SecretStr
from starlette.requests import Request

from app.errors import AdminDisabled, Unauthorized
from app.keys import Bearer, KeyCheck, KeyHeader, address_of

if TYPE_CHECKING:
    from app.rates import RateLimiter


class AdminCheck:
    """A dependency that lets only requests with the admin key pass. API keys are none.

    Args:
        key: None closes the admin routes to everybody.
        limiter: counts, by address, the requests without it: guesses. The others are not limited.
    """

    def __init__(self, key: SecretStr | None, limiter: "RateLimiter | None" = None) -> None:
        self._limiter = limiter
        self._check = None if key is None else KeyCheck([key.get_secret_value()])

    async def __call__(self, request: Request, bearer: Bearer, key: KeyHeader) -> None:
        """Let the request pass.

        Raises:
            AdminDisabled: there is no admin key.
            Unauthorized: it offers none, or another one.
            RateLimited: it does so once too often.
        """
        if self._check is None:
            raise AdminDisabled("The admin routes need LIMBECK_ADMIN_KEY or its file to be set.")
        try:
            self._check.check(request)
        except Unauthorized:
            if self._limiter is not None:
                self._limiter.count_address(address_of(request))
            raise
