from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from app.bundle import BundleError
from tests.training.tiny_runs import CLASSES, SPEC, tiny_recipe, with_skips
from training.recipes import Recipe, shape_of
from training.run import build_classifier, build_purifier
from training.weights import load_networks, weights_of


def networks_of(recipe: Recipe) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    networks: dict[str, nn.Module] = {
        "classifier": build_classifier(recipe, 1, len(CLASSES)),
        "surrogate_classifier": build_classifier(recipe, 1, len(CLASSES)),
    }
    for name in ("normal_teacher", "adversarial_teacher", "student", "ablation_none"):
        networks[name] = build_purifier(shape_of(recipe, name), SPEC)
    for network in networks.values():
        network(torch.rand(4, *SPEC.shape))  # batch norm has seen something
    return networks


@pytest.mark.parametrize(("skips", "pooled_maps"), [(True, 0), (False, 0), (False, 3)])
def test_networks_come_back_with_all_they_know(
    tmp_path: Path, skips: bool, pooled_maps: int
) -> None:
    recipe = with_skips(tiny_recipe(), skips)
    recipe = replace(recipe, student=replace(recipe.student, pooled_maps=pooled_maps))
    networks = networks_of(recipe)
    networks["student"].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    (tmp_path / "weights.safetensors").write_bytes(weights_of(networks))
    loaded = load_networks(tmp_path / "weights.safetensors", recipe, SPEC, len(CLASSES))
    assert loaded.keys() == networks.keys()
    images = torch.rand(3, *SPEC.shape)
    with torch.no_grad():
        for name, network in networks.items():
            assert not loaded[name].training
            torch.testing.assert_close(loaded[name](images), network.eval()(images))


def test_the_same_networks_make_the_same_file(tmp_path: Path) -> None:
    networks = networks_of(tiny_recipe())
    assert weights_of(networks) == weights_of(networks)


def test_networks_of_another_recipe_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(weights_of(networks_of(tiny_recipe())))
    with pytest.raises(BundleError, match="does not fit its recipe"):
        load_networks(tmp_path / "weights", tiny_recipe(), SPEC, len(CLASSES) + 1)


@pytest.mark.parametrize("content", [None, b"", b"no tensors at all"])
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "weights").write_bytes(content)
    with pytest.raises(BundleError, match="weights: cannot be read"):
        load_networks(tmp_path / "weights", tiny_recipe(), SPEC, len(CLASSES))
