import pytest

from app.trace import Trace, request_id


@pytest.mark.parametrize("offered", ["a", "0af7651916cd43dd8448eb211c80319c", "web-1:42/x=y+z_"])
def test_a_sane_id_is_taken_over(offered: str) -> None:
    assert request_id(offered) == offered


@pytest.mark.parametrize(
    "offered", [None, "", " ", "a b", "a\nb", "<script>", "x" * 129, "-a", "é"]
)
def test_any_other_id_is_replaced_by_a_new_one(offered: str | None) -> None:
    made = request_id(offered)
    assert made != offered
    assert made != request_id(offered)
    assert request_id(made) == made


def test_of_several_images_the_slowest_counts() -> None:
    trace = Trace("id")
    trace.note("decode", 0.002)
    trace.note("decode", 0.001)
    assert trace.stages == {"decode": 0.002}


def test_server_timing_lists_the_stages_in_their_order() -> None:
    trace = Trace("id")
    trace.note("encode", 0.5)
    trace.note("read", 0.0015)
    stages = trace.server_timing().split(", ")
    assert stages[:2] == ["read;dur=1.500", "encode;dur=500.000"]
    assert stages[2].startswith("total;dur=")


def test_beginnings_are_kept_only_where_traces_are_written() -> None:
    trace, traced = Trace("id"), Trace("id", spans=[])
    for notes in (trace, traced):
        notes.note("decode", 0.002, 7.0)
        notes.note("decode", 0.001, 8.0)
    assert trace.spans is None
    assert traced.spans == [("decode", 7.0, 0.002), ("decode", 8.0, 0.001)]
