"""A patient HTTP client: one connection kept open, bounded retries, nothing followed anywhere."""

import email.utils
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPMessage
from typing import Any

from training.address import Address

# What passes: overload, a limit, a restart behind a proxy.
_PASSING = {429, 502, 503, 504}
_MAX_ANSWER_BYTES = 16 * 1024 * 1024


class ServiceFailure(ValueError):
    """The service does not answer as it should; the message says to what and how.

    Attributes:
        code: of the problem document, "" without one.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class OutOfTime(ValueError):
    """The time for the whole attack is over."""


@dataclass(frozen=True)
class Patience:
    """How long to wait and how often to ask again.

    Attributes:
        timeout_s: for one answer.
        attempts: for one request; those after the first only for what passes.
        longest_wait_s: a Retry-After beyond it is not waited for.
        total_s: for all requests together.
    """

    timeout_s: float = 30.0
    attempts: int = 6
    longest_wait_s: float = 60.0
    total_s: float = 1800.0


@dataclass
class Tally:
    """What was sent: requests, those of them that had to be sent again, seconds waited between."""

    requests: int = 0
    repeated: int = 0
    waited_s: float = 0.0


@dataclass
class Client:
    """JSON answers of one service.

    Args:
        address: of the service.
        key: sent as a bearer token, None for none.
        patience: see there; its total time runs from now on.
        pause: waits some seconds.
    """

    address: Address
    key: str | None = field(default=None, repr=False)
    patience: Patience = Patience()
    pause: Callable[[float], None] = time.sleep
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        """Nothing is opened before it is needed."""
        self._deadline = time.monotonic() + self.patience.total_s
        self._connection: HTTPConnection | None = None
        self._was_answered = False

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, path: str) -> Any:
        """The JSON of a GET."""
        return self._ask("GET", path, None, {})

    def post(self, path: str, body: bytes, content_type: str) -> Any:
        """The JSON of a POST."""
        return self._ask("POST", path, body, {"Content-Type": content_type})

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Any:
        """The answer's JSON, asked for again while it makes sense.

        Raises:
            ServiceFailure: the service refuses, or has not answered after all attempts.
            OutOfTime: the whole time is over.
        """
        reason = ""
        for attempt in range(self.patience.attempts):
            self.tally.repeated += attempt > 0
            wait_s = 0.5 * 2**attempt
            try:
                status, message, content = self._exchange(method, path, body, headers)
            except (OSError, HTTPException) as error:
                self.close()
                reason = f"{type(error).__name__}: {error}"
                if not self._was_answered:
                    raise ServiceFailure(f"{self.address} cannot be reached: {reason}") from error
            else:
                self._was_answered = True
                if status == 200:
                    return self._parsed(path, content)
                if status not in _PASSING:
                    raise _refusal(path, status, content)
                reason = str(_refusal(path, status, content))
                wait_s = _retry_after_s(message, wait_s)
            if attempt + 1 < self.patience.attempts:
                self._wait(wait_s, reason)
        raise ServiceFailure(f"{self.patience.attempts} attempts failed, at last: {reason}")

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, HTTPMessage, bytes]:
        """One request and its whole answer."""
        now = time.monotonic()
        if now >= self._deadline:
            raise OutOfTime(f"the {self.patience.total_s / 60:g} minutes are over")
        if self._connection is None:
            self._connection = self.address.connection(self.patience.timeout_s)
        credentials = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        self.tally.requests += 1
        self._connection.request(
            method,
            self.address.path + path,
            body,
            {"Accept": "application/json", **headers, **credentials},
        )
        response = self._connection.getresponse()
        content = bytearray()
        # The socket's time-out is for each read: an answer in drops would never end.
        while piece := response.read1(1 << 16):
            content += piece
            if len(content) > _MAX_ANSWER_BYTES:
                raise ServiceFailure(f"{path}: the answer is longer than {_MAX_ANSWER_BYTES} bytes")
            if time.monotonic() > now + self.patience.timeout_s:
                raise TimeoutError(f"no whole answer in {self.patience.timeout_s:g} s")
        response.close()  # read to its end, it leaves the connection open for the next request
        return response.status, response.headers, bytes(content)

    def _wait(self, wait_s: float, reason: str) -> None:
        """Pause before the next attempt."""
        if wait_s > self.patience.longest_wait_s:
            raise ServiceFailure(
                f"{reason}; it asks to wait {wait_s:.0f} s, which is more than "
                f"{self.patience.longest_wait_s:g} s"
            )
        if time.monotonic() + wait_s > self._deadline:
            raise OutOfTime(f"the {self.patience.total_s / 60:g} minutes are over")
        self.tally.waited_s += wait_s
        self.pause(wait_s)

    def _parsed(self, path: str, content: bytes) -> Any:
        """The JSON of an answer."""
        try:
            return json.loads(content)
        except ValueError as error:
            raise ServiceFailure(f"{self.address}{path} answers no JSON") from error


def _refusal(path: str, status: int, content: bytes) -> ServiceFailure:
    """What the service said against a request; its problem document, if there is one."""
    try:
        document = json.loads(content)
        code, detail = str(document["code"]), str(document.get("detail", document["title"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ServiceFailure(f"{path.partition('?')[0]} answers {status}")
    return ServiceFailure(f"{path.partition('?')[0]} answers {status} {code}: {detail[:300]}", code)


def _retry_after_s(headers: HTTPMessage, otherwise_s: float) -> float:
    """The seconds that Retry-After asks for, as a number or as a date."""
    text = headers.get("Retry-After", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(text)
        except ValueError:
            return otherwise_s
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else otherwise_s
