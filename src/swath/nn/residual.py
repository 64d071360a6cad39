"""Residual networks for images with any number of bands.

Modules bear torchvision's names, so that its weights load where the bands are three. As there, a
bottleneck halves the image in its 3x3 convolution ("version 1.5").

Source: He et al. 2016, arXiv:1512.03385; initialisation, He et al. 2015, arXiv:1502.01852.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swath.nn.bands import check_bands
from swath.nn.chain import Link, row
from swath.nn.norm import BatchNorm2d
from swath.nn.projector import head
from swath.nn.random import Dropout


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_conv(inputs, outputs, 1, stride), BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    unit = True
    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 3, stride), BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3), BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k H W"]:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 ones that narrow and widen, beside a shortcut."""

    unit = True
    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1, self.bn1 = _conv(inputs, width, 1), BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, outputs, 1), BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k H W"]:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


PLANS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}
"""Depth -> kind of block, and blocks in each of the four layers."""


class Trunk(nn.Module):
    """The convolutions of a ResNet: five features, each half the size of the one before."""

    embeds = "layer4"  # the layer whose features stand for an image

    def __init__(self, bands: tuple[str, ...], depth: int, width: int = 64) -> None:
        super().__init__()
        self.bands = bands
        block, counts = PLANS[depth]
        widths = [width * 2**layer for layer in range(len(counts))]
        self.channels = [width] + [inner * block.expansion for inner in widths]
        self.strides = [2, 4, 8, 16, 32]
        self.conv1 = nn.Conv2d(len(bands), width, 7, 2, 3, bias=False)
        self.bn1 = BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        layers, inputs = [], width
        for layer, (count, inner) in enumerate(zip(counts, widths, strict=True)):
            blocks = []
            for i in range(count):
                blocks.append(block(inputs, inner, stride=2 if layer and not i else 1))
                inputs = inner * block.expansion
            layers.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, image: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return what a decoder joins, finest first: at 1/2, 1/4, 1/8, 1/16, 1/32 of the size."""
        found = [self.stem(image)]
        x = self.maxpool(found[0])
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            found.append(x)
        return found

    def stem(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k H W"]:
        """Return the finest feature; ConfigError if the bands are not those of the model."""
        check_bands(image, self.bands)
        return F.relu(self.bn1(self.conv1(image)))


class ResNetEncoder(Trunk):
    """A ResNet as the encoder of a U-Net."""

    def forward(self, image: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return a feature of each size, the largest first."""
        return self.features(image)


class ResNet(Trunk):
    """A ResNet with a head on the mean of its last feature; any image size."""

    def __init__(
        self,
        bands: tuple[str, ...],
        depth: int,
        channels: int,
        dropout: float,
        width: int = 64,
        hidden: Sequence[int] = (),
    ) -> None:
        super().__init__(bands, depth, width)
        self.dropout = Dropout(dropout)
        self.fc = head(self.channels[-1], channels, hidden)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return a vector for each image; ConfigError if the bands are not those of the model."""
        return self._read(self.features(image)[-1])

    def chain(self) -> list[Link]:
        """Return the links from an image to the output."""
        return [
            Link(lambda x, *_, **__: self.maxpool(self.stem(x)), ("conv1", "bn1")),
            *(link for n in range(1, 5) for link in row(self, f"layer{n}")),
            Link(lambda x, *_, **__: self._read(x), ("fc",)),
        ]

    def _read(self, last: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        return self.fc(self.dropout(last.mean((2, 3))))
