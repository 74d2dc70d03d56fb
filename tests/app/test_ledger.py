from pathlib import Path

import pytest

from app.ledger import Ledger


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_successor_keeps_the_counters_and_not_the_gauges(temporary: Path) -> None:
    with Ledger() as ledger:
        ledger.open(0)
        for kind in ("counter", "histogram", "gauge_livesum", "gauge_livemax"):
            file = ledger.folder / f"{kind}_0.db"
            # On the disk, not only promised: a full one must not end a worker in its midst.
            assert file.stat().st_blocks * 512 >= file.stat().st_size > 0
            with file.open("r+b") as opened:
                opened.write(b"mark")
        ledger.open(0)
        kept = {
            file.name for file in ledger.folder.glob("*.db") if file.read_bytes()[:4] == b"mark"
        }
        assert kept == {"counter_0.db", "histogram_0.db"}


def test_nothing_is_left_behind(temporary: Path) -> None:
    with Ledger() as ledger:
        ledger.open(0)
        assert [path for path in temporary.iterdir()] == [ledger.folder]
    assert list(temporary.iterdir()) == []
