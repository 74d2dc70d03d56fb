"""Where a service is, and whether one may attack it."""

import ipaddress
import os
import sys
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlsplit

# Not LIMBECK_*: the service refuses to start with a name of its own prefix that is no setting.
KEY_VARIABLE = "ATTACK_API_KEY"


@dataclass(frozen=True)
class Address:
    """The parts of a service's URL."""

    scheme: str
    host: str
    port: int
    path: str  # before every route, "" or as /limbeck

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine, by its name or number alone: no other name is looked up."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def connection(self, timeout_s: float) -> HTTPConnection:
        """A connection, not open yet; proxies of the environment are not used."""
        kind = HTTPSConnection if self.scheme == "https" else HTTPConnection
        return kind(self.host, self.port, timeout=timeout_s)


def address_of(url: str) -> Address:
    """The address that a URL gives.

    Raises:
        ValueError: it is no plain http or https URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"--url wants http://host:port or https://host:port, got {url!r}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"--url takes no user, query or fragment; a key comes from {KEY_VARIABLE}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Address(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))


def permit(address: Address, *, yes: bool) -> None:
    """Return if the service may be attacked: it is on this machine, or the user says so.

    Raises:
        ValueError: it may not.
    """
    if yes or address.is_loopback:
        return
    if not sys.stdin.isatty():
        raise ValueError(
            f"{address.host} is not this machine; --yes says that you may attack it (no terminal "
            "to ask on)"
        )
    print(f"{address.host} is not this machine. Attack only what is yours or what you may attack.")
    if input("May you attack it? [yes/no] ").strip().lower() != "yes":
        raise ValueError(f"{address.host} is not attacked")


def api_key(address: Address) -> str | None:
    """The API key of the environment, None if there is none.

    Raises:
        ValueError: it cannot be a header, or would cross a network unencrypted.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        return None
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"{KEY_VARIABLE} has characters that no header takes")
    if address.scheme == "http" and not address.is_loopback:
        raise ValueError(f"{KEY_VARIABLE} is not sent to another machine over plain http")
    return key
