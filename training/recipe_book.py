"""The recipes that come with the program.

`paper` is our reading of Koo, Chae, Lee 2023: adversarial examples come from attacks on the bare
classifier. `hardened` attacks purifier and classifier together, which is what an attacker who knows
the purifier does. Each is there for three kinds of images: `ink`, grey and nearly black and white
as digits and script are, which bear large perturbations; `object`, photographs that mean the same
when mirrored, as those of animals and vehicles do; and `photo`, everything else.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, get_args

from training.recipes import (
    Attack,
    Augmentation,
    ClassifierStage,
    EncoderStage,
    Recipe,
    Schedule,
    Shape,
    StudentStage,
    TeacherStage,
)

Images = Literal["ink", "photo", "object"]
IMAGES: tuple[Images, ...] = get_args(Images)

_MNIST_AUGMENTATION = Augmentation(shift=0.07, rotation_degrees=10.0, scale=0.1)

_MNIST_CLASSIFIER = ClassifierStage(
    widths=(16, 32, 64),
    depths=(0, 1, 0),
    schedule=Schedule(epochs=8, learning_rate=4e-3, augmentation=_MNIST_AUGMENTATION),
)

_BARE = Attack(through="classifier", steps=5, step=0.3)

PAPER = Recipe(
    name="paper",
    epsilon=0.3,
    classifier=_MNIST_CLASSIFIER,
    teacher=Shape(widths=(32, 72), depths=(0, 1)),
    student=Shape(widths=(16, 32), depths=(0, 1)),
    normal_teacher=TeacherStage(schedule=Schedule(epochs=2, batch_size=64), attack=None),
    adversarial_teacher=TeacherStage(
        schedule=Schedule(epochs=1, batch_size=64, ema_decay=0.995), attack=_BARE
    ),
    distillation=StudentStage(
        schedule=Schedule(epochs=4, batch_size=64, ema_decay=0.998),
        attack=replace(_BARE, ramp_epochs=0.5),
        logits=1.0,
    ),
    ablation=Schedule(epochs=1, batch_size=64, ema_decay=0.995),
    surrogate=Schedule(epochs=1, batch_size=64, ema_decay=0.995),
)

# Attacks well beyond epsilon: accuracy falls off a cliff just past the radius that was trained for,
# and at epsilon_scale 1.05 the cliff begins at epsilon itself.
_INK_THROUGH = Attack(through="pipeline", steps=7, step=0.25, epsilon_scale=1.2, ramp_epochs=0.5)
_INK_QUICKLY = replace(_INK_THROUGH, steps=5, step=0.35)
_INK_PURIFIER = Schedule(epochs=1, batch_size=64, learning_rate=2e-3, ema_decay=0.998)
_INK_ENCODER = Schedule(
    epochs=20, batch_size=128, learning_rate=5e-3, weight_decay=1e-3, ema_decay=0.998
)
_INK_SHAPE = Shape(
    widths=(32, 32), depths=(2, 2), contrast_gain=20.0, stem=16, skips=False, pooled_maps=6
)

# What holds under attack is learnt by an encoder alone first, in steps that cost little; the whole
# purifier needs few epochs more. It draws the digit anew from the means of the encoder's features,
# which is what that stage taught to hold: through features one by one more of an attack came. A
# sigmoid comes first, since these images are nearly black and white: what moves a pixel of 0 or 1
# by epsilon hardly moves it behind the sigmoid. That would destroy photographs. Teacher and student
# are of one shape, and begin with one encoder.
HARDENED = replace(
    PAPER,
    name="hardened",
    teacher=_INK_SHAPE,
    student=_INK_SHAPE,
    encoder=EncoderStage(
        schedule=_INK_ENCODER,
        attack=replace(_INK_QUICKLY, epsilon_scale=1.15, ramp_epochs=2.0),
    ),
    adversarial_teacher=TeacherStage(
        schedule=_INK_PURIFIER,
        attack=_INK_QUICKLY,
        cross_entropy=1.0,
        clean_cross_entropy=0.5,
        agreement=0.2,
    ),
    distillation=StudentStage(
        schedule=replace(_INK_PURIFIER, epochs=5),
        attack=_INK_THROUGH,
        logits=0.5,
        cross_entropy=1.0,
        clean_cross_entropy=0.5,
    ),
    ablation=replace(_INK_PURIFIER, ema_decay=0.995),
    surrogate=replace(_INK_PURIFIER, ema_decay=0.995),
    surrogate_encoder=replace(_INK_ENCODER, epochs=8),
)

# As much change, and weight decay, as the classifier needs as well: photographs of few things are
# learnt by heart.
_PHOTO_SCHEDULE = Schedule(
    epochs=12,
    batch_size=64,
    weight_decay=0.05,
    ema_decay=0.998,
    augmentation=Augmentation(shift=0.1, rotation_degrees=15.0, scale=0.15, contrast=0.5),
)
_PHOTO_BARE = Attack(through="classifier", steps=4, step=0.4, ramp_epochs=0.5)

# On signs the adversarial teacher taught the paper's student more than the normal one did.
_MOSTLY_ADVERSARIAL = (0.6, 0.2)

# Epsilon is small against what photographs contain: the image itself is a good start, to which the
# purifier adds its correction. A small perturbation is as fine as the pixels: feature maps at the
# image's own size (`stem`) find it. Pixels alone do not tell which of the small errors that are
# left mislead the classifier; its answers do.
PAPER_PHOTO = replace(
    PAPER,
    epsilon=8 / 255,
    classifier=ClassifierStage(
        widths=(32, 64, 128),
        depths=(0, 2, 1),
        schedule=replace(_PHOTO_SCHEDULE, epochs=25, learning_rate=4e-3, ema_decay=0.99),
        label_smoothing=0.1,
    ),
    teacher=Shape(widths=(40, 80, 160), depths=(0, 1, 1), residual=True, stem=24),
    student=Shape(widths=(24, 48, 96), depths=(0, 1, 2), residual=True, stem=16),
    normal_teacher=TeacherStage(
        schedule=replace(_PHOTO_SCHEDULE, epochs=2, ema_decay=0.0), attack=None
    ),
    adversarial_teacher=TeacherStage(
        schedule=replace(_PHOTO_SCHEDULE, epochs=3, ema_decay=0.995),
        attack=_PHOTO_BARE,
        cross_entropy=0.5,
        clean_cross_entropy=0.5,
        agreement=1.0,
    ),
    distillation=StudentStage(
        schedule=_PHOTO_SCHEDULE,
        attack=_PHOTO_BARE,
        logits=1.0,
        cross_entropy=0.5,
        clean_cross_entropy=0.5,
    ),
)

# Neither residual nor with skips: perturbations can pass there too, and in a trial more was left
# without. What holds under attack is learnt by the encoders alone first, in steps that cost little;
# the whole purifier needs few epochs more, at full epsilon from the start. The pixels' weight is
# low: what the purifier gives is for the classifier, and hardly a picture. The attack goes beyond
# epsilon, less so for encoders, to have accuracy on clean images to spare for what comes after. The
# student does all the work that it may (20 million multiply-adds), the teachers a little more.
_PHOTO_THROUGH = Attack(through="pipeline", steps=3, step=0.5, epsilon_scale=1.25)

HARDENED_PHOTO = replace(
    PAPER_PHOTO,
    name="hardened",
    teacher=Shape(widths=(48, 88, 128), depths=(0, 1, 1), stem=16, skips=False),
    student=Shape(widths=(40, 72, 92), depths=(0, 2, 1), stem=16, skips=False),
    encoder=EncoderStage(
        schedule=replace(_PHOTO_SCHEDULE, epochs=28, batch_size=128, learning_rate=5e-3),
        attack=replace(_PHOTO_THROUGH, epsilon_scale=1.1, ramp_epochs=1.0),
    ),
    adversarial_teacher=replace(
        HARDENED.adversarial_teacher,
        schedule=replace(_PHOTO_SCHEDULE, epochs=2, learning_rate=1e-3),
        attack=_PHOTO_THROUGH,
        pixels=0.1,
        clean_cross_entropy=0.5,
    ),
    distillation=replace(
        HARDENED.distillation,
        schedule=replace(_PHOTO_SCHEDULE, epochs=6, learning_rate=1e-3),
        attack=_PHOTO_THROUGH,
        pixels=0.1,
        normal_share=_MOSTLY_ADVERSARIAL,
    ),
    ablation=replace(_PHOTO_SCHEDULE, epochs=1, ema_decay=0.995, learning_rate=1e-3),
    surrogate=replace(_PHOTO_SCHEDULE, epochs=1, ema_decay=0.995, learning_rate=1e-3),
)

# Mirrored, and neither turned nor scaled: objects stand upright, and resampling blurs what tells
# one from another. The classifier begins at the image's own size, is deeper, and learns for longer;
# one that only stands in for it, in an attack by transfer, need not. Data sets of objects are
# large: fewer epochs for the teachers. The student has more feature maps at full size.
_OBJECT_SCHEDULE = replace(
    _PHOTO_SCHEDULE, augmentation=Augmentation(shift=0.125, flip=True, contrast=0.2)
)
_OBJECT_BARE = replace(_PHOTO_BARE, steps=3, step=0.5)
_OBJECT_CLASSIFIER = replace(_OBJECT_SCHEDULE, epochs=80, learning_rate=4e-3, ema_decay=0.99)
_OBJECT_SURROGATE = replace(_OBJECT_CLASSIFIER, epochs=8)

PAPER_OBJECT = replace(
    PAPER_PHOTO,
    classifier=replace(
        PAPER_PHOTO.classifier,
        widths=(40, 64, 96),
        depths=(2, 2, 2),
        schedule=_OBJECT_CLASSIFIER,
        stem=12,
        residual=True,
    ),
    student=Shape(widths=(28, 48, 72), depths=(1, 1, 2), residual=True, stem=28),
    normal_teacher=TeacherStage(
        schedule=replace(_OBJECT_SCHEDULE, epochs=1, ema_decay=0.0), attack=None
    ),
    adversarial_teacher=replace(
        PAPER_PHOTO.adversarial_teacher,
        schedule=replace(_OBJECT_SCHEDULE, epochs=2, ema_decay=0.995),
        attack=_OBJECT_BARE,
    ),
    distillation=replace(
        PAPER_PHOTO.distillation,
        schedule=_OBJECT_SCHEDULE,
        attack=_OBJECT_BARE,
        normal_share=_MOSTLY_ADVERSARIAL,
    ),
    ablation=replace(_OBJECT_SCHEDULE, epochs=1, ema_decay=0.995),
    surrogate=replace(_OBJECT_SCHEDULE, epochs=1, ema_decay=0.995),
    surrogate_classifier=_OBJECT_SURROGATE,
)

# As hardened purifiers of other photographs, but for what was found here. Encoders learn long, go
# no further than epsilon, and learn the classifier's answers as well as the labels: accuracy on
# clean images is what is short. Teacher and student are as large as a student may be, and share an
# encoder.
_OBJECT_THROUGH = Attack(through="pipeline", steps=2, step=0.7, epsilon_scale=1.15)
_OBJECT_ENCODER = replace(
    _OBJECT_SCHEDULE, epochs=60, batch_size=128, learning_rate=5e-3, weight_decay=0.01
)
_OBJECT_PURIFIER = replace(_OBJECT_SCHEDULE, epochs=1, learning_rate=1e-3, weight_decay=0.01)
_OBJECT_QUICKLY = replace(_OBJECT_PURIFIER, ema_decay=0.995)
_OBJECT_SHAPE = Shape(widths=(40, 64, 80), depths=(1, 2, 1), stem=12, skips=False)

HARDENED_OBJECT = replace(
    HARDENED_PHOTO,
    classifier=PAPER_OBJECT.classifier,
    teacher=_OBJECT_SHAPE,
    student=_OBJECT_SHAPE,
    encoder=EncoderStage(
        schedule=_OBJECT_ENCODER,
        attack=replace(_OBJECT_THROUGH, epsilon_scale=1.0, ramp_epochs=1.0),
        answers=0.5,
    ),
    normal_teacher=PAPER_OBJECT.normal_teacher,
    adversarial_teacher=replace(
        HARDENED_PHOTO.adversarial_teacher,
        schedule=_OBJECT_PURIFIER,
        attack=_OBJECT_THROUGH,
    ),
    distillation=replace(
        HARDENED_PHOTO.distillation,
        schedule=replace(_OBJECT_PURIFIER, epochs=4),
        attack=_OBJECT_THROUGH,
        clean_cross_entropy=0.4,
    ),
    ablation=_OBJECT_QUICKLY,
    surrogate=_OBJECT_QUICKLY,
    surrogate_classifier=_OBJECT_SURROGATE,
    surrogate_encoder=replace(_OBJECT_ENCODER, epochs=12),
)

RECIPES: Mapping[str, Mapping[Images, Recipe]] = {
    "paper": {"ink": PAPER, "photo": PAPER_PHOTO, "object": PAPER_OBJECT},
    "hardened": {"ink": HARDENED, "photo": HARDENED_PHOTO, "object": HARDENED_OBJECT},
}


# What each is for, in words for someone who has to choose.
PURPOSES: Mapping[str, str] = {
    "paper": "the method as published, by our reading; stops attackers who do not know of the "
    "purifier, and nobody else",
    "hardened": "the one to serve; made for attackers who know purifier and classifier",
}
