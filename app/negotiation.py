"""Content negotiation (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence

from app.errors import NotAcceptable


def negotiate(accept: str, offered: Sequence[str]) -> str:
    """The media type to answer with: the client's favourite, of equals the one offered first.

    Raises:
        NotAcceptable: the client accepts none of them.
    """
    if not accept.strip():
        return offered[0]
    ranges = [_media_range(part) for part in accept[:1024].split(",") if part.strip()]
    best, best_quality = "", 0.0
    for media_type in offered:
        quality = _quality(media_type, ranges)
        if quality > best_quality:
            best, best_quality = media_type, quality
    if not best:
        raise NotAcceptable(f"The answer can be {', '.join(offered)}.")
    return best


def _media_range(part: str) -> tuple[str, float]:
    """`type/subtype` and its quality; parameters other than q are ignored."""
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                quality = min(1.0, max(0.0, float(value)))
            except ValueError:
                quality = 0.0
    return name, quality


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """What the most specific range that matches says of a media type."""
    kind = media_type.partition("/")[0]
    for wanted in (media_type, f"{kind}/*", "*/*"):
        for name, quality in ranges:
            if name == wanted:
                return quality
    return 0.0
