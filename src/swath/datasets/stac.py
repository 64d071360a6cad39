"""Scenes found in a STAC catalogue by place, date and cloud, fetched, and cut to chips.

    catalogue: https://earth-search.aws.element84.com/v1
    collection: sentinel-2-l2a
    area: [12.4, 52.4, 12.8, 52.6]

A catalogue with a search is asked for what fits; a static one is walked. Files of the assets are
fetched to a folder and stay there; from then on it is as if ``scenes`` had been given that folder.
What was found is kept in the store, so that a build goes on with the same scenes.

Source: STAC specification 1.1 and STAC API 1.0 (stacspec.org); eo, raster and file extensions.
"""

from __future__ import annotations

import logging
import pathlib
import re
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from swath import here
from swath.config import ConfigError, plain
from swath.data.imagery import Imagery
from swath.data.sensor import load_sensor
from swath.datasets._assets import REMOTE, Asset, Item
from swath.datasets._catalogue import search
from swath.datasets._fetch import Fetched, Wanted, fetch
from swath.datasets._gather import Gather, Gathered
from swath.datasets._listed import Listed
from swath.fields import free
from swath.files import read_json, write_json

log = logging.getLogger(__name__)

_SIGN = "https://planetarycomputer.microsoft.com/api/sas/v1/sign?href={href}"


@dataclass(frozen=True, kw_only=True)
class Stac(Gather):
    """What to look for, and where to put it. ``after``, ``before`` and ``area`` choose the items as
    well as the chips."""

    catalogue: str
    """Address of the catalogue: of a STAC API, or of a static catalog.json; or a path to one."""

    collection: str
    """Collection in it, such as sentinel-2-l2a."""

    sensor: str
    """Name of a sensor that ships with Swath, or a YAML file like those."""

    bands: tuple[str, ...] | None = None
    """Bands to use, in this order. None: all of the sensor."""

    assets: dict[str, str] = field(default_factory=dict)
    """Band -> key of the asset that has it, "visual#1" for its first channel; a classification for
    ``clouds`` too. Bands not named: the asset of that key, or that says it has that band or its
    wavelength."""

    cloud_cover: float | None = None
    """Largest cloud cover of an item in %, by its eo:cloud_cover; items that do not say are taken.
    None: any."""

    platforms: tuple[str, ...] | None = None
    """Satellites whose items are taken, such as landsat-8, landsat-9. None: all of the collection,
    which may have several kinds."""

    most: int | None = None
    """Number of items at most, the earliest ones. None: all."""

    scale: float | None = None
    """Unit per count; None: as the item says, else the sensor's."""

    offset: float | None = None
    """What a count of 0 stands for, such as -0.1 for Sentinel-2 since baseline 04.00; None: as the
    item says, of Sentinel-2 by its baseline too, else the sensor's."""

    resolution_m: float | None = None
    """Pixel size in m; None: that of the finest band."""

    crs: str | None = None
    """Coordinate reference system of all scenes; None: each has its own."""

    folder: str = free("stores/fetched")
    """Where assets are fetched to, a folder for each item."""

    sign: str | None = free(None)
    """Address of a service that signs another one, with {href} in it. None: that of the Planetary
    Computer for its own files, else nothing is signed."""

    token: str | None = free(None)
    """Name of the environment variable with a token that the files' servers want, as CDSE's do.
    The token itself is never kept. None: files are asked for without (a ~/.netrc counts)."""

    parallel: int = free(4)
    """Files fetched at a time."""

    tries: int = free(6)
    """How often a file or a page of the catalogue is asked for, before giving up."""

    wait_seconds: float = free(1.0)
    """Seconds before the second try; doubled for each further one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        load_sensor(self.sensor).select(self.wanted())
        if self.parallel < 1 or self.tries < 1 or self.wait_seconds < 0:
            raise ConfigError(
                f"parallel={self.parallel}, tries={self.tries}: both are at least 1; "
                f"wait_seconds={self.wait_seconds:g} is at least 0"
            )
        if self.most is not None and self.most < 1:
            raise ConfigError(f"most={self.most}: take at least one item, or leave it out")
        if self.sign is not None and "{href}" not in self.sign:
            raise ConfigError(
                f"sign={self.sign!r} has no {{href}} in it, as in {_SIGN}: the address to be signed"
            )
        for band, written in self.assets.items():
            key, hash_, channel = written.partition("#")
            if not key or (hash_ and not re.fullmatch(r"[1-9]\d*", channel)):
                raise ConfigError(
                    f"assets: {band}: {written!r} is no key of an asset, such as B04, nor a "
                    "channel of one, counted from 1, such as visual#1"
                )
        if self.clouds is not None and self.clouds.file is not None:
            raise ConfigError(
                "clouds.file has no effect on kind stac: say which asset is the classification "
                "with assets, such as assets: {SCL: scl}"
            )

    def wanted(self) -> tuple[str, ...]:
        """Return the bands to use."""
        return self.bands or load_sensor(self.sensor).names

    def find(self) -> list[Item]:
        """Return the items that fit, by date. ConfigError if there are none, the catalogue cannot
        be read, or an item lacks an asset."""
        return search(self)

    def fetch(self, items: list[Item], progress: bool = True) -> Fetched:
        """Bring the files of ``items`` to ``folder``, those that are not there yet."""
        wanted = {}
        for item in items:
            for asset in item.assets.values():
                path = self._file(item, asset.file)
                sign = self.sign or (_SIGN if _wants_signing(self.catalogue, asset.href) else None)
                wanted[path] = Wanted(asset.href, path, asset.size, asset.checksum, sign)
        remote = [w for w in wanted.values() if _scheme(w.href) in REMOTE]
        others = [w for w in wanted.values() if _scheme(w.href) not in (*REMOTE, "")]
        if missing := [w for w in others if not w.path.is_file()]:
            first = missing[0]
            raise ConfigError(
                f"{len(missing)} files lie where only a key leads: only http, https and files are "
                f"fetched. Bring each to its place by other means, such as aws s3 cp {first.href} "
                f"{first.path}, and start again: what is there is taken"
            )
        return fetch(
            remote,
            parallel=self.parallel,
            tries=self.tries,
            wait_seconds=self.wait_seconds,
            token=self._token(),
            progress=progress,
        )

    def open(self) -> Gathered:
        """Return the chips; searches and fetches first. ConfigError if that fails."""
        return self.resume(None, progress=False)

    def resume(self, notes: pathlib.Path | None, progress: bool = True) -> Gathered:
        items = self._known(notes)
        self.fetch(items, progress)
        return Gathered(self, [self._scene(item) for item in items], notes, progress)

    def assume(self, scene: Imagery) -> Imagery:
        return scene.taken_for(self.sensor, self.scale, self.offset)

    def _known(self, notes: pathlib.Path | None) -> list[Item]:
        """Return what was found when the store was begun, or else what is found now."""
        names: tuple[str, ...] = ("catalogue", "collection", "sensor", "bands", "assets", "area")
        names += ("after", "before", "cloud_cover", "platforms", "most", "scale", "offset")
        asked = {name: plain(getattr(self, name)) for name in names}
        asked["clouds"] = plain(self.clouds)
        note = None if notes is None else notes / "items.json"
        if note is not None and note.exists():
            known = read_json(note)
            if known.get("asked") == asked:
                return [Item.from_plain(item) for item in known["items"]]
        items = self.find()
        if note is not None:
            note.parent.mkdir(parents=True, exist_ok=True)
            write_json(note, {"asked": asked, "items": [plain(item) for item in items]})
        return items

    def _token(self) -> str | None:
        if self.token is None:
            return None
        found = here.secret(self.token)
        if found is None:
            raise ConfigError(
                f"token={self.token}: there is no such environment variable, or it is empty; put "
                f"the token in it (export {self.token}=...), or leave token out"
            )
        return found

    def _file(self, item: Item, name: str) -> pathlib.Path:
        return pathlib.Path(self.folder) / self.collection / item.id / name

    def _scene(self, item: Item) -> Listed:
        there = {name: self._local(item, asset) for name, asset in item.assets.items()}
        files = {band: there[band] + item.assets[band].channel for band in self.wanted()}
        imagery = Imagery(
            path=str(pathlib.Path(next(iter(there.values()))).parent),
            sensor=self.sensor,
            scale=item.scale if self.scale is None else self.scale,
            offset=item.offset if self.offset is None else self.offset,
            bands=self.wanted(),
            files=files,
            resolution_m=self.resolution_m,
            crs=self.crs,
            when=item.when,
            name=item.id,
        )
        mask = next((file for name, file in there.items() if name not in files), None)
        return Listed(imagery, mask=mask)

    def _local(self, item: Item, asset: Asset) -> str:
        """Return where the file of ``asset`` is on this machine."""
        here = not _scheme(asset.href)
        path = pathlib.Path(asset.href) if here else self._file(item, asset.file)
        return str(path.absolute())


def _scheme(href: str) -> str:
    return urllib.parse.urlsplit(href).scheme


def _wants_signing(catalogue: str, href: str) -> bool:
    """Return whether ``href`` is one of the Planetary Computer's, and not yet signed."""
    at, file = urllib.parse.urlsplit(catalogue), urllib.parse.urlsplit(href)
    ours = (at.hostname or "") == urllib.parse.urlsplit(_SIGN).hostname
    return ours and (file.hostname or "").endswith(".blob.core.windows.net") and not file.query


def about(items: list[Item]) -> list[str]:
    """Return a line on each item: name, date, cloud cover, bytes where the catalogue says them."""
    rows = []
    for item in items:
        sizes: list[Any] = [asset.size for asset in item.assets.values()]
        size = f"{sum(sizes) / 1e6:10.1f} MB" if None not in sizes else ""
        cloud = "" if item.cloud_cover is None else f"{item.cloud_cover:5.1f} % cloud"
        rows.append(f"{item.id:<44}  {item.when[:16]}  {cloud:<14}{size}".rstrip())
    return rows
