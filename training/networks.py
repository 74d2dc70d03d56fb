"""The networks: convolutional autoencoders that purify, and a small classifier.

All take images in [0, 1] and are fully convolutional up to the classifier's head, but for
purifiers with pooled maps, which take images of one size.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode


def _conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _deconv(
    inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, padding: int = 0
) -> nn.Sequential:
    """Transposed convolution, batch norm."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(outputs),
    )


class _Residual(nn.Module):
    """Layers whose result is added to what they were given."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, features: Tensor) -> Tensor:
        """As the features."""
        added: Tensor = features + self.layers(features)
        return added


class Encoder(nn.ModuleList):
    """What halves an image, stage by stage, into ever more feature maps.

    A list of its stages, so that weights are named as in the bundles before there was this class.

    Args:
        channels: image channels C.
        widths: feature maps after each of the S halving stages, outermost first.
        depths: extra convolutions in each stage, outermost first.
        contrast_gain: g of the sigmoid 1 / (1 + exp(g (1/2 - x))) that each pixel x goes through
            first; None: no sigmoid. On images that are nearly black and white it takes away most
            of an L-inf perturbation. It never is quite flat, so attacks keep its gradients.
        stem: feature maps at the image's own size, before the first halving; 0: none, the first
            convolution halves already.

    Shape:
        images: (N, C, H, W), float32 in [0, 1]; where 2**S does not divide H or W, the edge is
            repeated below and to the right.
        returns: features (N, width, H / 2**s, W / 2**s) after each stage; of a stem s = 0.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        depths: Sequence[int],
        contrast_gain: float | None = None,
        stem: int = 0,
    ) -> None:
        """Build the stages; see the class."""
        super().__init__()
        if not widths or len(widths) != len(depths):
            raise ValueError(f"widths and depths must pair up, got {widths} and {depths}")
        self.contrast_gain = contrast_gain
        self.multiple = 2 ** len(widths)
        self.features = widths[-1]
        inputs = channels
        if stem:
            self.append(_conv(channels, stem))
            inputs = stem
        for width, depth in zip(widths, depths, strict=True):
            stage = [_conv(inputs, width, stride=2)]
            stage += [_conv(width, width) for _ in range(depth)]
            self.append(nn.Sequential(*stage))
            inputs = width

    def forward(self, images: Tensor) -> list[Tensor]:
        """The features of a batch of images after each stage."""
        height, width = images.shape[2:]
        missing = (-width % self.multiple, -height % self.multiple)
        features = images
        if self.contrast_gain is not None:
            features = torch.sigmoid(self.contrast_gain * (images - 0.5))
        if any(missing):
            features = functional.pad(features, (0, missing[0], 0, missing[1]), mode="replicate")
        found: list[Tensor] = []
        for stage in self:
            features = stage(features)
            found.append(features)
        return found


class ConvAutoencoder(nn.Module):
    """Convolutional autoencoder that maps an image to a purified image.

    Each stage halves height and width with a strided convolution; the decoder doubles them again
    with transposed convolutions and adds the encoder's features of the same size (a skip), which
    keeps fine detail of clean images, and of perturbations.

    Args:
        channels: image channels C.
        widths: of the `Encoder`, as are `depths`, `contrast_gain` and `stem`.
        depths: see there.
        residual: add the decoder's output to the image instead of replacing it.
        contrast_gain: see there.
        stem: feature maps at the image's own size, before the first halving and after the last
            doubling; 0: none.
        skips: whether there are skips; without them all that the decoder sees is the encoder's
            last features.
        pooled_maps: feature maps that the decoder begins with, drawn from the means of the last
            features (global average pooling) and nothing else: less of an attack is left in a mean
            than in each feature. 0: the decoder begins with the features themselves. Without skips
            only.
        size: height and width of the images in pixels, which pooled maps must know.

    Shape:
        images: (N, C, H, W), float32 in [0, 1]; with pooled maps of that size alone.
        returns: as images.

    Raises:
        ValueError: widths and depths do not pair up, or pooled maps come with skips or without a
            size; when called, that the images have another.

    Source:
        Koo, Chae, Lee 2023 name a convolutional autoencoder; its layers are our choice.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        depths: Sequence[int],
        residual: bool = False,
        contrast_gain: float | None = None,
        stem: int = 0,
        skips: bool = True,
        pooled_maps: int = 0,
        size: tuple[int, int] | None = None,
    ) -> None:
        """Build the network; see the class."""
        super().__init__()
        if pooled_maps and skips:
            raise ValueError("pooled maps go without skips only")
        if pooled_maps and size is None:
            raise ValueError("pooled maps must know the size of the images")
        self.residual = residual
        self.skips = skips
        self.pooled_to = size if pooled_maps else None
        self.encoder = Encoder(channels, widths, depths, contrast_gain, stem)
        self.decoder = nn.ModuleList()
        outermost_first = [stem, *widths] if stem else [*widths]
        if self.pooled_to:
            high, wide = (-(-side // self.encoder.multiple) for side in self.pooled_to)
            self.decoder.append(_deconv(widths[-1], pooled_maps, (high, wide)))
            outermost_first[-1] = pooled_maps
        for narrower, width in reversed(list(pairwise(outermost_first))):
            self.decoder.append(_deconv(width, narrower, 4, 2, 1))
        self.head: nn.Module
        if stem:
            self.head = nn.Conv2d(stem, channels, 3, padding=1)
        else:
            self.head = nn.ConvTranspose2d(outermost_first[0], channels, 4, 2, 1)

    def extra_repr(self) -> str:
        """What the network computes with beside its layers."""
        gain = self.encoder.contrast_gain
        told = f"residual={self.residual}, contrast_gain={gain}, skips={self.skips}"
        return told + (f", pooled_to={self.pooled_to}" if self.pooled_to else "")

    def forward(self, images: Tensor) -> Tensor:
        """Purify a batch of images."""
        height, width = images.shape[2:]
        *earlier, features = self.encoder(images)
        if self.pooled_to:
            if (height, width) != self.pooled_to:
                raise ValueError(f"images must be of {self.pooled_to}, got {(height, width)}")
            features = features.mean(dim=(2, 3), keepdim=True)
        for decode in self.decoder:
            features = decode(features)
            if self.skips:
                features = features + earlier.pop()
            features = torch.relu(features)
        restored: Tensor = self.head(features)  # (N, C, H, W), with what the encoder repeated
        if restored.shape[2:] != images.shape[2:]:
            restored = restored[..., :height, :width]
        if restored.dtype != images.dtype:  # under autocast; pixels need more digits
            restored = restored.to(images.dtype)
        if self.residual:
            return (images + restored).clamp(0, 1)
        return torch.sigmoid(restored)


class EncoderClassifier(nn.Module):
    """A purifier's encoder that labels images, by one linear layer on its last features' means.

    Args:
        encoder: of a purifier to be.
        classes: number of labels K.

    Shape:
        images: (N, C, H, W), float32 in [0, 1].
        returns: logits (N, K).
    """

    def __init__(self, encoder: Encoder, classes: int) -> None:
        """Put the linear layer behind the encoder."""
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.features, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch of images."""
        logits: Tensor = self.head(self.encoder(images)[-1].mean(dim=(2, 3)))
        return logits


class Classifier(nn.Module):
    """A small convolutional classifier that normalises its input itself.

    Args:
        channels: image channels C.
        widths: feature maps after each halving stage, outermost first.
        depths: extra convolutions in each stage, outermost first.
        classes: number of labels K.
        dropout: fraction of the pooled features that training drops.
        stem: feature maps at the image's own size, before the first halving; 0: none.
        residual: whether each extra convolution's result is added to what it was given.

    Shape:
        images: (N, C, H, W), float32 in [0, 1].
        returns: logits (N, K).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        depths: Sequence[int],
        classes: int,
        dropout: float = 0.0,
        stem: int = 0,
        residual: bool = False,
    ) -> None:
        """Build the network; see the class."""
        super().__init__()
        self.register_buffer("mean", torch.full((1, channels, 1, 1), 0.5))
        self.register_buffer("std", torch.full((1, channels, 1, 1), 0.25))
        layers: list[nn.Module] = []
        inputs, kernel = channels, 5
        if stem:
            layers.append(_conv(channels, stem))
            inputs, kernel = stem, 3
        for width, depth in zip(widths, depths, strict=True):
            layers.append(_conv(inputs, width, stride=2, kernel=kernel))
            extra = (_conv(width, width) for _ in range(depth))
            layers += [_Residual(layer) if residual else layer for layer in extra]
            inputs, kernel = width, 3
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(inputs, classes))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch of images."""
        normalised = (images - self.mean) / self.std
        pooled = self.features(normalised).mean(dim=(2, 3))  # (N, widths[-1])
        logits: Tensor = self.head(pooled)  # (N, K)
        return logits


def parameters(network: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(
    network: nn.Module, image_shape: tuple[int, int, int], device: torch.device | None = None
) -> int:
    """Multiply-adds of all convolutions and matrix products for one image of (C, H, W)."""
    was_training = network.training
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *image_shape, device=device))
    network.train(was_training)
    return int(counter.get_total_flops()) // 2
