"""One run of a recipe: its data, its networks, and how each is trained under a checkpoint."""

import hashlib
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.bundle import InputSpec
from training.attacks import pgd
from training.batch_norm import share_batch_norm
from training.brought import BroughtClassifier
from training.checkpoints import Checkpoint, fingerprint
from training.data import Dataset, Split, to_unit
from training.folding import channels_last, fold_batch_norm
from training.networks import Classifier, ConvAutoencoder
from training.optimization import Batch, History, Task, epoch_seed, train
from training.processes import ALONE, Processes
from training.recipes import Attack, Recipe, Schedule, Shape, binding_settings, shape_of
from training.validation import split_validation

_MEASURED_IMAGES = 500


@dataclass
class Run:
    """One run of a recipe over a data set; the networks appear as their stages end."""

    recipe: Recipe
    dataset: Dataset
    work: Path
    device: torch.device
    report: Callable[[str], None]
    training: Split = field(init=False)
    validation: Split = field(init=False)
    networks: dict[str, nn.Module] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)
    brought: BroughtClassifier | None = None
    processes: Processes = ALONE
    asked_precision: InitVar[torch.dtype | None] = None  # None: what suits the device
    precision: torch.dtype = field(init=False)  # of convolutions and matrix products in training

    def __post_init__(self, asked_precision: torch.dtype | None) -> None:
        """Separate the validation images, and settle the precision."""
        self.precision = asked_precision or precision_on(self.device)
        self.training, self.validation = split_validation(
            self.dataset.train, self.recipe.validation_fraction, self.recipe.seed
        )

    @property
    def trained(self) -> dict[str, nn.Module]:
        """What is worth keeping of what the run trained.

        Not a classifier that was brought, and no encoder: its purifier holds what became of it.
        """
        return {
            name: self.networks[name] for name in self.histories if not name.endswith("_encoder")
        }

    @cached_property
    def validation_identity(self) -> str:
        """What tells whether the same images are for validation; names of files are not in it."""
        pixels = hashlib.sha256(self.validation.images.numpy().tobytes()).hexdigest()
        return fingerprint(pixels, self.validation.labels.tolist())

    @cached_property
    def attacked_validation(self) -> Split:
        """Some validation images, a random choice: they lie in the order of their classes."""
        return self.validation.sample(_MEASURED_IMAGES, self.recipe.seed)


def craft(
    purifier: nn.Module, classifier: nn.Module, batch: Batch, attack: Attack, epsilon: float
) -> Tensor:
    """Adversarial examples of a batch, crafted in eval mode."""
    epsilon *= attack.epsilon_scale
    epsilon *= warmth(batch, attack)

    def crafted(model: Callable[[Tensor], Tensor], part: slice) -> Tensor:
        return pgd(
            model,
            batch.images[part],
            batch.labels[part],
            epsilon=epsilon,
            steps=attack.steps,
            step_size=attack.step * epsilon,
            generator=batch.generator,
        )

    count = len(batch.images)
    bare = count if attack.through == "classifier" else round(count * attack.bare_share)
    examples = [crafted(classifier, slice(0, bare))] if bare else []
    if bare < count:
        pipeline = nn.Sequential(fold_batch_norm(purifier), classifier)
        examples.append(crafted(pipeline, slice(bare, count)))
    return torch.cat(examples)


def craft_alone(network: nn.Module, batch: Batch, attack: Attack, epsilon: float) -> Tensor:
    """Adversarial examples of a network that labels images by itself, whatever `through` says."""
    return craft(nn.Identity(), fold_batch_norm(network), batch, attack, epsilon)


def warmth(batch: Batch, attack: Attack | None) -> float:
    """From 0 to 1 over the first epochs: the share of epsilon and of the classifier's terms."""
    ramp = attack.ramp_epochs if attack else 0.0
    return min(1.0, batch.epoch / ramp) if ramp else 1.0


def build_classifier(recipe: Recipe, channels: int, classes: int) -> Classifier:
    """The recipe's classifier, untrained."""
    stage = recipe.classifier
    return Classifier(
        channels,
        stage.widths,
        stage.depths,
        classes,
        stage.dropout,
        stem=stage.stem,
        residual=stage.residual,
    )


def build_purifier(shape: Shape, spec: InputSpec) -> ConvAutoencoder:
    """A purifier of the given shape for the given images, untrained."""
    return ConvAutoencoder(
        spec.channels,
        shape.widths,
        shape.depths,
        shape.residual,
        shape.contrast_gain,
        shape.stem,
        skips=shape.skips,
        pooled_maps=shape.pooled_maps,
        size=(spec.height, spec.width),
    )


def accuracy(model: Callable[[Tensor], Tensor], split: Split, device: torch.device) -> float:
    """Share of the images that the model labels rightly."""
    right = 0
    with torch.no_grad():
        for start in range(0, len(split), 500):
            images, labels = split.images[start : start + 500], split.labels[start : start + 500]
            right += int((model(to_unit(images.to(device))).argmax(1).cpu() == labels).sum())
    return right / len(split)


def robustness(run: Run, model: nn.Module, attacked_model: nn.Module) -> float:
    """Share of some validation images, attacked by PGD-10, that the model labels rightly."""
    sample = run.attacked_validation
    images, labels = to_unit(sample.images.to(run.device)), sample.labels.to(run.device)
    attacked = pgd(
        attacked_model,
        images,
        labels,
        epsilon=run.recipe.epsilon,
        steps=10,
        step_size=run.recipe.epsilon / 4,
        generator=torch.Generator().manual_seed(run.recipe.seed),
    )
    with torch.no_grad():
        return float((model(attacked).argmax(1) == labels).float().mean())


def accuracies_alone(run: Run, network: nn.Module) -> dict[str, float]:
    """Accuracies of a network that labels images by itself, clean and attacked by PGD-10."""
    folded = fold_batch_norm(network)
    return {
        "clean": accuracy(folded, run.validation, run.device),
        "attacked": robustness(run, folded, folded),
    }


def precision_on(device: torch.device) -> torch.dtype:
    """The precision to train in: bfloat16 on a GPU that has it."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def new_purifier(run: Run, name: str, encoder: str | None = None) -> ConvAutoencoder:
    """A purifier of the recipe's, with untrained weights of its own by name and seed.

    Those of its encoder are that stage's, if `encoder` names one.
    """
    torch.manual_seed(epoch_seed(run.recipe.seed, name, -1))
    purifier = build_purifier(shape_of(run.recipe, name), run.dataset.spec)
    if encoder is not None:
        purifier.encoder.load_state_dict(
            run.networks[encoder].get_submodule("encoder").state_dict()
        )
    return purifier


def train_purifier(
    run: Run,
    name: str,
    purifier: ConvAutoencoder,
    loss_of: Callable[[Batch], Tensor],
    schedule: Schedule,
    depends: tuple[str, ...],
    settings: dict[str, Any],
) -> None:
    """Train a purifier, measured clean, grey-box and end-to-end on validation images.

    `depends` names the stages that it needs, its classifier first.
    """
    classifier = fold_batch_norm(run.networks[depends[0]])

    def measure(trained: nn.Module) -> dict[str, float]:
        defended = nn.Sequential(fold_batch_norm(trained), classifier)
        return {
            "clean": accuracy(defended, run.validation, run.device),
            "grey-box": robustness(run, defended, classifier),
            "end-to-end": robustness(run, defended, defended),
        }

    shape = binding_settings(shape_of(run.recipe, name))
    settings = {**settings, "epsilon": run.recipe.epsilon, "shape": shape}
    train_network(
        run, name, purifier, loss_of, measure, schedule, run.recipe.seed, settings, depends
    )


def train_network(
    run: Run,
    name: str,
    network: nn.Module,
    loss_of: Callable[[Batch], Tensor],
    measure: Callable[[nn.Module], dict[str, float]],
    schedule: Schedule,
    seed: int,
    settings: object,
    depends: tuple[str, ...],
) -> None:
    """Train one network under a checkpoint bound to all that it depends on."""
    channels_last(network, run.device)
    share_batch_norm(network, run.processes)
    task = Task(
        name,
        network,
        loss_of,
        measure,
        run.training,
        schedule,
        seed,
        run.precision,
        run.processes,
    )
    identity = fingerprint(
        name,
        settings,
        seed,
        run.dataset.sha256,
        run.recipe.validation_fraction,
        [run.identities[upstream] for upstream in depends],
    )
    checkpoint = Checkpoint(run.work / f"{name}.pt", identity, run.validation_identity)
    run.histories[name] = train(task, checkpoint, run.report)
    run.identities[name] = identity
    run.networks[name] = network
