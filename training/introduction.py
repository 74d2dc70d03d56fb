"""What a run says before it trains: of the data, and of the networks it is about to train."""

from collections.abc import Mapping

import torch
from torch import nn

from training.networks import multiply_adds, parameters
from training.optimization import precision_name
from training.recipes import optimizer_steps
from training.run import Run, build_classifier, build_purifier, precision_on

# With fewer, networks of the recipes' learning rates have learnt next to nothing.
_FEW_STEPS = 100
_FAR_BEYOND_DIGITS = 48  # pixels


def introduce_data(training: Run) -> None:
    """Report the data, and what of it is kept for validation."""
    dataset = training.dataset
    training.report(
        f"{dataset.name}: {len(dataset.train)} training and {len(dataset.test)} test images of "
        f"{dataset.spec.width}x{dataset.spec.height}x{dataset.spec.channels}, "
        f"{len(dataset.train.class_names)} classes, digest {dataset.sha256[:12]}"
    )
    of_classes = torch.bincount(
        training.validation.labels, minlength=len(dataset.train.class_names)
    )
    training.report(
        f"{len(training.validation)} of the training images are for validation, "
        f"{of_classes.min()} to {of_classes.max()} of a class"
    )


def _emulates(training: Run) -> bool:
    """Whether the processor is known to have no instructions for bfloat16."""
    if training.device.type != "cpu":
        return training.precision != precision_on(training.device)
    # Older versions of PyTorch do not tell.
    known: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known) and not any(has for name, has in known.items() if "bf16" in name)


def introduce_networks(training: Run) -> None:
    """Report the size of the networks that the recipe trains, and stages that are very short."""
    recipe, spec = training.recipe, training.dataset.spec
    networks: dict[str, nn.Module] = {}
    if training.brought is None:
        classes = len(training.dataset.train.class_names)
        networks["classifier"] = build_classifier(recipe, spec.channels, classes)
    networks |= {
        "teacher": build_purifier(recipe.teacher, spec),
        "student": build_purifier(recipe.student, spec),
    }
    for name, network in networks.items():
        cost = multiply_adds(network, spec.shape)
        training.report(
            f"{name}: {cost:,} multiply-adds an image, {parameters(network):,} parameters"
        )
    if recipe.student.pooled_maps and max(spec.height, spec.width) > _FAR_BEYOND_DIGITS:
        training.report(
            f"the student draws images of {spec.height}x{spec.width} from "
            f"{recipe.student.widths[-1]} means, which suits small images of one sign; --set "
            "student.pooled_maps=0 --set teacher.pooled_maps=0 lets it see what stands where"
        )
    if training.precision != torch.float32:
        training.report(
            f"training in {precision_name(training.precision)}"
            + (", which this processor only emulates: slowly" if _emulates(training) else "")
        )
    steps = optimizer_steps(recipe, len(training.training))
    few = [f"{stage} {count}" for stage, count in steps.items() if count < _FEW_STEPS]
    if few:
        training.report(
            f"few optimizer steps, after which little is learnt: {', '.join(few)}; "
            "more epochs or smaller batches make more of them"
        )
