import pytest

from app.errors import NotAcceptable
from app.negotiation import negotiate

OFFERED = ("image/png", "application/x-npy", "application/json")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "image/png"),
        ("*/*", "image/png"),
        ("application/json", "application/json"),
        ("APPLICATION/JSON; charset=utf-8", "application/json"),
        ("application/*", "application/x-npy"),
        ("image/png;q=0.5, application/json", "application/json"),
        ("text/html, */*;q=0.1", "image/png"),
        ("image/png;q=0, */*", "application/x-npy"),
        ("image/webp, image/*;q=0.8, application/json;q=0.7", "image/png"),
        ("application/json;q=2", "application/json"),
    ],
)
def test_the_favourite_is_chosen(accept: str, expected: str) -> None:
    assert negotiate(accept, OFFERED) == expected


@pytest.mark.parametrize(
    "accept", ["text/html", "image/jpeg", "*/*;q=0", "image/png;q=x", ",", "x"]
)
def test_nothing_acceptable_is_an_error_that_names_the_offer(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="application/x-npy"):
        negotiate(accept, OFFERED)
