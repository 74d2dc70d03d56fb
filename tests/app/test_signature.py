"""Signatures by model-signing's own signer: what vouches for a bundle, and what does not."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from app.bundle import MANIFEST_FILE, BundleError
from app.catalog import LoadOptions, load_catalog
from app.signature import SIGNATURE_FILE, SignatureCheck
from tests.bundles import make_bundle, replace_file, rewrite_manifest

ROOT = Path(__file__).parents[2]

pytest.importorskip("model_signing", reason="needs the extra signing")


def write_keys(
    folder: Path, name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
) -> None:
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / f"{name}.pem").write_bytes(private)
    (folder / f"{name}.pub").write_bytes(public)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of key pairs: `ours`, `theirs`, and `rsa`."""
    folder = tmp_path_factory.mktemp("keys")
    write_keys(folder, "ours", ec.generate_private_key(ec.SECP256R1()))
    write_keys(folder, "theirs", ec.generate_private_key(ec.SECP256R1()))
    write_keys(folder, "rsa", rsa.generate_private_key(65_537, 2048))
    return folder


def sign(bundle: Path, private_key: Path) -> None:
    from model_signing import signing

    new_config: Callable[[], Any] = signing.Config  # it has no types
    config = new_config().use_elliptic_key_signer(private_key=private_key)
    config.sign(bundle, bundle / SIGNATURE_FILE)


def test_signed_bundles_are_loaded(tmp_path: Path, keys: Path) -> None:
    for version in (1, 2):
        sign(make_bundle(tmp_path, "tiny", version), keys / "ours.pem")
    options = LoadOptions("cpu", 1, 1, SignatureCheck(keys / "ours.pub"))
    assert len(load_catalog(tmp_path, None, options).models) == 2


def test_the_documented_command_signs(tmp_path: Path, keys: Path) -> None:
    folder = make_bundle(tmp_path)
    text = (ROOT / "SECURITY.md").read_text()
    (command,) = re.findall(r"^model_signing sign key .*$", text, re.M)
    arguments = command.replace("models/mnist/1", str(folder)).replace(
        "key.pem", str(keys / "ours.pem")
    )
    # The script stands beside the interpreter.
    script = Path(sys.executable).parent / arguments.split()[0]
    subprocess.run([script, *arguments.split()[1:]], check=True, capture_output=True)
    SignatureCheck(keys / "ours.pub")(folder)


def change_manifest(folder: Path) -> None:
    rewrite_manifest(folder, labels=["dark", "grey", "changed"])


def change_graph(folder: Path) -> None:
    # With a manifest that vouches for the new content: digests alone would not tell.
    replace_file(folder, "purifier.onnx", (folder / "purifier.onnx").read_bytes() + b" ")


def add_file(folder: Path) -> None:
    (folder / "extra.bin").write_bytes(b"")


def remove_file(folder: Path) -> None:
    (folder / "classifier.onnx").unlink()


def link_file(folder: Path) -> None:
    (folder / MANIFEST_FILE).rename(folder.parent / "elsewhere.json")
    (folder / MANIFEST_FILE).symlink_to(folder.parent / "elsewhere.json")


def remove_signature(folder: Path) -> None:
    (folder / SIGNATURE_FILE).unlink()


def empty_signature(folder: Path) -> None:
    (folder / SIGNATURE_FILE).write_bytes(b"{}")


def change_signature(folder: Path) -> None:
    document = json.loads((folder / SIGNATURE_FILE).read_bytes())
    envelope = document["dsseEnvelope"]
    statement = base64.b64decode(envelope["payload"]).replace(b"purifier.onnx", b"purifies.onnx")
    envelope["payload"] = base64.b64encode(statement).decode()
    (folder / SIGNATURE_FILE).write_text(json.dumps(document))


@pytest.mark.parametrize(
    "tamper",
    [
        change_manifest,
        change_graph,
        add_file,
        remove_file,
        link_file,
        remove_signature,
        empty_signature,
        change_signature,
    ],
)
def test_a_bundle_that_was_changed_is_refused(
    tmp_path: Path, keys: Path, tamper: Callable[[Path], None]
) -> None:
    folder = make_bundle(tmp_path)
    sign(folder, keys / "ours.pem")
    check = SignatureCheck(keys / "ours.pub")
    check(folder)
    tamper(folder)
    with pytest.raises(BundleError, match=SIGNATURE_FILE):
        load_catalog(tmp_path, None, LoadOptions("cpu", 1, 1, check))


def test_a_bundle_signed_by_another_is_refused(tmp_path: Path, keys: Path) -> None:
    sign(make_bundle(tmp_path), keys / "theirs.pem")
    options = LoadOptions("cpu", 1, 1, SignatureCheck(keys / "ours.pub"))
    with pytest.raises(BundleError, match="does not vouch"):
        load_catalog(tmp_path, None, options)


@pytest.mark.parametrize("name", ["none.pub", "rsa.pub", "ours.pem"])
def test_what_is_no_public_key_is_refused_and_not_shown(keys: Path, name: str) -> None:
    with pytest.raises(BundleError, match=f"LIMBECK_BUNDLE_PUBLIC_KEY=.*{name}") as refused:
        SignatureCheck(keys / name)
    assert "PRIVATE KEY" not in str(refused.value)


def test_without_the_extra_the_start_says_what_is_missing(keys: Path) -> None:
    code = f"""
import sys
from pathlib import Path
sys.modules["model_signing"] = None  # importing it raises ImportError
from app.signature import SignatureCheck
try:
    SignatureCheck(Path({str(keys / "ours.pub")!r}))
except ValueError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "LIMBECK_BUNDLE_PUBLIC_KEY needs the extra `signing`" in result.stdout


def test_the_service_imports_none_of_it_unless_asked() -> None:
    code = "import sys, app.server; print(*sys.modules)"
    imported = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {"model_signing", "cryptography", "limits"}.isdisjoint(imported.stdout.split())
