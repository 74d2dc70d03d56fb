import hashlib
import socket
from pathlib import Path

import pytest

from tests.training.file_server import FileServer, serving
from training.transfer import DownloadError, Original, Unreachable, progress_line, transfer

CONTENT = bytes(range(256)) * 2000
ORIGINAL = Original("digits.gz", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
OTHER = CONTENT[::-1]


def fetch_into(folder: Path, server: FileServer) -> list[str]:
    lines: list[str] = []
    transfer(ORIGINAL, server.url, folder, lines.append)
    return lines


def test_a_whole_file_arrives(tmp_path: Path) -> None:
    with serving(FileServer({"digits.gz": CONTENT})) as server:
        lines = fetch_into(tmp_path, server)
    assert (tmp_path / "digits.gz").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["digits.gz"]
    assert lines[-1] == "digits.gz: 512,000 bytes, SHA-256 as expected"


def test_a_cut_connection_goes_on_where_it_broke(tmp_path: Path) -> None:
    with serving(FileServer({"digits.gz": CONTENT}, cuts=[100_000, 1, 250_000])) as server:
        fetch_into(tmp_path, server)
    assert (tmp_path / "digits.gz").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=100001-", "bytes=350001-"]


def test_a_later_run_goes_on_from_the_partial_file(tmp_path: Path) -> None:
    (tmp_path / "digits.gz.partial").write_bytes(CONTENT[:300_000])
    with serving(FileServer({"digits.gz": CONTENT})) as server:
        fetch_into(tmp_path, server)
    assert (tmp_path / "digits.gz").read_bytes() == CONTENT
    assert server.asked == ["bytes=300000-"]


def test_a_server_without_ranges_sends_everything_again(tmp_path: Path) -> None:
    with serving(FileServer({"digits.gz": CONTENT}, cuts=[9], honours_range=False)) as server:
        fetch_into(tmp_path, server)
    assert (tmp_path / "digits.gz").read_bytes() == CONTENT


def test_a_server_that_tells_no_length_is_read_to_the_end(tmp_path: Path) -> None:
    with serving(FileServer({"digits.gz": CONTENT}, tells_length=False)) as server:
        fetch_into(tmp_path, server)
    assert (tmp_path / "digits.gz").read_bytes() == CONTENT


def test_a_file_that_is_here_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "digits.gz").write_bytes(CONTENT)
    with serving(FileServer({})) as server:
        lines = fetch_into(tmp_path, server)
    assert (lines, server.asked) == (["digits.gz: already here"], [])


def test_a_damaged_file_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "digits.gz").write_bytes(OTHER)
    with serving(FileServer({"digits.gz": CONTENT})) as server:
        fetch_into(tmp_path, server)
    assert (tmp_path / "digits.gz").read_bytes() == CONTENT


def test_a_wrong_digest_is_an_error_that_names_both(tmp_path: Path) -> None:
    found = hashlib.sha256(OTHER).hexdigest()
    with (
        serving(FileServer({"digits.gz": OTHER})) as server,
        pytest.raises(DownloadError, match=f"SHA-256 {found}, expected {ORIGINAL.sha256}"),
    ):
        fetch_into(tmp_path, server)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tells_length", [True, False])
def test_a_longer_file_is_refused_before_it_is_read(tmp_path: Path, tells_length: bool) -> None:
    files = {"digits.gz": CONTENT * 40}
    with (
        serving(FileServer(files, tells_length=tells_length)) as server,
        pytest.raises(DownloadError, match=r"is not the file expected.*512,000"),
    ):
        fetch_into(tmp_path, server)
    assert list(tmp_path.iterdir()) == []


def test_a_shorter_file_is_refused(tmp_path: Path) -> None:
    with (
        serving(FileServer({"digits.gz": CONTENT[:-1]})) as server,
        pytest.raises(DownloadError, match="it has 511,999 bytes, expected 512,000"),
    ):
        fetch_into(tmp_path, server)


def test_a_partial_file_that_is_too_long_is_started_anew(tmp_path: Path) -> None:
    (tmp_path / "digits.gz.partial").write_bytes(CONTENT + b"!")
    with serving(FileServer({"digits.gz": CONTENT})) as server:
        fetch_into(tmp_path, server)
    assert server.asked == [None]


def test_connections_that_bring_nothing_are_not_tried_for_ever(tmp_path: Path) -> None:
    with (
        serving(FileServer({"digits.gz": CONTENT}, cuts=[5, 0, 0, 0])) as server,
        pytest.raises(Unreachable, match="5 of 512,000 bytes are here"),
    ):
        fetch_into(tmp_path, server)
    assert (tmp_path / "digits.gz.partial").read_bytes() == CONTENT[:5]


def test_a_missing_file_is_named_with_the_status(tmp_path: Path) -> None:
    with (
        serving(FileServer({})) as server,
        pytest.raises(Unreachable, match=r"/digits\.gz: the server answers 404"),
    ):
        fetch_into(tmp_path, server)


def test_without_a_network_the_error_says_so(tmp_path: Path) -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody_listens.getsockname()[1]}"
        with pytest.raises(Unreachable, match=r"cannot be reached: .*refused.*network"):
            transfer(ORIGINAL, url, tmp_path, print)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "digits.gz.partial").symlink_to(full)
    with (
        serving(FileServer({"digits.gz": CONTENT})) as server,
        pytest.raises(DownloadError, match=r"No space left on device; 512,000 bytes"),
    ):
        fetch_into(tmp_path, server)


@pytest.mark.parametrize("url", ["file:///etc", "ftp://example.org", "example.org/mnist"])
def test_only_http_mirrors_are_taken(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="starts with http"):
        transfer(ORIGINAL, url, tmp_path, print)


def test_progress_tells_share_and_time_left() -> None:
    line = progress_line("a.gz", done=600, total=1000, gained=100, seconds=20)
    assert line == "a.gz: 600 of 1,000 bytes (60%), 1:20 left"
    assert progress_line("a.gz", 600, 1000, 0, 5).endswith("(60%), waiting")
