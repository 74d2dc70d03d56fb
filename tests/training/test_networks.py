import pytest
import torch
from torch import nn

from app.bundle import InputSpec
from tests.training.book import every_recipe
from tests.training.small_networks import small_networks
from training.export import Kind, export_onnx
from training.networks import (
    Classifier,
    ConvAutoencoder,
    Encoder,
    EncoderClassifier,
    multiply_adds,
    parameters,
)
from training.onnx_importer import ImportedGraph
from training.recipe_book import HARDENED, HARDENED_OBJECT, HARDENED_PHOTO
from training.recipes import Recipe
from training.run import build_classifier, build_purifier

SHAPES = [(1, 28, 28), (3, 32, 32), (3, 16, 24)]


def autoencoder(channels: int = 1, residual: bool = False, stem: int = 0) -> ConvAutoencoder:
    torch.manual_seed(0)
    return ConvAutoencoder(channels, (4, 8), (1, 0), residual, stem=stem)


@pytest.mark.parametrize("stem", [0, 6])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_autoencoder_keeps_the_shape_and_the_unit_box(
    shape: tuple[int, int, int], residual: bool, stem: int
) -> None:
    images = torch.rand(5, *shape)
    pooled = ConvAutoencoder(
        shape[0], (4,), (1,), residual, stem=stem, skips=False, pooled_maps=3, size=shape[1:]
    )
    for network in (autoencoder(shape[0], residual, stem), pooled):
        purified = network(images).detach()
        assert purified.shape == images.shape
        assert float(purified.min()) >= 0 and float(purified.max()) <= 1
        assert float(purified.std()) > 0


def test_purified_pixels_have_all_their_digits_in_bfloat16_too() -> None:
    images = torch.rand(2, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert autoencoder()(images).dtype == torch.float32
        assert autoencoder(residual=True)(images).dtype == torch.float32


def test_pixels_that_are_nearly_black_or_white_hardly_pass_the_sigmoid_changed() -> None:
    purifier = ConvAutoencoder(1, (4, 8), (1, 0), contrast_gain=20.0).eval()
    image = torch.tensor([0.0, 0.5, 1.0]).expand(1, 1, 3, 3).clone().requires_grad_(True)
    entered: list[torch.Tensor] = []
    purifier.encoder[0].register_forward_pre_hook(
        lambda _, inputs: entered.append(inputs[0].detach())
    )
    (gradient,) = torch.autograd.grad(purifier(image).sum(), image)
    purifier(image + torch.tensor([0.3, 0.3, -0.3]))
    moved = (entered[1] - entered[0])[0, 0, 0, :3].abs()
    assert float(moved[[0, 2]].max()) < 0.02 and float(moved[1]) > 0.4
    assert float(gradient.abs().min()) > 0  # an attack is told which way to go everywhere


@pytest.mark.parametrize("shape", SHAPES)
def test_a_classifier_gives_one_logit_per_class(shape: tuple[int, int, int]) -> None:
    for stem, residual in ((0, False), (3, True)):
        network = Classifier(shape[0], (4, 8), (0, 1), 7, stem=stem, residual=residual)
        assert network(torch.rand(5, *shape)).shape == (5, 7)


def test_what_a_residual_classifier_adds_may_be_nothing() -> None:
    plain = Classifier(1, (4,), (0,), 3, stem=2).eval()
    deeper = Classifier(1, (4,), (1,), 3, stem=2, residual=True).eval()
    deeper.load_state_dict(plain.state_dict(), strict=False)
    added = deeper.features[-1].get_submodule("layers.0").get_parameter("weight")
    images = torch.rand(5, 1, 8, 8)
    assert not torch.equal(deeper(images), plain(images))
    nn.init.zeros_(added)
    assert torch.equal(deeper(images), plain(images))


def test_nothing_but_skips_carries_detail_past_the_narrowest_layer() -> None:
    for stem in (0, 3):
        for skips in (True, False):
            network = ConvAutoencoder(1, (4, 8), (1, 0), stem=stem, skips=skips).eval()
            images = torch.rand(1, 1, 8, 8)
            whole = network(images)
            nn.init.zeros_(network.decoder[0].get_submodule("0").get_parameter("weight"))
            without_depth = network(images)
            assert not torch.equal(whole, without_depth)
            told_apart = not torch.equal(without_depth, network(torch.rand(1, 1, 8, 8)))
            assert told_apart == skips


@pytest.mark.parametrize("pooled_maps", [0, 5])
def test_a_pooled_decoder_knows_what_there_is_and_not_where(pooled_maps: int) -> None:
    size = (9, 7)
    network = ConvAutoencoder(
        1, (4, 8), (1, 0), skips=False, pooled_maps=pooled_maps, size=size
    ).eval()
    images = torch.rand(3, 1, *size)
    with torch.no_grad():
        restored = network(images)
        network.encoder.register_forward_hook(
            lambda _, __, found: [features.roll(1, dims=2) for features in found]
        )
        elsewhere = network(images)
    assert restored.shape == images.shape
    assert torch.allclose(restored, elsewhere, atol=1e-6) == bool(pooled_maps)
    assert not torch.allclose(restored[0], restored[1], atol=1e-6)


@pytest.mark.parametrize(("skips", "size"), [(True, (8, 8)), (False, None)])
def test_pooled_purifiers_with_skips_or_of_no_size_are_refused(
    skips: bool, size: tuple[int, int] | None
) -> None:
    with pytest.raises(ValueError, match="pooled maps"):
        ConvAutoencoder(1, (4, 8), (1, 0), skips=skips, pooled_maps=5, size=size)


def test_images_of_another_size_than_pooled_maps_know_are_refused() -> None:
    network = ConvAutoencoder(1, (4,), (0,), skips=False, pooled_maps=2, size=(9, 7))
    with pytest.raises(ValueError, match=r"must be of \(9, 7\), got \(8, 8\)"):
        network(torch.rand(1, 1, 8, 8))


@pytest.mark.parametrize(
    "network",
    [
        autoencoder(),
        Classifier(1, (4, 8), (0, 1), 3, 0.5, 2, True),
        EncoderClassifier(Encoder(1, (4, 8), (0, 1), 5.0, stem=2), 3),
    ],
)
def test_in_eval_mode_an_image_has_one_answer_whatever_its_batch(network: nn.Module) -> None:
    network.eval()
    images = torch.rand(6, 1, 16, 16)
    with torch.no_grad():
        together = network(images)
        alone = torch.cat([network(image[None]) for image in images])
        assert torch.equal(network(images), together)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_a_stem_carries_detail_that_halving_loses() -> None:
    purifier = autoencoder(stem=6).eval()
    image = torch.rand(1, 1, 8, 8)
    whole = purifier(image)
    nn.init.zeros_(purifier.encoder[1].get_submodule("0.0").get_parameter("weight"))
    with torch.no_grad():
        detail = purifier(image)
    assert not torch.equal(whole, detail)
    assert float(detail.std(dim=(2, 3)).min()) > 0  # past the halving, which says nothing now


@pytest.mark.parametrize(("stem", "stages"), [(0, 2), (3, 3)])
def test_an_encoder_gives_the_features_of_every_stage(stem: int, stages: int) -> None:
    encoder = Encoder(1, (4, 6), (0, 1), stem=stem).eval()
    found = encoder(torch.rand(2, 1, 9, 6))  # 9 and 6 are padded to 12 and 8
    sizes = [(4, 6, 4), (6, 3, 2)]
    assert [tuple(features.shape[1:]) for features in found] == [
        *([(stem, 12, 8)] if stem else []),
        *sizes,
    ]
    assert len(found) == stages
    # Weights are named as in bundles from before it was a class.
    assert next(iter(autoencoder().state_dict())) == "encoder.0.0.0.weight"


def test_the_same_seed_builds_the_same_network() -> None:
    one, same = autoencoder(), autoencoder()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))


@pytest.mark.parametrize(("widths", "depths"), [((), ()), ((4,), (0, 0)), ((4, 8), (1,))])
def test_widths_without_depths_are_refused(
    widths: tuple[int, ...], depths: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="must pair up"):
        ConvAutoencoder(1, widths, depths)


@pytest.mark.parametrize("stem", [0, 6])
@pytest.mark.parametrize(("height", "width"), [(10, 12), (9, 7), (8, 5)])
def test_sides_that_cannot_be_halved_so_often_are_padded_inside(
    height: int, width: int, stem: int
) -> None:
    purifier = autoencoder(3, stem=stem).eval()
    images = torch.rand(2, 3, height, width)
    bottom, right = -height % 4, -width % 4
    padded = torch.nn.functional.pad(images, (0, right, 0, bottom), mode="replicate")
    with torch.no_grad():
        found, whole = purifier(images), purifier(padded)
    torch.testing.assert_close(found, whole[..., :height, :width])


def test_multiply_adds_are_counted_as_by_hand() -> None:
    purifier = ConvAutoencoder(1, (2,), (0,))
    # 3x3 convolution to 2 maps of 2x2, then a 4x4 transposed one from each of these 2x2 places.
    assert multiply_adds(purifier, (1, 4, 4)) == 2 * 2 * (2 * 9) + 2 * 2 * (2 * 16)
    assert parameters(purifier) == 2 * 9 + 2 * 2 + (2 * 16 + 1)
    # A 3x3 convolution to 5 maps of 4x4 first, one from 5 maps last, 5 maps between the others.
    stemmed = ConvAutoencoder(1, (2,), (0,), stem=5)
    ends, between = 2 * 4 * 4 * (5 * 9), 2 * 2 * (2 * 5 * 9) + 2 * 2 * (2 * 5 * 16)
    assert multiply_adds(stemmed, (1, 4, 4)) == ends + between
    classifier = Classifier(1, (2,), (0,), 3)
    # 5x5 convolution to 2 maps of 2x2, then 2 pooled features to 3 logits.
    assert multiply_adds(classifier, (1, 4, 4)) == 2 * 2 * (2 * 25) + 2 * 3
    assert parameters(classifier) == 2 * 25 + 2 * 2 + (2 * 3 + 3)


def test_multiply_adds_of_a_graph_are_those_of_its_network() -> None:
    spec = InputSpec(channels=3, height=32, width=32)
    kinds: tuple[Kind, Kind] = ("purifier", "classifier")
    pooled = small_networks(spec, skips=False, pooled_maps=5)
    for networks in (small_networks(spec), pooled):
        for network, kind in zip(networks, kinds, strict=True):
            graph = ImportedGraph(export_onnx(network, kind, spec))
            assert multiply_adds(graph, spec.shape) == multiply_adds(network, spec.shape)


def test_counting_leaves_the_network_as_it_was() -> None:
    network = autoencoder().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    counted = multiply_adds(network, (1, 8, 8))
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert multiply_adds(network, (1, 8, 8)) == counted


@every_recipe
def test_a_shipped_student_is_small(recipe: Recipe) -> None:
    spec = InputSpec(channels=3, height=32, width=32)
    student = multiply_adds(build_purifier(recipe.student, spec), spec.shape)
    teacher = multiply_adds(build_purifier(recipe.teacher, spec), spec.shape)
    assert student < 20_000_000
    # Hardened students of photographs may do no more work, and do as much or nearly as much; of
    # digits and objects they share the teachers' encoder.
    alike = recipe in (HARDENED, HARDENED_OBJECT)
    larger = 1.0 if alike else 1.2 if recipe is HARDENED_PHOTO else 1.5
    assert student * larger <= teacher
    assert multiply_adds(build_classifier(recipe, 3, 10), spec.shape) > 0
