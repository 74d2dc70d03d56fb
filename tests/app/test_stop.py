import pytest

from app.stop import Stop


@pytest.mark.parametrize("early", [True, False])
def test_a_request_is_heard_whether_it_comes_before_or_after(early: bool) -> None:
    stop = Stop()
    heard: list[bool] = []
    if early:
        stop.request()
    stop.call(lambda: heard.append(stop.requested))
    if not early:
        assert heard == []
        stop.request()
    assert heard == [True]
