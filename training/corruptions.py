"""Common corruptions: images that nobody attacks and that are spoilt all the same.

Four kinds that uploads often have, made by Pillow, which reads the images anyway. Every spoilt
image is rounded to 8 bits, as files are.

Source:
    Hendrycks, Dietterich 2019, "Benchmarking neural network robustness to common corruptions and
    perturbations".
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import PIL
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from training.adversary import is_correct
from training.card import CorruptionPoint, Corruptions
from training.trial import Trial

Pixels = npt.NDArray[np.uint8]
Spoil = Callable[[Pixels, float, np.random.Generator], Pixels]


@dataclass(frozen=True)
class Corruption:
    """One kind of damage.

    Attributes:
        title: for people.
        severities: the parameter, mildest first.
        setting: the parameter for people, with a place for its value.
        spoil: 8-bit pixels (H, W, C), parameter and a source of chance to spoilt pixels.
    """

    title: str
    severities: tuple[float, ...]
    setting: str
    spoil: Spoil


def gaussian_noise(pixels: Pixels, deviation: float, chance: np.random.Generator) -> Pixels:
    """Independent noise of each value; the deviation in [0, 1] pixel units."""
    return _rounded(pixels / 255 + chance.normal(scale=deviation, size=pixels.shape))


def blur(pixels: Pixels, share: float, chance: np.random.Generator) -> Pixels:
    """Gaussian blur; its deviation is a share of the image's longer side."""
    picture = _picture(pixels)
    return _pixels(picture.filter(ImageFilter.GaussianBlur(share * max(picture.size))))


def jpeg(pixels: Pixels, quality: float, chance: np.random.Generator) -> Pixels:
    """Compressed and read again."""
    file = io.BytesIO()
    _picture(pixels).save(file, format="jpeg", quality=int(quality))
    with Image.open(file) as picture:
        return _pixels(picture)


def contrast(pixels: Pixels, kept: float, chance: np.random.Generator) -> Pixels:
    """Every value moved towards the image's mean, of each channel."""
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    return _rounded(((pixels - mean) * kept + mean) / 255)


# Noise: severities 1, 3 and 5 of their ImageNet-C. JPEG: from what programs write down to that
# set's worst. Contrast: 1 of CIFAR-10-C, then 1 and 3 of ImageNet-C. Blur is a share of the side,
# as images of every size are judged here.
CORRUPTIONS = {
    "gaussian_noise": Corruption(
        "Gaussian noise", (0.08, 0.18, 0.38), "deviation {:g}", gaussian_noise
    ),
    "blur": Corruption("Gaussian blur", (0.02, 0.04, 0.07), "deviation {:g} of the side", blur),
    "jpeg": Corruption("JPEG", (75, 25, 7), "quality {:g}", jpeg),
    "contrast": Corruption("Lower contrast", (0.75, 0.4, 0.2), "{:g} of it kept", contrast),
}


def corrupted(images: Tensor, kind: str, severity: int, seed: int = 0) -> Tensor:
    """Spoilt images (N, C, H, W), in steps of 1/255.

    Args:
        images: (N, C, H, W), float32 in [0, 1].
        kind: of `CORRUPTIONS`.
        severity: 1 is the mildest.
        seed: of the noise, the same for every severity.
    """
    corruption, chance = CORRUPTIONS[kind], np.random.default_rng(seed)
    parameter = corruption.severities[severity - 1]
    before = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    after = np.stack([corruption.spoil(pixels, parameter, chance) for pixels in before])
    return torch.from_numpy(after).permute(0, 3, 1, 2).contiguous().float().div(255).to(images)


def corruptions_of(trial: Trial) -> Corruptions:
    """Accuracy on images of every kind and severity, without and with the purifier."""
    protocol = trial.protocol
    images, labels = trial.first(protocol.corruptions_n)
    models = trial.networks["classifier"], trial.pipeline()

    def accuracies(shown: Tensor) -> tuple[float, float]:
        bare, purified = (is_correct(model, shown, labels).double().mean() for model in models)
        return float(bare), float(purified)

    clean_bare, clean_purified = accuracies(images)
    points = []
    for kind, corruption in CORRUPTIONS.items():
        trial.progress(f"corruption: {corruption.title}")
        for severity, parameter in enumerate(corruption.severities, start=1):
            bare, purified = accuracies(corrupted(images, kind, severity, protocol.seed))
            points.append(
                CorruptionPoint(
                    kind=corruption.title,
                    severity=severity,
                    setting=corruption.setting.format(parameter),
                    bare=bare,
                    purified=purified,
                )
            )
    return Corruptions(
        source=f"Pillow {PIL.__version__} and NumPy {np.__version__}, rounded to 8 bits",
        n=len(images),
        seed=protocol.seed,
        clean_bare=clean_bare,
        clean_purified=clean_purified,
        points=tuple(points),
    )


def _picture(pixels: Pixels) -> Image.Image:
    """(H, W, C) as a picture, grey if C is 1."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _pixels(picture: Image.Image) -> Pixels:
    """A picture as (H, W, C)."""
    pixels: Pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _rounded(values: npt.NDArray[np.float64]) -> Pixels:
    """Values of [0, 1] in 8 bits."""
    rounded: Pixels = (values.clip(0, 1) * 255).round().astype(np.uint8)
    return rounded
