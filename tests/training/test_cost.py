import pytest

from tests.training.small_networks import SPEC, digit_images, small_networks
from training import cost
from training.export import export_onnx
from training.networks import multiply_adds


def test_the_cost_is_that_of_the_file_and_of_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    purifier = small_networks()[0]
    content = export_onnx(purifier, "purifier", SPEC)
    image = digit_images(1)[0]
    found = cost.cost_of(content, purifier, image)
    assert found.image == SPEC.shape
    assert found.multiply_adds == multiply_adds(purifier, SPEC.shape)
    assert found.milliseconds > 0 and found.processor
    assert found.runtime.startswith("onnxruntime ")
    # A purifier of large images is not run for minutes.
    monkeypatch.setattr(cost, "_LONGEST_S", 0.0)
    assert cost.cost_of(content, purifier, image).runs == 5
