from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.training.joint_training import found_by, normalised
from training.batch_norm import SharedBatchNorm2d, share_batch_norm
from training.folding import fold_batch_norm
from training.networks import ConvAutoencoder
from training.processes import ALONE, Processes

TWO = Processes(rank=0, local_rank=0, count=2)


@pytest.mark.parametrize("name", ["answer", "of images"])
def test_two_processes_normalise_their_shares_as_one_does_the_batch(joint: Path, name: str) -> None:
    shares = [found_by(joint, rank)["batch norm"][name] for rank in (0, 1)]
    torch.testing.assert_close(torch.cat(shares), normalised(ALONE)[name])


@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_track_and_learn_what_one_does(joint: Path, rank: int) -> None:
    expected = normalised(ALONE)
    found = found_by(joint, rank)["batch norm"]
    assert found.keys() == expected.keys() >= {"of weight", "of bias", "0.running_var"}
    for name in expected.keys() - {"answer", "of images", "evaluated"}:
        torch.testing.assert_close(found[name], expected[name])
    share = TWO.share(8) if rank == 0 else slice(4, 8)
    torch.testing.assert_close(found["evaluated"], expected["evaluated"][share])


def purifier() -> ConvAutoencoder:
    torch.manual_seed(0)
    return ConvAutoencoder(1, (4, 8), (0, 1))


def layers(network: nn.Module) -> int:
    return sum(isinstance(module, SharedBatchNorm2d) for module in network.modules())


def test_every_batch_norm_is_shared_and_keeps_its_names() -> None:
    before, after = purifier(), purifier()
    parameters = list(after.parameters())
    share_batch_norm(after, TWO)
    assert layers(after) == sum(isinstance(m, nn.BatchNorm2d) for m in before.modules()) == 4
    assert all(one is other for one, other in zip(parameters, after.parameters(), strict=True))
    assert before.state_dict().keys() == after.state_dict().keys()
    assert list(before.state_dict()) == list(after.state_dict())


def test_a_process_alone_keeps_its_batch_norm() -> None:
    network = purifier()
    share_batch_norm(network, ALONE)
    assert layers(network) == 0


def test_it_folds_and_answers_as_any_other_once_it_is_trained() -> None:
    plain, shared = purifier().eval(), purifier().eval()
    share_batch_norm(shared, TWO)
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(shared(images), plain(images))
        folded = fold_batch_norm(shared)
        assert layers(folded) == 0
        assert torch.equal(folded(images), fold_batch_norm(plain)(images))


class Halves(Processes):
    """Two processes with the same images."""

    def gathered(self, tensor: Tensor) -> Tensor:
        return torch.stack([tensor, tensor])

    def average(self, tensors: object) -> None:
        pass


def test_bfloat16_goes_in_and_out_and_statistics_keep_their_digits() -> None:
    layer = SharedBatchNorm2d(nn.BatchNorm2d(3), Halves(count=2))
    images = (torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)) + 20).bfloat16()
    images.requires_grad_()
    answer = layer(images)
    assert answer.dtype == torch.bfloat16
    answer.float().square().sum().backward()
    assert images.grad is not None and images.grad.dtype == torch.bfloat16
    assert layer.running_mean is not None and layer.running_mean.dtype == torch.float32
    wanted = 0.1 * images.detach().float().mean((0, 2, 3))
    torch.testing.assert_close(layer.running_mean, wanted)
    assert layer.weight.grad is not None and layer.weight.grad.dtype == torch.float32
