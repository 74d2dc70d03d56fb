"""The stages of a recipe, in order: classifier, two teachers, student, and what the card needs.

Each stage is trained from its checkpoint, or found finished there.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.attacks import pgd
from training.brought import BroughtClassifier
from training.checkpoints import Checkpoint, fingerprint
from training.data import Dataset, Split, split_validation, to_unit
from training.folding import fold_batch_norm
from training.losses import distillation_loss, ensemble_of, teacher_loss
from training.networks import Classifier, ConvAutoencoder
from training.optimization import Batch, History, Task, epoch_seed, train
from training.recipes import Attack, Recipe, Schedule, Shape, StudentStage, TeacherStage
from training.served_classifier import StandIn

ABLATIONS: dict[str, tuple[float, float] | None] = {
    "ablation_normal": (1.0, 1.0),
    "ablation_adversarial": (0.0, 0.0),
    "ablation_both": None,  # the recipe's own shares
    "ablation_none": None,  # no teacher: the clean image is the target
}
STAND_IN = "stand_in_classifier"
_MEASURED_IMAGES = 500
_SURROGATE_SEED = 1000


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

    def __post_init__(self) -> None:
        """Separate the validation images."""
        self.training, self.validation = split_validation(
            self.dataset.train, self.recipe.validation_fraction, self.recipe.seed
        )

    @property
    def trained(self) -> dict[str, nn.Module]:
        """The networks that the run itself trained: all but a classifier that was brought."""
        return {name: self.networks[name] for name in self.histories}

    @property
    def attacked_validation(self) -> Split:
        """Some validation images, a random choice: they lie in the order of their classes."""
        generator = torch.Generator().manual_seed(self.recipe.seed)
        order = torch.randperm(len(self.validation), generator=generator)
        return self.validation.subset(order[:_MEASURED_IMAGES])


def run_stages(run: Run) -> None:
    """Train everything that the bundle and its card need."""
    recipe = run.recipe
    if run.brought is None:
        train_classifier(run, "classifier", recipe.seed)
    else:
        use_classifier(run, run.brought)
    train_teacher(run, "normal_teacher", recipe.normal_teacher, recipe.teacher)
    train_teacher(run, "adversarial_teacher", recipe.adversarial_teacher, recipe.teacher)
    train_student(run, "student", recipe.distillation)
    for name, shares in ABLATIONS.items():
        stage = replace(recipe.distillation, schedule=recipe.ablation)
        stage = stage if shares is None else replace(stage, normal_share=shares)
        train_student(run, name, stage, taught=name != "ablation_none")
    train_classifier(run, "surrogate_classifier", recipe.seed + _SURROGATE_SEED)
    surrogate = replace(recipe.adversarial_teacher, schedule=recipe.surrogate)
    train_teacher(
        run, "surrogate_purifier", surrogate, recipe.student, against="surrogate_classifier"
    )


def train_classifier(run: Run, name: str, seed: int) -> None:
    """Train a classifier on clean images."""
    stage = run.recipe.classifier
    torch.manual_seed(epoch_seed(seed, name, -1))
    network = build_classifier(run.recipe, run.dataset.spec.channels, len(run.training.class_names))
    smoothing = stage.label_smoothing

    def loss_of(batch: Batch) -> Tensor:
        logits = network(batch.images)
        return functional.cross_entropy(logits, batch.labels, label_smoothing=smoothing)

    def measure(trained: nn.Module) -> dict[str, float]:
        return {"clean": accuracy(trained, run.validation, run.device)}

    _train(run, name, network, loss_of, measure, stage.schedule, seed, asdict(stage), ())


def use_classifier(run: Run, brought: BroughtClassifier) -> None:
    """Take a classifier that was brought; one without gradients gets a surrogate for them."""
    network = brought.network
    if network is None:
        train_stand_in(run, brought)
        network = StandIn(brought.served, run.networks[STAND_IN])
    run.networks["classifier"] = network.to(  # type: ignore[call-overload]
        run.device, memory_format=torch.channels_last
    )
    run.identities["classifier"] = fingerprint("brought", brought.identity)


def train_stand_in(run: Run, brought: BroughtClassifier) -> None:
    """Distil a classifier's answers into a network of the recipe's that has gradients."""
    stage = run.recipe.classifier
    torch.manual_seed(epoch_seed(run.recipe.seed, STAND_IN, -1))
    network = build_classifier(run.recipe, run.dataset.spec.channels, len(run.training.class_names))
    answers = brought.served.logits

    def loss_of(batch: Batch) -> Tensor:
        # Noise as well: an attack asks about images that no data set has.
        noise = torch.rand(batch.images.shape, generator=batch.generator) * 2 - 1
        noisy = (batch.images + run.recipe.epsilon * noise.to(run.device)).clamp(0, 1)
        images = torch.cat([batch.images, noisy])
        return functional.cross_entropy(network(images), answers(images).softmax(1))

    def measure(trained: nn.Module) -> dict[str, float]:
        images = to_unit(run.attacked_validation.images.to(run.device))
        with torch.no_grad():
            same = trained(images).argmax(1) == answers(images).argmax(1)
        agreement = float(same.float().mean())
        return {"clean": accuracy(trained, run.validation, run.device), "agreement": agreement}

    settings = {**asdict(stage), "epsilon": run.recipe.epsilon, "of": brought.identity}
    seed = run.recipe.seed
    _train(run, STAND_IN, network, loss_of, measure, stage.schedule, seed, settings, ())


def train_teacher(
    run: Run, name: str, stage: TeacherStage, shape: Shape, against: str = "classifier"
) -> None:
    """Train an autoencoder to give the clean image back, from clean and from attacked ones."""
    classifier = fold_batch_norm(run.networks[against])
    purifier = _new_purifier(run, name, shape)

    def loss_of(batch: Batch) -> Tensor:
        if stage.attack is None:
            restored = purifier(batch.images)
            purified = restored, restored  # clean images stand in for attacked ones
        else:
            attacked = craft(purifier, classifier, batch, stage.attack, run.recipe.epsilon)
            purified = _halves(purifier(torch.cat([batch.images, attacked])))
        if not (stage.cross_entropy or stage.clean_cross_entropy or stage.agreement):
            return teacher_loss(stage, purified, None, batch.images, None, batch.labels)
        with torch.no_grad():
            image_logits = classifier(batch.images)
        logits = classifier(purified[0]), classifier(purified[1])
        scale = warmth(batch, stage.attack)
        return teacher_loss(
            stage, purified, logits, batch.images, image_logits, batch.labels, scale
        )

    settings = {**asdict(stage), "shape": asdict(shape)}
    _train_purifier(run, name, purifier, loss_of, stage.schedule, (against,), settings)


def train_student(run: Run, name: str, stage: StudentStage, *, taught: bool = True) -> None:
    """Distil a student; untaught, the clean images stand in for the teachers'."""
    classifier = fold_batch_norm(run.networks["classifier"])
    teachers = [fold_batch_norm(run.networks[f"{kind}_teacher"]) for kind in _TEACHERS]
    purifier = _new_purifier(run, name, run.recipe.student)

    def targets_of(images: Tensor, attacked: Tensor) -> tuple[Tensor, Tensor]:
        """Each teacher sees only what it was trained on: the normal one no attacks."""
        if not taught:
            return images, images
        normal, adversarial = (teacher.to(run.device) for teacher in teachers)
        restored = normal(images)
        denoised = _halves(adversarial(torch.cat([images, attacked])))
        clean, under_attack = stage.normal_share
        return (
            ensemble_of(restored, denoised[0], clean),
            ensemble_of(restored, denoised[1], under_attack),
        )

    def loss_of(batch: Batch) -> Tensor:
        attacked = craft(purifier, classifier, batch, stage.attack, run.recipe.epsilon)
        with torch.no_grad():
            targets = targets_of(batch.images, attacked)
        purified = purifier(torch.cat([batch.images, attacked]))
        if not (stage.logits or stage.cross_entropy or stage.clean_cross_entropy):
            return distillation_loss(stage, _halves(purified), targets, None, None, batch.labels)
        logits = _halves(classifier(purified))
        with torch.no_grad():
            target_logits = _halves(classifier(torch.cat(targets)))
        scale = warmth(batch, stage.attack)
        return distillation_loss(
            stage, _halves(purified), targets, logits, target_logits, batch.labels, scale
        )

    settings = {**asdict(stage), "taught": taught, "shape": asdict(run.recipe.student)}
    depends = ("classifier", *(f"{kind}_teacher" for kind in _TEACHERS))
    _train_purifier(run, name, purifier, loss_of, stage.schedule, depends, settings)


def craft(
    purifier: nn.Module, classifier: nn.Module, batch: Batch, attack: Attack, epsilon: float
) -> Tensor:
    """Adversarial examples of a batch, crafted in eval mode."""
    epsilon *= attack.epsilon_scale
    epsilon *= warmth(batch, attack)
    model: Callable[[Tensor], Tensor] = classifier
    if attack.through == "pipeline":
        model = nn.Sequential(fold_batch_norm(purifier), classifier)
    return pgd(
        model,
        batch.images,
        batch.labels,
        epsilon=epsilon,
        steps=attack.steps,
        step_size=attack.step * epsilon,
        generator=batch.generator,
    )


def warmth(batch: Batch, attack: Attack | None) -> float:
    """From 0 to 1 over the first epochs: the share of epsilon and of the classifier's terms."""
    ramp = attack.ramp_epochs if attack else 0.0
    return min(1.0, batch.epoch / ramp) if ramp else 1.0


def build_classifier(recipe: Recipe, channels: int, classes: int) -> Classifier:
    """The recipe's classifier, untrained."""
    stage = recipe.classifier
    return Classifier(channels, stage.widths, stage.depths, classes, stage.dropout)


def build_purifier(shape: Shape, channels: int) -> ConvAutoencoder:
    """A purifier of the given shape, untrained."""
    return ConvAutoencoder(channels, shape.widths, shape.depths, shape.residual)


def accuracy(model: Callable[[Tensor], Tensor], split: Split, device: torch.device) -> float:
    """Share of the images that the model labels rightly."""
    right = 0
    with torch.no_grad():
        for start in range(0, len(split), 500):
            images, labels = split.images[start : start + 500], split.labels[start : start + 500]
            right += int((model(to_unit(images.to(device))).argmax(1).cpu() == labels).sum())
    return right / len(split)


_TEACHERS = ("normal", "adversarial")


def _new_purifier(run: Run, name: str, shape: Shape) -> ConvAutoencoder:
    """An untrained purifier with weights of its own by name and seed."""
    torch.manual_seed(epoch_seed(run.recipe.seed, name, -1))
    return build_purifier(shape, run.dataset.spec.channels)


def _halves(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The clean and the attacked half of a batch of both."""
    clean, attacked = tensor.chunk(2)
    return clean, attacked


def _train_purifier(
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
    sample = run.attacked_validation
    images, labels = to_unit(sample.images.to(run.device)), sample.labels.to(run.device)
    epsilon = run.recipe.epsilon

    def robust(defended: nn.Module, attacked_model: nn.Module) -> float:
        generator = torch.Generator().manual_seed(run.recipe.seed)
        attacked = pgd(
            attacked_model,
            images,
            labels,
            epsilon=epsilon,
            steps=10,
            step_size=epsilon / 4,
            generator=generator,
        )
        with torch.no_grad():
            return float((defended(attacked).argmax(1) == labels).float().mean())

    def measure(trained: nn.Module) -> dict[str, float]:
        defended = nn.Sequential(fold_batch_norm(trained), classifier)
        return {
            "clean": accuracy(defended, run.validation, run.device),
            "grey-box": robust(defended, classifier),
            "end-to-end": robust(defended, defended),
        }

    settings = {**settings, "epsilon": epsilon}
    _train(run, name, purifier, loss_of, measure, schedule, run.recipe.seed, settings, depends)


def _train(
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
    network.to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    task = Task(name, network, loss_of, measure, run.training, schedule, seed)
    identity = fingerprint(
        name,
        settings,
        seed,
        run.dataset.sha256,
        run.recipe.validation_fraction,
        [run.identities[upstream] for upstream in depends],
    )
    checkpoint = Checkpoint(run.work / f"{name}.pt", identity)
    run.histories[name] = train(task, checkpoint, run.report)
    run.identities[name] = identity
    run.networks[name] = network
