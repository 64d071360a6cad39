"""3-D convolutional network for windows of a hyperspectral cube."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from swath.config import ConfigError
from swath.models import Inputs, Model, Outputs, check_outputs

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Conv3d(Model):
    """The plan of Lange et al. 2018; the defaults are theirs."""

    dense: ClassVar[bool | None] = False

    filters: tuple[int, ...] = (48, 32, 32)
    """Filters of each convolution."""
    kernel: tuple[int, int, int] = (3, 3, 5)
    """Extent of every filter in rows, columns and bands. Borders are cut, not padded: each
    convolution takes one less than that from the window."""
    strides: tuple[int, ...] | None = None
    """Step of each convolution along the bands, None: 1 each. Larger ones make the first linear
    layer, where most parameters are, that much smaller."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the linear layers before the output."""
    dropout: float = 0.0
    """Share of each linear layer's outputs silenced in training, 0..1."""

    def __post_init__(self) -> None:
        if not self.filters or min(*self.filters, *self.kernel, *self.hidden, 1) < 1:
            raise ConfigError("filters needs one entry or more; filters, kernel, hidden are counts")
        if self.strides is not None and (
            len(self.strides) != len(self.filters) or min(self.strides) < 1
        ):
            raise ConfigError(
                f"strides={list(self.strides)} must have a step of at least 1 for each of the"
                f" {len(self.filters)} convolutions"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout} must be at least 0 and below 1")
        if self.dropout and not self.hidden:
            raise ConfigError(f"dropout={self.dropout} has no effect without hidden layers")

    def build(self, inputs: Inputs, outputs: Outputs) -> nn.Module:
        from swath.nn.conv3d import Conv3d, extents

        check_outputs(self, outputs)
        strides = self.strides or (1,) * len(self.filters)
        left = extents(len(inputs.bands), inputs.size, self.kernel, strides)
        if min(left) < 1:
            raise ConfigError(
                f"nothing is left of windows of {inputs.size} px and {len(inputs.bands)} bands"
                f" after {len(strides)} convolutions of {list(self.kernel)} (rows, columns, bands)"
                f" with strides {list(strides)}; use larger windows, fewer convolutions or a"
                " smaller kernel"
            )
        return Conv3d(
            tuple(band.name for band in inputs.bands),
            inputs.size,
            outputs.channels,
            filters=self.filters,
            kernel=self.kernel,
            strides=strides,
            hidden=self.hidden,
            dropout=self.dropout,
            projector=outputs.hidden,
        )
