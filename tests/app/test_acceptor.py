from pathlib import Path

from app.acceptor import Shares


def test_the_excess_is_over_the_worker_that_has_least(tmp_path: Path) -> None:
    shares = Shares(tmp_path / "connections")
    others = Shares(tmp_path / "connections")
    shares.tell(0, 7)
    others.tell(1, 3)
    others.tell(2, 5)
    assert [shares.excess(place, places=8) for place in range(3)] == [4, 0, 2]


def test_a_worker_that_has_ended_is_nobody_to_wait_for(tmp_path: Path) -> None:
    shares = Shares(tmp_path / "connections")
    shares.tell(0, 7)
    shares.tell(1, 0)
    shares.forget(1)
    assert shares.excess(0, places=4) == 0
