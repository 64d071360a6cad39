"""Settings of images with many channels: how these become tokens, group by group."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from swath.config import ConfigError

if TYPE_CHECKING:
    from swath.nn.channels import ChannelEmbed


@dataclass(frozen=True, kw_only=True)
class Channels:
    """How many channels become one token for each patch: one each at first, then group by group."""

    groups: tuple[int, ...] = (8,)
    """Groups of neighbouring channels; with several numbers, groups of groups: [40, 8] makes 40
    tokens of a patch's channels, 8 of those, and one in the end. Each number divides the one
    before. Tensor ranks share the last, so let it be a multiple of as many as there may ever be;
    the result depends on the groups, and on no ranks."""
    aggregate: Literal["linear", "attention"] = "attention"
    """How channels become the token of a group. attention: a learned query asks the tokens of all
    its channels. linear: the sum of the channels' projections, for less memory and work; groups are
    aggregated by attention all the same."""
    heads: int | None = None
    """Heads of each query, which divide the model's width; None: as many as the model's."""

    def __post_init__(self) -> None:
        if not self.groups or min(self.groups) < 1 or (len(self.groups) > 1 and 1 in self.groups):
            raise ConfigError(
                f"groups={list(self.groups)} must be numbers above 1, or [1]; the last step, to one"
                " token, is always made"
            )
        for more, fewer in itertools.pairwise(self.groups):
            if more % fewer or more == fewer:
                raise ConfigError(
                    f"groups={list(self.groups)}: {fewer} groups cannot be made of {more}, of as"
                    f" many each; make it {fewer * max(2, round(more / fewer))} or another multiple"
                    f" of {fewer}"
                )
        if self.heads is not None and self.heads < 1:
            raise ConfigError(f"channels.heads={self.heads} must be at least 1")

    def build(self, bands: tuple[str, ...], patch: int, width: int, heads: int) -> ChannelEmbed:
        """Return the layer; ConfigError if there are more groups than channels."""
        from swath.nn.channels import ChannelEmbed

        if self.groups[0] > len(bands):
            raise ConfigError(
                f"channels.groups={list(self.groups)}: {self.groups[0]} groups cannot be made of"
                f" {len(bands)} channels; make it {len(bands)} or less, or leave channels out"
            )
        return ChannelEmbed(
            bands,
            patch,
            width,
            groups=self.groups,
            aggregate=self.aggregate,
            heads=heads if self.heads is None else self.heads,
        )
