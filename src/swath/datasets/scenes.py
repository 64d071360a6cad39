"""Many scenes of one sensor, cut to chips: a store to pretrain on or, with labels, to train on.

    scenes: [{path: "data/*.SAFE", sensor: sentinel2_l2a, bands: [B02, B03, B04, B08]}]

A path may be a pattern; each file or folder that it matches is a scene. Chips with too little data
or too much cloud are left out, and the store says how many. A split never takes the same place at
two dates apart, unless it is by scene.
"""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

from swath.config import ConfigError
from swath.data.imagery import Imagery
from swath.datasets._gather import Gather, Gathered
from swath.datasets._listed import listed


@dataclass(frozen=True, kw_only=True)
class Scenes(Gather):
    """Which scenes, how they are cut, and which chips are taken."""

    scenes: tuple[Imagery, ...]
    """The scenes, of one sensor. A path may be a pattern (* ? [] and ** for any depth): each folder
    or raster file that it matches is a scene. Dates are taken from names (20170216T102101), unless
    ``when`` says them."""

    series: bool = False
    """Each channel of the files is a date, and so a scene, as in a netCDF of a time series; then
    ``files`` says where each band is: {B02: "netcdf:{path}:B2", ...}."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scenes:
            raise ConfigError("scenes: name at least one, as scenes: [{path: data/*, sensor: ...}]")
        sensors = {one.known_sensor for one in self.scenes}
        if len(sensors) > 1:
            raise ConfigError(
                f"scenes are of several sensors ({', '.join(sorted(sensors))}); a store has one: "
                "build a store for each"
            )

    def open(self) -> Gathered:
        """Return the chips; reads scenes as far as filters need it. ConfigError if none is left, or
        scenes do not fit together."""
        return self.resume(None, progress=False)

    def resume(self, notes: pathlib.Path | None, progress: bool = True) -> Gathered:
        return Gathered(self, listed(self.scenes, self.series), notes, progress)

    def assume(self, scene: Imagery) -> Imagery:
        first = self.scenes[0]
        return scene.taken_for(first.sensor, first.scale, first.offset)
