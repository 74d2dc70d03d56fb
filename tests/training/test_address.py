import io

import pytest

from training.address import KEY_VARIABLE, address_of, api_key, permit

ELSEWHERE = address_of("https://example.com")


class Terminal(io.StringIO):
    """A terminal on which somebody has typed."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("url", "shown", "loopback"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", True),
        ("http://127.8.8.8", "http://127.8.8.8:80", True),
        ("http://localhost:8000/", "http://localhost:8000", True),
        ("http://[::1]:9", "http://[::1]:9", True),
        ("https://localhost/limbeck/", "https://localhost:443/limbeck", True),
        ("http://10.0.0.1", "http://10.0.0.1:80", False),
        ("http://localhost.example.com", "http://localhost.example.com:80", False),
        ("http://127.0.0.1.example.com", "http://127.0.0.1.example.com:80", False),
        ("http://0.0.0.0:8000", "http://0.0.0.0:8000", False),
    ],
)
def test_a_url_is_taken_apart(url: str, shown: str, loopback: bool) -> None:
    address = address_of(url)
    assert (str(address), address.is_loopback) == (shown, loopback)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "localhost",
        "ftp://localhost",
        "http://",
        "http://user@localhost",
        "http://localhost@example.com",
        "http://localhost/?model=a",
        "http://localhost:99999",
        "http://localhost:port",
    ],
)
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        address_of(url)


def test_this_machine_needs_no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    permit(address_of("http://127.0.0.1:8000"), yes=False)
    permit(ELSEWHERE, yes=True)


def test_without_a_terminal_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    with pytest.raises(ValueError, match=r"example\.com is not this machine; --yes says"):
        permit(ELSEWHERE, yes=False)


@pytest.mark.parametrize("typed", ["no", "", "y", "why not"])
def test_only_yes_permits(typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(typed + "\n"))
    with pytest.raises(ValueError, match=r"example\.com is not attacked"):
        permit(ELSEWHERE, yes=False)
    monkeypatch.setattr("sys.stdin", Terminal("yes\n"))
    permit(ELSEWHERE, yes=False)


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert api_key(ELSEWHERE) is None
    monkeypatch.setenv(KEY_VARIABLE, " a-key\n")
    assert api_key(ELSEWHERE) == api_key(address_of("http://localhost")) == "a-key"


def test_a_key_that_would_leak_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a-key")
    with pytest.raises(ValueError, match="not sent to another machine over plain http"):
        api_key(address_of("http://example.com"))
    monkeypatch.setenv(KEY_VARIABLE, "a-key\nX-Other: 1")
    with pytest.raises(ValueError, match="characters that no header takes") as raised:
        api_key(ELSEWHERE)
    assert "a-key" not in str(raised.value)
