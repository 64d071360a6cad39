"""From image to tokens where channels are many: each a token at first, then fewer, group by group.

Neighbouring channels make a group, groups make larger ones, and so on: a tree, at the end of which
one token is left for each patch. A group becomes one token in one of two ways. ``linear``: the sum
of its channels' projections, which is one projection of all its pixels, so that no token of a
channel is ever made. ``attention``: a learned query asks the tokens of its channels. Groups are
always aggregated by attention.

Queries ask the tokens themselves: with one query for a group, layers for keys and for values would
add nothing, as what they do can be done by the query and by the layer that made the tokens.

Only one group's channels are looked at at a time. Where ranks share the groups ``place`` is another
one: a rank makes the tokens of its own groups, and the last step gets those of all. The tree itself
is a setting and the same for any number of ranks.

Sources: Tsaris et al. 2025, arXiv:2506.21411 (D-CHAG; there the ranks make the groups); a query
over channels, Nguyen et al. 2023, arXiv:2301.10343.
"""

from __future__ import annotations

from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swath.data.chip import Known
from swath.nn.bands import check_bands


class Whole:
    """All groups are at hand."""

    def own(self, groups: int) -> range:
        """Return which of so many groups are here."""
        return range(groups)

    def weight(self, parameter: Tensor) -> Tensor:
        """Return what is here of a parameter that belongs to groups."""
        return parameter

    def join(self, tokens: Float[Tensor, "g n d"]) -> Float[Tensor, "k n d"]:
        """Return the tokens of all groups."""
        return tokens


class ChannelEmbed(nn.Module):
    """A token for each patch, from the patch in every channel.

    groups: numbers of groups, level by level; each divides the one before. Channels are dealt out
    in runs, the first of which are one longer if they do not divide.
    place: which groups are here; may be replaced.

    Parameters of groups have those, or the channels, along their second dim; in shorter groups a
    place is left empty, and zero. The layer is gathered at once where its parameters are shards;
    ``again``: what is computed anew in its place, where activations are.
    """

    unit = True
    in_products = True
    again: ClassVar = ("one",)

    def __init__(
        self,
        bands: tuple[str, ...],
        patch: int,
        width: int,
        *,
        groups: tuple[int, ...],
        aggregate: Literal["linear", "attention"],
        heads: int,
    ) -> None:
        super().__init__()
        self.bands, self.patch, self.groups = bands, patch, groups
        each, longer = divmod(len(bands), groups[0])
        self.sizes = [each + (group < longer) for group in range(groups[0])]
        self.room = max(self.sizes)
        slots, linear = groups[0] * self.room, aggregate == "linear"
        self.proj = nn.Conv2d(slots, width, patch, stride=patch, bias=False)
        self.channel_embed = nn.Parameter(torch.empty(width, groups[0] if linear else slots))
        self.one: nn.Module = Sum() if linear else Ask()
        after = list(groups if groups[-1] == 1 else (*groups, 1))
        numbers = after[1:] if linear else after
        self.levels = nn.ModuleList(Aggregate(width, number, heads) for number in numbers)
        self.place = Whole()
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        width, patch = self.proj.out_channels, self.patch
        seen = patch * patch * (self.room if isinstance(self.one, Sum) else 1)
        side = (6 / (width + seen)) ** 0.5  # as a linear layer of so many inputs
        nn.init.uniform_(self.proj.weight, -side, side)
        nn.init.normal_(self.channel_embed, std=0.02)
        short = self.sizes.count(self.room)  # the first of the groups with an empty place
        tables = [self.proj.weight]
        if self.channel_embed.shape[1] == self.proj.in_channels:
            tables.append(self.channel_embed)
        for table in tables if short < len(self.sizes) else []:
            table.unflatten(1, (-1, self.room))[:, short:, -1] = 0

    @property
    def shared(self) -> list[tuple[nn.Module, str]]:
        """The parameters that belong to groups: their second dim is that of groups or channels."""
        levels = [(level, "query") for level in self._lower]
        return [(self.proj, "weight"), (self, "channel_embed"), *levels]

    @property
    def common(self) -> list[nn.Module]:
        """The layers that see some groups each, wherever those are."""
        return [level.proj for level in self._lower]

    @property
    def _lower(self) -> list[Aggregate]:
        return [level for level in self._levels if level.groups > 1]

    @property
    def _levels(self) -> list[Aggregate]:
        return cast("list[Aggregate]", list(self.levels))

    def forward(
        self, image: Float[Tensor, "b c h w"], known: Known | None = None
    ) -> Float[Tensor, "b d gh gw"]:
        """Return the tokens on their grid; ConfigError for other bands than the model's."""
        check_bands(image, self.bands, known)
        rows, cols = image.shape[2] // self.patch, image.shape[3] // self.patch
        x = self._grouped(image)
        for level in self._levels[isinstance(self.one, Ask) :]:
            if level.groups == 1:
                x = level(self.place.join(x), level.query)
            else:
                x = level(x, self.place.weight(level.query))
        return x[0].unflatten(0, (len(image), rows, cols)).permute(0, 3, 1, 2)

    def _grouped(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "g n d"]:
        """Return a token of each patch for each of the first groups that are here."""
        held, room, asks = self.place.own(self.groups[0]), self.room, isinstance(self.one, Ask)
        weight = self.place.weight(self.proj.weight).flatten(2)
        embed = self.place.weight(self.channel_embed)
        query = self.place.weight(self._levels[0].query) if asks else None
        first, maps = sum(self.sizes[: held.start]), []
        for number, size in enumerate(self.sizes[held.start : held.stop]):
            pixels, first = image[:, first : first + size], first + size
            some = slice(number * room, number * room + size)
            own = (embed[:, number],) if query is None else (embed[:, some], query[:, number])
            maps.append(self.one(pixels, self.patch, weight[:, some], *own))
        x = torch.stack(maps)
        return self._levels[0].proj(x) if asks else x


class Aggregate(nn.Module):
    """Tokens of the same patch become one for each of ``groups``, which ask for them.

    Heads ask for numbers of their own: of e = d / heads numbers each.
    """

    in_products = True

    def __init__(self, width: int, groups: int, heads: int) -> None:
        super().__init__()
        self.groups = groups
        self.query = nn.Parameter(torch.empty(width, groups, heads))
        self.proj = nn.Linear(width, width)
        nn.init.normal_(self.query, std=0.02)
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(
        self, x: Float[Tensor, "k n d"], query: Float[Tensor, "d g m"]
    ) -> Float[Tensor, "g n d"]:
        """Return a token for each group in ``query``, of as many tokens of ``x`` each."""
        members = x.unflatten(0, (query.shape[1], -1))
        found = [asked(one, query[:, group]) for group, one in enumerate(members)]
        return self.proj(torch.stack(found))


class Sum(nn.Module):
    """One group by ``linear``."""

    def forward(
        self,
        image: Float[Tensor, "b s h w"],
        patch: int,
        weight: Float[Tensor, "d s q"],
        embed: Float[Tensor, " d"],
    ) -> Float[Tensor, "n d"]:
        """Return a token of each of the n patches, the sum over the channels of the group."""
        return F.linear(
            _patches(image, patch).permute(1, 0, 2).flatten(1), weight.flatten(1), embed
        )


class Ask(nn.Module):
    """One group by ``attention``, before the layer that follows."""

    def forward(
        self,
        image: Float[Tensor, "b s h w"],
        patch: int,
        weight: Float[Tensor, "d s q"],
        embed: Float[Tensor, "d s"],
        query: Float[Tensor, "d m"],
    ) -> Float[Tensor, "n d"]:
        """Return for each of the n patches what the query has read from its channels' tokens."""
        tokens = torch.baddbmm(embed.T[:, None], _patches(image, patch), weight.permute(1, 2, 0))
        return asked(tokens, query)


def asked(tokens: Float[Tensor, "s n d"], query: Float[Tensor, "d m"]) -> Float[Tensor, "n d"]:
    """Return the mean of ``tokens`` over s, weighted by what each of m heads asks for."""
    shares = (tokens @ query).softmax(0)
    heads = tokens.unflatten(2, (query.shape[1], -1))
    return torch.einsum("snme,snm->nme", heads, shares).flatten(1)


def _patches(image: Float[Tensor, "b s h w"], patch: int) -> Float[Tensor, "s n q"]:
    """Return the pixels of each patch, channel by channel."""
    cut = image.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    return cut.permute(1, 0, 2, 4, 3, 5).flatten(4).flatten(1, 3)
