"""Signatures of bundles: who made them, where the digests only say that they are whole.

`SECURITY.md` says how they are made, with the command of the package model-signing.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.bundle import BundleError

logger = logging.getLogger(__name__)

SIGNATURE_FILE = "model.sig"


class SignatureCheck:
    """Accepts only bundles whose every file was signed with one key. Needs no network.

    Args:
        public_key: a PEM file with a public key on an elliptic curve (P-256, P-384 or P-521).

    Raises:
        BundleError: the package is not installed, or the file holds no such key.
    """

    def __init__(self, public_key: Path) -> None:
        self._public_key = public_key
        try:
            # Takes seconds to import, which only a signature is worth.
            from model_signing import hashing, verifying
        except ImportError as error:
            raise BundleError(
                f"LIMBECK_BUNDLE_PUBLIC_KEY needs the extra `signing`: {error}"
            ) from error
        self._new_verifier: Callable[[], Any] = verifying.Config
        self._new_hashing: Callable[[], Any] = hashing.Config
        try:
            self._verifier()
        except OSError as error:
            raise BundleError(
                f"LIMBECK_BUNDLE_PUBLIC_KEY={str(public_key)!r}: {error.strerror}"
            ) from error
        except Exception as error:  # the library names none that it raises
            raise BundleError(
                f"LIMBECK_BUNDLE_PUBLIC_KEY={str(public_key)!r}: "
                "holds no public key on an elliptic curve"
            ) from error

    def __call__(self, folder: Path) -> None:
        """Accept the bundle in `folder`.

        Raises:
            BundleError: it is not signed, by another key, or changed since: a file more or less, or
                another content.
        """
        signature = folder / SIGNATURE_FILE
        if not signature.is_file():
            raise BundleError(f"{signature}: is missing, and LIMBECK_BUNDLE_PUBLIC_KEY is set")
        try:
            self._verifier().verify(folder, signature)
        except Exception as error:  # the library names none that it raises
            reason = str(error).strip() or type(error).__name__
            raise BundleError(f"{signature}: does not vouch for the bundle: {reason}") from error
        logger.info("the signature of %s is right", folder)

    def _verifier(self) -> Any:
        """A new one for each bundle: it keeps what the signature before said of hashing."""
        # SHA-256 of each file, no links: what the signature says of that is not asked.
        hashing = self._new_hashing().use_file_serialization(hashing_algorithm="sha256")
        hashing.set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)
        verifier = self._new_verifier().use_elliptic_key_verifier(public_key=self._public_key)
        return verifier.set_hashing_config(hashing)
