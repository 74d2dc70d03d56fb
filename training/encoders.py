"""The stage before adversarial teacher and student: their encoders alone learn to label images.

A step through encoder and one linear layer costs a fraction of one through purifier and classifier,
and gives the features that hold under attack.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.folding import fold_batch_norm
from training.losses import softened
from training.networks import Encoder, EncoderClassifier
from training.optimization import Batch, epoch_seed
from training.recipes import EncoderStage, Shape, binding_settings
from training.run import Run, accuracies_alone, craft_alone, train_network


def build_encoder(shape: Shape, channels: int, classes: int) -> EncoderClassifier:
    """The encoder of a purifier of the given shape behind a linear layer, untrained."""
    encoder = Encoder(channels, shape.widths, shape.depths, shape.contrast_gain, shape.stem)
    return EncoderClassifier(encoder, classes)


def encoder_shape(shape: Shape) -> Shape:
    """The shape without what only decoders have: purifiers alike in it have encoders alike."""
    return replace(shape, residual=False, skips=True, pooled_maps=0)


def train_encoder(
    run: Run, name: str, stage: EncoderStage, shape: Shape, *, against: str = "classifier"
) -> None:
    """Train the encoder of a purifier of this shape to label clean and attacked images.

    `against` names the classifier whose answers it learns, if the stage wants any.
    """
    epsilon, seed = run.recipe.epsilon, run.recipe.seed
    torch.manual_seed(epoch_seed(seed, name, -1))
    classes = len(run.training.class_names)
    network = build_encoder(shape, run.dataset.spec.channels, classes)
    judge = fold_batch_norm(run.networks[against]) if stage.answers else None

    def wanted_of(batch: Batch) -> Tensor:
        """Labels (N,), or chances (N, K) of which the classifier's answers are a share."""
        if judge is None:
            return batch.labels
        with torch.no_grad():
            return softened(batch.labels, judge(batch.images), stage.answers)

    def loss_of(batch: Batch) -> Tensor:
        attacked = craft_alone(network, batch, stage.attack, epsilon)
        clean_logits, attacked_logits = network(torch.cat([batch.images, attacked])).chunk(2)
        wanted = wanted_of(batch)
        loss = functional.cross_entropy(attacked_logits, wanted)
        clean = functional.cross_entropy(clean_logits, wanted)
        return loss + stage.clean_cross_entropy * clean

    def measure(trained: nn.Module) -> dict[str, float]:
        return accuracies_alone(run, trained)

    encoded = binding_settings(encoder_shape(shape))
    settings = {**binding_settings(stage), "epsilon": epsilon, "shape": encoded}
    depends = (against,) if stage.answers else ()
    train_network(run, name, network, loss_of, measure, stage.schedule, seed, settings, depends)
