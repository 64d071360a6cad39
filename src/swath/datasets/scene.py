"""A scene with labels from vectors or from a label raster, cut to chips.

The imagery is :class:`swath.data.imagery.Imagery`; the labels are :class:`Labels`. A chip's label,
and the polygon and block that each of its pixels belongs to, lie on the scene's grid, so chips
that overlap agree, and splits can be made in space pixel by pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from swath.config import ConfigError
from swath.data.chip import Chip, Contents, Label, Modality, Where
from swath.data.dataset import Dataset
from swath.data.imagery import Imagery
from swath.data.imagery import Scene as Image
from swath.datasets._labels import Burn, Labels, Raster
from swath.geo.window import Window, windows


@dataclass(frozen=True, kw_only=True)
class Scene(Dataset):
    """One scene, its labels, and how it is cut to chips."""

    imagery: Imagery
    """The files of the scene and the grid that they are brought to."""

    labels: Labels | None = None
    """Where the labels are; None: chips without labels, for pretraining. A split in space then
    deals out whole chips, by the block that their middle lies in."""

    chip: int = 64
    """Height and width of a chip in px."""

    stride: int | None = None
    """Px from one chip to the next; smaller than ``chip``, they overlap. None: ``chip``."""

    block: int = 128
    """Height and width in px of the blocks that a split in space keeps together."""

    observed: float = 0.0
    """Share of a chip's pixels that must be observed in every band, 0..1; chips with less are left
    out. Above 0, the whole scene is read once when it is opened."""

    licence: str = ""
    """Licence of imagery and labels, as it is to be stated."""

    source: str = ""
    """Attribution, as the licence wants it."""

    def __post_init__(self) -> None:
        _ = self.imagery.known_sensor  # raises if it is not said
        if self.chip < 1 or self.block < 1:
            raise ConfigError(f"chip={self.chip} and block={self.block}: both are at least 1 px")
        if self.stride is not None and not 1 <= self.stride <= self.chip:
            raise ConfigError(
                f"stride={self.stride}: chips of {self.chip} px would leave gaps, or never move "
                f"on; give 1..{self.chip}"
            )
        if not 0 <= self.observed <= 1:
            raise ConfigError(f"observed={self.observed:g} is not a share, 0..1")

    def open(self) -> Chips:
        """Return the chips; reads headers, vectors and label rasters. ConfigError if that fails."""
        return Chips(self, self.imagery.open())

    def scene(self) -> Imagery:
        return self.imagery

    def assume(self, scene: Imagery) -> Imagery:
        of = self.imagery
        return scene.taken_for(of.sensor, of.scale, of.offset)


@dataclass
class Chips:
    """The chips of one scene, row by row from the north-west; random access from any thread."""

    settings: Scene
    image: Image
    contents: Contents = field(init=False)

    def __post_init__(self) -> None:
        settings, image = self.settings, self.image
        if min(image.height, image.width) < settings.chip:
            raise ConfigError(
                f"{image.name}: the scene has {image.height} x {image.width} px, too few for a "
                f"chip of {settings.chip}; make chip smaller"
            )
        self._marks: Burn | Raster | None = None
        if settings.labels is not None:
            self._marks = settings.labels.open(image.grid)
        self._windows = windows(
            image.height, image.width, settings.chip, settings.stride or settings.chip
        )
        if settings.observed > 0:
            self._windows = [w for w in self._windows if image.valid(w).mean() >= settings.observed]
            if not self._windows:
                raise ConfigError(
                    f"{image.name}: no chip of {settings.chip} px is observed to "
                    f"{settings.observed:.0%}; make observed smaller"
                )
        modality = Modality(
            name="image",
            sensor=image.sensor,
            height=settings.chip,
            width=settings.chip,
            dtype=image.dtype.name,
        )
        groupings = ("polygon", "block") if isinstance(self._marks, Burn) else ("block",)
        self.contents = Contents(
            modalities=(modality,),
            label=self._marks.label if self._marks else Label(kind="none"),
            grounds=(image.ground,),
            groupings=groupings,
            grouped_pixels=groupings if self._marks else (),
            licence=settings.licence,
            source=settings.source,
        )

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def origins(self) -> list[dict[str, str]]:
        """What the ground was read from: see :attr:`swath.data.store.Store.origins`."""
        return [self.image.content]

    def chip(self, index: int) -> Chip:
        """Return chip ``index`` with its label and, pixel by pixel, its polygon and block."""
        window = self._windows[index]
        groups: dict[str, np.ndarray | int] = {"block": self._blocks(window)}
        label = None
        if self._marks is None:  # a chip as a whole is in one part: in that of its middle
            middle = Window(window.row + window.height // 2, window.col + window.width // 2, 1, 1)
            groups["block"] = int(self._blocks(middle)[0, 0])
        if isinstance(self._marks, Burn):
            label, groups["polygon"] = self._marks.read(window)
        elif self._marks is not None:
            label = self._marks.read(window)
        return Chip(
            name=f"{self.image.name}_{window.row}_{window.col}",
            images={"image": self.image.read(window)},
            label=label,
            groups=groups,
            where=Where(0, window.row, window.col, window.height, window.width),
            when=self.image.when,
        )

    def _blocks(self, window: Window) -> np.ndarray:
        """Return the number of each pixel's block (h, w) int32, row by row over the scene."""
        size = self.settings.block
        across = -(-self.image.width // size)
        rows = np.arange(window.row, window.row + window.height) // size
        cols = np.arange(window.col, window.col + window.width) // size
        return (rows[:, None] * across + cols).astype(np.int32)
