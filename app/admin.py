"""The admin key: who may change what is served."""

from pydantic import SecretStr
from starlette.requests import Request

from app.errors import AdminDisabled
from app.keys import Bearer, KeyCheck, KeyHeader


class AdminCheck:
    """A dependency that lets only requests with the admin key pass. API keys are none.

    Args:
        key: None closes the admin routes to everybody.
    """

    def __init__(self, key: SecretStr | None) -> None:
        self._check = None if key is None else KeyCheck([key.get_secret_value()])

    async def __call__(self, request: Request, bearer: Bearer, key: KeyHeader) -> None:
        """Let the request pass.

        Raises:
            AdminDisabled: there is no admin key.
            Unauthorized: it offers none, or another one.
        """
        if self._check is None:
            raise AdminDisabled("The admin routes need LIMBECK_ADMIN_KEY or its file to be set.")
        self._check.check(request)
