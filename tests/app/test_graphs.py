"""The way over a bound device, tried on the CPU: it must give what the plain way gives."""

import threading

import numpy as np
import pytest

from app.graphs import DeviceGraphs, Graphs, HostGraphs, bucket, graphs_of, padded
from app.sessions import Floats, Session, open_session
from app.stop import Stop
from tests.bundles import Design, classifier, purifier


def sessions(design: Design | None = None) -> tuple[Session, Session]:
    design = design or Design()
    graphs = purifier(design), classifier(design)
    first, second = (open_session(graph.SerializeToString(), "cpu", 1) for graph in graphs)
    return first, second


def images(count: int) -> Floats:
    return np.random.default_rng(count).random((count, 1, 8, 8), np.float32)


@pytest.fixture(scope="module")
def host() -> Graphs:
    return HostGraphs(*sessions())


@pytest.fixture(scope="module")
def device() -> Graphs:
    return DeviceGraphs(*sessions())


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_a_device_gives_what_the_host_gives(host: Graphs, device: Graphs, count: int) -> None:
    batch = images(count)
    rows = list(range(0, count, 2))
    one = host.purify(batch, rows, keep=True, stop=Stop())
    other = device.purify(batch, rows, keep=True, stop=Stop())
    assert one.images is not None and one.logits is not None
    assert other.images is not None and other.logits is not None
    assert (one.images.shape, one.logits.shape) == ((count, 1, 8, 8), (len(rows), 3))
    np.testing.assert_allclose(other.images, one.images, atol=1e-6)
    np.testing.assert_allclose(other.logits, one.logits, atol=1e-4)
    np.testing.assert_allclose(
        device.classify(batch, Stop()), host.classify(batch, Stop()), atol=1e-4
    )


@pytest.mark.parametrize("kind", [HostGraphs, DeviceGraphs])
def test_what_is_not_wanted_is_not_made(kind: type[HostGraphs] | type[DeviceGraphs]) -> None:
    found = kind(*sessions()).purify(images(3), [], keep=False, stop=Stop())
    assert (found.images, found.logits, found.classify_s) == (None, None, None)
    assert found.purify_s > 0


@pytest.mark.parametrize("kind", [HostGraphs, DeviceGraphs])
def test_an_endless_run_ends_when_it_is_stopped(
    kind: type[HostGraphs] | type[DeviceGraphs],
) -> None:
    # Hours of work, were it not stopped.
    graphs = kind(*sessions(Design(work=2**30)))
    stop = Stop()
    timer = threading.Timer(0.05, stop.request)
    timer.start()
    with pytest.raises(Exception, match="terminate flag"):
        graphs.classify(np.ones((1, 1, 8, 8), np.float32), stop)
    timer.join()


def test_a_stop_that_came_first_is_obeyed(host: Graphs) -> None:
    stop = Stop()
    stop.request()
    with pytest.raises(Exception, match="terminate flag"):
        host.classify(images(1), stop)


def test_buckets_are_powers_of_two() -> None:
    assert [bucket(size) for size in (1, 2, 3, 4, 5, 31, 32, 33)] == [1, 2, 4, 4, 8, 32, 32, 64]


def test_padding_adds_black_images_behind_the_others() -> None:
    batch = images(3)
    assert padded(images(4)).shape == (4, 1, 8, 8)
    assert (padded(batch)[:3] == batch).all() and not padded(batch)[3].any()


def test_the_sizes_to_warm_up_are_few_and_reach_the_largest(host: Graphs, device: Graphs) -> None:
    assert list(host.batch_sizes(1)) == [1]
    assert list(host.batch_sizes(6)) == [1, 2, 4, 6]
    assert list(host.batch_sizes(1024)) == [2**power for power in range(11)]
    assert list(device.batch_sizes(32)) == [1, 2, 4, 8, 16, 32]
    assert list(device.batch_sizes(6)) == [1, 2, 4, 8]


def test_on_the_cpu_nothing_is_padded() -> None:
    assert isinstance(graphs_of(*sessions()), HostGraphs)
