"""The stages of a recipe, in order: classifier, two teachers, student, and what the card needs.

Each stage is trained from its checkpoint, or found finished there.
"""

import re
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.brought import BroughtClassifier
from training.checkpoints import fingerprint
from training.data import to_unit
from training.encoders import encoder_shape, train_encoder
from training.folding import channels_last, fold_batch_norm
from training.losses import distillation_loss, ensemble_of, teacher_loss
from training.optimization import Batch, epoch_seed
from training.recipes import Schedule, Shape, StudentStage, TeacherStage, binding_settings
from training.run import (
    Run,
    accuracies_alone,
    accuracy,
    build_classifier,
    craft,
    craft_alone,
    new_purifier,
    train_network,
    train_purifier,
    warmth,
)
from training.served_classifier import StandIn

ABLATIONS: dict[str, tuple[float, float] | None] = {
    "ablation_normal": (1.0, 1.0),
    "ablation_adversarial": (0.0, 0.0),
    "ablation_both": None,  # the recipe's own shares
    "ablation_none": None,  # no teacher: the clean image is the target
}
STAND_IN = "stand_in_classifier"
_TEACHERS = ("normal", "adversarial")
_SURROGATE_SEED = 1000


def run_stages(run: Run) -> None:
    """Train everything that the bundle and its card need."""
    recipe = run.recipe
    if run.brought is None:
        train_classifier(run, "classifier", recipe.seed)
    else:
        use_classifier(run, run.brought)
    train_teacher(run, "normal_teacher", recipe.normal_teacher)
    # One for the student and those of the ablation: what the teachers are worth is not in it.
    encoder = teachers = _encoder(run, "student_encoder", recipe.student)
    if encoder_shape(recipe.teacher) != encoder_shape(recipe.student):
        teachers = _encoder(run, "teacher_encoder", recipe.teacher)
    train_teacher(run, "adversarial_teacher", recipe.adversarial_teacher, encoder=teachers)
    train_student(run, "student", recipe.distillation, encoder=encoder)
    for name, shares in ABLATIONS.items():
        stage = replace(recipe.distillation, schedule=recipe.ablation)
        stage = stage if shares is None else replace(stage, normal_share=shares)
        for key in repeats(name, recipe.ablation_seeds):
            train_student(run, key, stage, taught=name != "ablation_none", encoder=encoder)
    seed, schedule = recipe.seed + _SURROGATE_SEED, recipe.surrogate_classifier
    train_classifier(run, "surrogate_classifier", seed, schedule)
    surrogate = replace(recipe.adversarial_teacher, schedule=recipe.surrogate)
    train_teacher(
        run,
        "surrogate_purifier",
        surrogate,
        against="surrogate_classifier",
        encoder=_encoder(
            run,
            "surrogate_encoder",
            recipe.student,
            against="surrogate_classifier",
            schedule=recipe.surrogate_encoder,
        ),
    )


def _encoder(
    run: Run,
    name: str,
    shape: Shape,
    *,
    against: str = "classifier",
    schedule: Schedule | None = None,
) -> str | None:
    """Train an encoder, if the recipe wants one; returns the name of the stage then.

    A schedule stands in for the one of the recipe's encoders.
    """
    stage = run.recipe.encoder
    if stage is None:
        return None
    if schedule:
        stage = replace(stage, schedule=schedule)
    train_encoder(run, name, stage, shape, against=against)
    return name


def repeats(name: str, seeds: int) -> list[str]:
    """The names of that many students of one way of teaching; all random draws hang on the name."""
    return [name if number == 1 else f"{name}_{number}" for number in range(1, seeds + 1)]


def kind_of(name: str) -> str:
    """The first of the names that `repeats` made, from any of them."""
    return re.sub(r"_\d+$", "", name)


def train_classifier(run: Run, name: str, seed: int, schedule: Schedule | None = None) -> None:
    """Train a classifier on clean images, and on attacked ones if the recipe says so.

    A schedule stands in for the recipe's.

    Source:
        Goodfellow, Shlens, Szegedy 2015: half of what it learns from is clean, half adversarial.
    """
    stage, epsilon = run.recipe.classifier, run.recipe.epsilon
    if schedule:
        stage = replace(stage, schedule=schedule)
    torch.manual_seed(epoch_seed(seed, name, -1))
    network = build_classifier(run.recipe, run.dataset.spec.channels, len(run.training.class_names))
    smoothing = stage.label_smoothing

    def loss_of(batch: Batch) -> Tensor:
        images, labels = batch.images, batch.labels
        if stage.attack is not None:
            attacked = craft_alone(network, batch, stage.attack, epsilon)
            images, labels = torch.cat([images, attacked]), labels.repeat(2)
        return functional.cross_entropy(network(images), labels, label_smoothing=smoothing)

    def measure(trained: nn.Module) -> dict[str, float]:
        if stage.attack is not None:
            return accuracies_alone(run, trained)
        return {"clean": accuracy(trained, run.validation, run.device)}

    settings = binding_settings(stage)
    if stage.attack is not None:
        settings["epsilon"] = epsilon
    train_network(run, name, network, loss_of, measure, stage.schedule, seed, settings, ())


def use_classifier(run: Run, brought: BroughtClassifier) -> None:
    """Take a classifier that was brought; one without gradients gets a surrogate for them."""
    network = brought.network
    if network is None:
        train_stand_in(run, brought)
        network = StandIn(brought.served, run.networks[STAND_IN])
    run.networks["classifier"] = channels_last(network, run.device)
    run.identities["classifier"] = fingerprint("brought", brought.identity)


def train_stand_in(run: Run, brought: BroughtClassifier) -> None:
    """Distil a classifier's answers into a network of the recipe's that has gradients."""
    # It learns from no attacks, and does not hang on them.
    stage = replace(run.recipe.classifier, attack=None)
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

    settings = {**binding_settings(stage), "epsilon": run.recipe.epsilon, "of": brought.identity}
    seed = run.recipe.seed
    train_network(run, STAND_IN, network, loss_of, measure, stage.schedule, seed, settings, ())


def train_teacher(
    run: Run,
    name: str,
    stage: TeacherStage,
    *,
    against: str = "classifier",
    encoder: str | None = None,
) -> None:
    """Train an autoencoder to give the clean image back, from clean and from attacked ones.

    `encoder` names the stage that its encoder is taken from.
    """
    classifier = fold_batch_norm(run.networks[against])
    purifier = new_purifier(run, name, encoder)

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

    depends = (against, encoder) if encoder else (against,)
    settings = binding_settings(stage)
    train_purifier(run, name, purifier, loss_of, stage.schedule, depends, settings)


def train_student(
    run: Run, name: str, stage: StudentStage, *, taught: bool = True, encoder: str | None = None
) -> None:
    """Distil a student; untaught, the clean images stand in for the teachers'.

    `encoder` names the stage that its encoder is taken from.
    """
    classifier = fold_batch_norm(run.networks["classifier"])
    teachers = [fold_batch_norm(run.networks[f"{kind}_teacher"]) for kind in _TEACHERS]
    purifier = new_purifier(run, name, encoder)

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

    settings = {**binding_settings(stage), "taught": taught}
    depends = ("classifier", *(f"{kind}_teacher" for kind in _TEACHERS))
    depends += (encoder,) if encoder else ()
    train_purifier(run, name, purifier, loss_of, stage.schedule, depends, settings)


def _halves(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The clean and the attacked half of a batch of both."""
    clean, attacked = tensor.chunk(2)
    return clean, attacked
