import ctypes

import numpy as np
import onnxruntime as ort
import pytest

from app.sessions import CPU, CUDA, TENSORRT, DeviceError, open_session
from tests.bundles import Design, purifier

GRAPH = purifier(Design()).SerializeToString()


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return CUDA in ort.get_available_providers()


def test_a_graph_runs_on_the_cpu() -> None:
    session = open_session(GRAPH, "cpu", 1)
    assert session.provider == CPU
    purified = session.run(np.full((2, 1, 8, 8), 0.5, np.float32))
    assert purified == pytest.approx(np.full((2, 1, 8, 8), 0.5))


def test_its_interface_is_told() -> None:
    session = open_session(GRAPH, "cpu", 1)
    assert [tensor.name for tensor in session.inputs] == ["images"]
    assert session.outputs[0].shape == (None, 1, 8, 8)


@pytest.mark.skipif(has_driver(), reason="this machine has a CUDA driver")
@pytest.mark.parametrize(("device", "provider"), [("cuda", CUDA), ("tensorrt", TENSORRT)])
def test_a_named_device_that_does_not_load_is_refused(device: str, provider: str) -> None:
    with pytest.raises(DeviceError, match=provider):
        open_session(GRAPH, "cuda" if device == "cuda" else "tensorrt", 1)


@pytest.mark.skipif(has_driver(), reason="this machine has a CUDA driver")
def test_auto_takes_the_cpu_without_a_word_where_there_is_no_driver(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert open_session(GRAPH, "auto", 1).provider == CPU
    assert capfd.readouterr() == ("", "")


@pytest.mark.gpu
@pytest.mark.skipif(not has_driver(), reason="this machine has no CUDA driver")
def test_cuda_gives_what_the_cpu_gives() -> None:
    images = np.random.default_rng(0).random((5, 1, 8, 8), np.float32)
    session = open_session(GRAPH, "cuda", 1)
    assert session.provider == CUDA
    assert session.run(images) == pytest.approx(open_session(GRAPH, "cpu", 1).run(images), abs=1e-5)


def test_what_is_no_graph_is_refused() -> None:
    with pytest.raises(ValueError, match="refuses the graph"):
        open_session(b"no graph", "cpu", 1)
