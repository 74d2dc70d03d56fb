"""The admin key: who may change what is served."""

from app.errors import AdminDisabled
from app.keys import Bearer, KeyCheck, KeyHeader


class AdminCheck:
    """A dependency that lets only requests with the admin key pass. API keys are none.

    Args:
        key: None closes the admin routes to everybody.
    """

    def __init__(self, key: str | None) -> None:
        self._check = None if key is None else KeyCheck([key])

    async def __call__(self, bearer: Bearer, key: KeyHeader) -> None:
        """Let the request pass.

        Raises:
            AdminDisabled: there is no admin key.
            Unauthorized: it offers none, or another one.
        """
        if self._check is None:
            raise AdminDisabled("Set LIMBECK_ADMIN_KEY to use the admin routes.")
        await self._check(bearer, key)
