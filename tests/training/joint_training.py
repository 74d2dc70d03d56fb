"""A small training that one process does or several share; `torchrun` runs this module."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.training.tiny_runs import quiet, tiny_dataset, tiny_recipe
from training.batch_norm import share_batch_norm
from training.encoders import train_encoder
from training.processes import ProcessError, Processes, processes_of
from training.recipes import Augmentation, EncoderStage, Recipe
from training.run import Run
from training.stages import train_classifier, train_teacher

ROOT = Path(__file__).parents[2]
EXACT = ("classifier", "normal_teacher")  # stages without an attack
ENCODER = "teacher_encoder"
ATTACKED = "adversarial_teacher"
Found = dict[str, dict[str, Tensor]]


def start(command: Sequence[str], folder: Path = ROOT, **environment: str) -> subprocess.Popen[str]:
    """A process of one thread that speaks to others through the loopback only."""
    alone = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **alone, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def torchrun(*command: str) -> list[str]:
    """The command that runs a module in two processes."""
    options = ("--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2")
    return [sys.executable, "-m", "torch.distributed.run", *options, "-m", *command]


def joint_recipe() -> Recipe:
    """Without dropout, which every process draws for itself."""
    recipe = tiny_recipe()
    moved = Augmentation(shift=0.1, flip=True)
    classifier = replace(
        recipe.classifier,
        dropout=0.0,
        schedule=replace(recipe.classifier.schedule, augmentation=moved),
    )
    return replace(recipe, classifier=classifier)


def trained(work: Path, processes: Processes) -> Found:
    """The weights of four stages, with the losses of their epochs."""
    torch.set_num_threads(1)
    run = Run(joint_recipe(), tiny_dataset(), work, torch.device("cpu"), quiet, processes=processes)
    recipe = run.recipe
    train_classifier(run, "classifier", recipe.seed)
    train_teacher(run, "normal_teacher", recipe.normal_teacher)
    encoder = EncoderStage(recipe.ablation, replace(recipe.distillation.attack, steps=1))
    train_encoder(run, ENCODER, encoder, recipe.teacher)
    train_teacher(run, ATTACKED, recipe.adversarial_teacher, encoder=ENCODER)
    losses = {
        name: torch.tensor([record["loss"] for record in history])
        for name, history in run.histories.items()
    }
    return {
        name: {**network.state_dict(), "losses": losses[name]}
        for name, network in run.networks.items()
    }


def normalised(processes: Processes) -> dict[str, Tensor]:
    """What batch norm makes of this process's share of one batch, and its gradients."""
    chance = torch.Generator().manual_seed(0)
    layer = nn.Sequential(nn.BatchNorm2d(3))
    share_batch_norm(layer, processes)
    weight, bias = (layer.get_parameter(f"0.{name}") for name in ("weight", "bias"))
    with torch.no_grad():
        weight.copy_(torch.rand(3, generator=chance))
    # Every process's images of another brightness: the means of the shares differ.
    images = torch.randn(8, 3, 4, 5, generator=chance) + torch.arange(8.0)[:, None, None, None]
    wanted = torch.randn(images.shape, generator=chance)
    share = processes.share(len(images))
    images = images[share].contiguous(memory_format=torch.channels_last).requires_grad_()
    answer = layer(images)
    gradients = torch.autograd.grad(
        (answer * wanted[share]).square().mean(), [images, weight, bias]
    )
    processes.average(gradients[1:])
    found = {"answer": answer.detach(), "of images": gradients[0] / processes.count}
    return {
        **found,
        "of weight": gradients[1],
        "of bias": gradients[2],
        **dict(layer.named_buffers()),
        "evaluated": layer.eval()(images).detach(),
    }


def found_by(folder: Path, rank: int) -> Found:
    """What a process of the training in the folder found."""
    found: Found = torch.load(folder / f"process_{rank}", weights_only=True)
    return found


def main(folder: Path, lost: int | None = None) -> None:
    """Do all of it, or none because the process of rank `lost` ends instead."""
    processes = processes_of(os.environ)
    with processes.joined(torch.device("cpu")):
        if processes.rank == lost:
            sys.exit("ended before the others")
        found = trained(folder, processes)
        found["batch norm"] = normalised(processes)
        try:
            processes.check_same("the stage", f"as process {processes.rank} has it")
        except ProcessError as error:
            (folder / f"refusal_{processes.rank}").write_text(str(error))
    torch.save(found, folder / f"process_{processes.rank}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
