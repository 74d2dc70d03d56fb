"""Secrets from files, as Docker and Kubernetes mount them."""

import re
from pathlib import Path

from pydantic import SecretStr

# What a header carries unchanged.
SECRET_PATTERN = re.compile(r"[!-~]+")


def read_secrets(path: Path, setting: str) -> tuple[SecretStr, ...]:
    """The secrets in a file, at least one: one a line; empty lines and lines of `#` are left out.

    Args:
        path: the file.
        setting: the variable that names it, for the message.

    Raises:
        ValueError: the file is missing, holds none, or holds one that no header could carry. The
            message names the line and never what stands in it.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(f"{setting}={str(path)!r}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        # Without the cause, which holds the whole content.
        raise ValueError(f"{setting}={str(path)!r}: is no text in UTF-8") from None
    secrets = []
    for number, line in enumerate(lines, 1):
        secret = line.strip()
        if not secret or secret.startswith("#"):
            continue
        if not SECRET_PATTERN.fullmatch(secret):
            raise ValueError(
                f"{setting}={str(path)!r}: line {number} is not printable ASCII without spaces"
            )
        secrets.append(SecretStr(secret))
    if not secrets:
        # Somebody who names a file of keys must not end up with an open service.
        raise ValueError(f"{setting}={str(path)!r}: the file holds no key")
    return tuple(secrets)
