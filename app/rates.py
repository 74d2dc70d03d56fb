"""Rate limits: how often one API key, or without a key one address, may ask.

The window slides: the share of the window before that still lies within the last `expiry` seconds
is added to the count of the present one. Two numbers a client are kept, and of no more than
`MAX_CLIENTS` addresses. Each worker process counts for itself.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from limits import RateLimitItem, parse_many
from limits.storage import Storage
from limits.storage.base import SlidingWindowCounterSupport
from limits.strategies import SlidingWindowCounterRateLimiter

from app.errors import RateLimited

MAX_CLIENTS = 10_000

Clock = Callable[[], float]


def parse_rate(text: str) -> RateLimitItem:
    """A rate such as `100/second` or `6000 per minute`.

    Raises:
        ValueError: it is none, or would let nobody in.
    """
    try:
        (rate,) = parse_many(text)
    except ValueError as error:
        raise ValueError("a rate is a number a second, minute or hour, as 100/second") from error
    if rate.amount < 1:
        raise ValueError("a rate of 0 would let nobody in")
    return rate


class RateLimiter:
    """Counts the requests of each client and refuses those beyond the rate.

    Keys and addresses are counted apart, so that a crowd of addresses cannot push out a key.

    Args:
        rate: see `parse_rate`.
        clock: seconds; wall-clock time, because that is what the library reckons with.
    """

    def __init__(self, rate: str, clock: Clock = time.time) -> None:
        self._rate = parse_rate(rate)
        self._keys = SlidingWindowCounterRateLimiter(WindowStorage(MAX_CLIENTS, clock))
        self._addresses = SlidingWindowCounterRateLimiter(WindowStorage(MAX_CLIENTS, clock))

    def count_key(self, number: int) -> None:
        """Count a request with the known key of this number.

        Raises:
            RateLimited: it is one too many.
        """
        self._count(self._keys, str(number))

    def count_address(self, address: str) -> None:
        """Count a request of a client without a known key.

        Raises:
            RateLimited: it is one too many.
        """
        self._count(self._addresses, _network(address))

    def _count(self, limiter: SlidingWindowCounterRateLimiter, client: str) -> None:
        if limiter.hit(self._rate, client):
            return
        wait_s = limiter.get_window_stats(self._rate, client).reset_time - time.time()
        raise RateLimited(
            f"Allowed are {self._rate}.", headers={"Retry-After": str(max(1, math.ceil(wait_s)))}
        )


def _network(address: str) -> str:
    """What counts as one client: an IPv4 address, or the /64 that one IPv6 client has whole."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if parsed.version == 4:
        return str(parsed)
    mapped = parsed.ipv4_mapped
    return str(mapped or ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))


class WindowStorage(Storage, SlidingWindowCounterSupport):
    """The counts of the present and the previous window of each client.

    The library's own storage in memory starts a thread every 10 ms that visits every client there
    is, and keeps as many as come. This one keeps the most recent and needs no thread.

    Args:
        max_clients: beyond it whoever was not seen for the longest time is forgotten.
        clock: seconds.
    """

    STORAGE_SCHEME = None

    def __init__(self, max_clients: int, clock: Clock) -> None:
        super().__init__()
        self._max_clients = max_clients
        self._clock = clock
        # client -> (number of its last window, count there, count in the window before)
        self._windows: OrderedDict[str, tuple[int, int, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Count `amount` more, if they fit into the last `expiry` seconds; whether they did."""
        previous, previous_ttl_s, current, _ = self.get_sliding_window(key, expiry)
        if math.floor(previous * previous_ttl_s / expiry + current) + amount > limit:
            return False
        self._windows[key] = (int(self._clock() // expiry), current + amount, previous)
        self._windows.move_to_end(key)
        if len(self._windows) > self._max_clients:
            self._windows.popitem(last=False)
        return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """(count, seconds it still counts) of the previous window, and of the present one."""
        window, elapsed_s = divmod(self._clock(), expiry)
        last, count, before = self._windows.get(key, (0, 0, 0))
        age = int(window) - last
        current = count if age == 0 else 0
        previous = before if age == 0 else count if age == 1 else 0
        left_s = expiry - elapsed_s
        return previous, left_s if previous else 0.0, current, left_s + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget a client."""
        self.clear(key)

    def clear(self, key: str) -> None:
        """Forget a client."""
        self._windows.pop(key, None)

    def reset(self) -> int:
        """Forget all of them; how many there were."""
        forgotten = len(self._windows)
        self._windows.clear()
        return forgotten

    def check(self) -> bool:
        """Whether the storage can be reached."""
        return True

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """What the storage's own failures are: it has none."""
        return ()

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Of fixed windows, which nobody here uses."""
        raise NotImplementedError

    def get(self, key: str) -> int:
        """Of fixed windows, which nobody here uses."""
        raise NotImplementedError

    def get_expiry(self, key: str) -> float:
        """Of fixed windows, which nobody here uses."""
        raise NotImplementedError
