from pathlib import Path

import pytest

from app.secrets import read_secrets


def write(folder: Path, content: bytes) -> Path:
    path = folder / "keys"
    path.write_bytes(content)
    return path


def test_one_a_line_is_read_without_comments(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbf# of the team\n\n old-key \r\nnew#key\n  # retired\n")
    assert [secret.get_secret_value() for secret in read_secrets(path, "S")] == [
        "old-key",
        "new#key",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no key"),
        (b"# only this\n\n", "holds no key"),
        (b"hidden-1\nhidden two\n", "line 2 is not printable ASCII"),
        ("schlüssel-hidden".encode(), "line 1 is not printable ASCII"),
        (b"hidden\xff", "is no text"),
    ],
)
def test_a_file_that_opens_nothing_is_refused_and_not_shown(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        read_secrets(write(tmp_path, content), "LIMBECK_API_KEYS_FILE")
    assert "LIMBECK_API_KEYS_FILE=" in str(refused.value)
    assert "hidden" not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"S='.*none': cannot be read: No such file"):
        read_secrets(tmp_path / "none", "S")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        read_secrets(tmp_path, "S")
