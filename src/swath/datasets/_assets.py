"""Which asset of a STAC item holds a band, what its counts stand for, and where it can be fetched.

Catalogues differ: in the keys (B04, B04_10m, red), in where bands are described (``eo:bands`` of
STAC 1.0, ``bands`` of 1.1), in the resolutions and formats beside each other, and in whether
Sentinel-2's offset since processing baseline 04.00 is said, or has been taken off the pixels.

Sources: STAC 1.0 and 1.1 (stacspec.org); eo, raster, file and alternate-assets extensions; items of
Earth Search, the Planetary Computer, CDSE and USGS in public tests of odc-stac and stactools.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swath.config import ConfigError, build
from swath.data.sensor import Band, Sensor, load_sensor
from swath.datasets._clouds import GSD_M, KNOWN

if TYPE_CHECKING:
    from swath.datasets.stac import Stac

REMOTE = ("http", "https")
_HASHES = {"1220": "sha256", "1620": "sha3_256", "1340": "sha512", "1440": "sha3_512"}
"""How a multihash begins (kind and length) -> its name."""
_NEAR = 0.5  # of a band's width: an asset of that wavelength is the band's
_PICTURES = {"thumbnail", "overview"}  # roles
_SHIFTED = 4.0  # Sentinel-2 baseline since which a count of 0 is a reflectance of -0.1


@dataclass(frozen=True)
class Asset:
    """The file that holds a band of an item."""

    href: str
    file: str
    """Its name when it is fetched."""
    channel: str = ""
    """"#3" for the third channel of it; "": its only one."""
    size: int | None = None
    checksum: str | None = None
    """Kind and hexadecimal digits, as in sha256:1a2b..."""


@dataclass(frozen=True)
class Item:
    """One scene of a catalogue."""

    id: str
    when: str
    cloud_cover: float | None
    """In %."""
    assets: dict[str, Asset]
    """For each band, and the classification if clouds are to be left out."""
    scale: float | None = None
    """Unit per count, as the catalogue says; None: it does not."""
    offset: float | None = None
    """What a count of 0 stands for, as the catalogue says."""

    @classmethod
    def from_plain(cls, value: Any) -> Item:
        return build(cls, value, "items.json")


def of_item(item: Any, when: str, how: Stac) -> Item:
    """Return what is needed of a pystac item; ConfigError if a band has no asset, or several, or
    bands are counted differently."""
    sensor = load_sensor(how.sensor)
    known = {band.name: band for band in sensor.bands}
    wanted = [known[name] for name in how.wanted()]
    keys = {band.name: _key(item, band, sensor, how) for band in wanted}
    scale, offset = _counts(item, keys, how)
    if how.clouds is not None:
        name = how.clouds.band or (KNOWN[how.sensor][0] if how.sensor in KNOWN else "")
        if name:
            keys[name] = _key(item, Band(name=name, gsd_m=GSD_M.get(name)), sensor, how)
    found = {band: _asset(item, band, *key) for band, key in keys.items()}
    cloud = item.properties.get("eo:cloud_cover")
    return Item(item.id, when, None if cloud is None else float(cloud), found, scale, offset)


def _key(item: Any, band: Band, sensor: Sensor, how: Stac) -> tuple[str, str]:
    """Return the key of the asset of ``item`` that has ``band``, and the channel written with it;
    ConfigError if none or several could be."""
    written, _, channel = how.assets.get(band.name, "").partition("#")
    keys = [written] if written else _likely(item, band, sensor)
    if len(keys) == 1 and keys[0] in item.assets:
        return keys[0], channel
    why = f"has no asset for band {band.name}"
    if written:
        why = f"has no asset {written!r}"
    elif keys:
        why = f"has several assets that may be band {band.name}: {', '.join(keys)}"
    platform = item.properties.get("platform")
    raise ConfigError(
        f"{how.catalogue}: item {item.id}{f' of {platform}' if platform else ''} {why}; there are "
        f"{', '.join(item.assets)}. Say which it is with assets: {{{band.name}: KEY}}, leave the "
        "band out with bands, or take items of other satellites with platforms"
    )


def _likely(item: Any, band: Band, sensor: Sensor) -> list[str]:
    """Return the keys of the assets that may hold ``band``: by their key, by the name of their one
    band, or by its wavelength; the surest of these that finds any."""
    data = {k: a for k, a in item.assets.items() if not _PICTURES & set(a.roles or ())}
    single = {key: about[0] for key, a in data.items() if len(about := _bands(a)) == 1}
    name = _fold(band.name)
    keys = [key for key in data if _fold(key) == name]
    keys = keys or [k for k, a in single.items() if _fold(a.get("name", "")) == name]
    if not keys and band.wavelength_nm is not None:
        seen = {
            key: 1000 * float(length)
            for key, about in single.items()
            if (length := about.get("center_wavelength") or about.get("eo:center_wavelength"))
        }
        off = {
            key: abs(nm - band.wavelength_nm)
            for key, nm in seen.items()
            if _nearest(nm, sensor) == band.name
        }
        near = {key: o for key, o in off.items() if o <= _NEAR * (band.width_nm or 20.0)}
        keys = [key for key, o in near.items() if o == min(near.values())]
    if len(keys) > 1 and len({item.assets[k].href for k in keys}) == 1:
        return keys[:1]
    sizes = {key: size for key in keys if (size := _gsd_m(item.assets[key]))}
    if sizes and band.gsd_m is not None:  # where several resolutions are: what was observed
        best = min(abs(size - band.gsd_m) for size in sizes.values())
        keys = [k for k in keys if k not in sizes or abs(sizes[k] - band.gsd_m) == best]
    tiff = [key for key in keys if "tiff" in str(item.assets[key].media_type).lower()]
    return tiff or keys


def _nearest(nm: float, sensor: Sensor) -> str:
    """Return the band of ``sensor`` whose wavelength is nearest: a wide panchromatic band is not
    every band that it covers."""
    known = [band for band in sensor.bands if band.wavelength_nm is not None]
    return min(known, key=lambda band: abs(nm - (band.wavelength_nm or 0.0))).name


def _bands(asset: Any) -> list[dict[str, Any]]:
    return asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or []


def _gsd_m(asset: Any) -> float | None:
    about = asset.extra_fields
    place = about.get("proj:transform")
    return about.get("gsd") or (abs(place[0]) if place else None)


def _fold(name: str) -> str:
    """B2, b02, B002 and B02_10m are the same band."""
    short = re.sub(r"_\d+m$", "", str(name).casefold())
    return re.sub(r"(?<=[a-z])0+(?=\d)", "", short)


def _counts(
    item: Any, keys: dict[str, tuple[str, str]], how: Stac
) -> tuple[float | None, float | None]:
    """Return scale and offset of the counts of ``item``, None where it says nothing."""
    found: dict[str, tuple[float | None, float | None]] = {}
    for band, (key, channel) in keys.items():
        about = item.assets[key].extra_fields
        raster = about.get("raster:bands") or [{}]
        which = min(int(channel or 1), len(raster)) - 1
        own = _bands(item.assets[key])
        own = [own[int(channel or 1) - 1] if int(channel or 1) <= len(own) else {}]
        said: list[float | None] = []
        for name in ("scale", "offset"):
            places = (own[0].get(f"raster:{name}"), about.get(f"raster:{name}"))
            value = next((v for v in (*places, raster[which].get(name)) if v is not None), None)
            said.append(None if value is None else float(value))
        found[band] = (said[0], said[1] if channel else _sentinel2(item.properties, said[1]))
    scale, offset = (_alike(item, found, i, how) for i in (0, 1))
    return scale, offset


def _sentinel2(about: dict[str, Any], said: float | None) -> float | None:
    """Return the offset of a Sentinel-2 product whose asset says ``said``; others': ``said``.

    Earth Search tells when it took the offset off, though its raster:bands may go on to say it;
    before the baseline there was none; the Planetary Computer says the baseline only.
    """
    if about.get("earthsearch:boa_offset_applied") is True:
        return 0.0
    baseline = about.get("s2:processing_baseline")
    if baseline is None and str(about.get("constellation", "")).casefold() == "sentinel-2":
        baseline = about.get("processing:version")
    with contextlib.suppress(TypeError, ValueError):
        if float(baseline) < _SHIFTED:  # type: ignore[arg-type]
            return 0.0
        return -0.1 if said is None else said
    return said


def _alike(item: Any, found: dict[str, Any], which: int, how: Stac) -> float | None:
    name = ("scale", "offset")[which]
    values = {band: counts[which] for band, counts in found.items() if counts[which] is not None}
    if len(set(values.values())) > 1 and getattr(how, name) is None:
        told = ", ".join(f"{band} {value:g}" for band, value in values.items())
        raise ConfigError(
            f"{how.catalogue}: item {item.id}: bands are counted differently ({name}: {told}), and "
            f"a store has one {name}. Name bands that are counted alike, such as without the "
            f"thermal ones, or set {name}"
        )
    return next(iter(values.values()), None)


def _asset(item: Any, band: str, key: str, channel: str) -> Asset:
    asset = item.assets[key]
    href = first = str(asset.get_absolute_href())
    about = asset.extra_fields
    if urllib.parse.urlsplit(href).scheme not in (*REMOTE, "file", ""):  # s3://, say
        others = [str(other.get("href", "")) for other in (about.get("alternate") or {}).values()]
        href = next((o for o in others if urllib.parse.urlsplit(o).scheme in REMOTE), href)
    if urllib.parse.urlsplit(href).scheme == "file":
        href = urllib.parse.unquote(urllib.parse.urlsplit(href).path)
    # One channel is called by its band, so that it is found by it; several by the asset.
    suffix = pathlib.PurePosixPath(urllib.parse.urlsplit(first).path).suffix or ".tif"
    name = re.sub(r"[^\w.-]", "_", key) if channel else band
    total = str(about.get("file:checksum", ""))
    hash_ = _HASHES.get(total[:4])
    return Asset(
        href=href,
        file=f"{name}{suffix}",
        channel=f"#{channel}" if channel else "",
        size=about.get("file:size"),
        checksum=f"{hash_}:{total[4:]}" if hash_ else None,
    )
