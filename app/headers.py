"""A request's headers, and those that tell browsers to do nothing with an answer but show it."""

from collections.abc import Iterable, Mapping, Sequence

_POLICY = b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

# Answers are about one image, one moment or one key: nobody is to keep them.
_DEFAULTS = {
    b"x-content-type-options": b"nosniff",
    b"content-security-policy": _POLICY,
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}

Headers = list[tuple[bytes, bytes]]


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The first of a request's headers with this name, in lower case; None if there is none."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return None


def with_security(headers: Headers) -> Headers:
    """The headers and those of ours that they do not set themselves."""
    present = {name.lower() for name, _ in headers}
    return [*headers, *(item for item in _DEFAULTS.items() if item[0] not in present)]


def page_policy(sources: Mapping[str, Sequence[str]]) -> str:
    """A content security policy that allows a page nothing but `sources`: directive -> sources."""
    parts = [f"{directive} {' '.join(allowed)}" for directive, allowed in sources.items()]
    return "; ".join([_POLICY.decode(), *parts])
