"""What a STAC catalogue has: items that fit, and which of their assets hold which bands.

Items are chosen here by the same rules whether the server searched or the catalogue is a static
one, so a server that searches loosely changes nothing.
"""

from __future__ import annotations

import datetime
import pathlib
import re
import urllib.parse
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swath.config import ConfigError, build
from swath.data.sensor import Band, load_sensor
from swath.datasets._clouds import KNOWN
from swath.datasets._fetch import BUSY

if TYPE_CHECKING:
    from swath.datasets.stac import Stac

_SHA256 = "1220"  # how a multihash of SHA-256 begins
_TIMEOUT = 60.0  # seconds for a page
_NEAR = 0.5  # of a band's width: an asset of that wavelength is the band's


@dataclass(frozen=True)
class Asset:
    """The file that holds a band of an item."""

    href: str
    file: str
    """Its name when it is fetched."""
    channel: str = ""
    """"#3" for the third channel of it; "": its only one."""
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Item:
    """One scene of a catalogue."""

    id: str
    when: str
    cloud_cover: float | None
    """In %."""
    assets: dict[str, Asset]
    """For each band, and the classification if clouds are to be left out."""

    @classmethod
    def from_plain(cls, value: Any) -> Item:
        return build(cls, value, "items.json")


def search(how: Stac) -> list[Item]:
    """Return the items that fit, by date; see :meth:`Stac.find`."""
    try:
        import pystac
        import requests
        from pystac_client.exceptions import APIError
    except ImportError as error:
        raise ConfigError(
            "kind stac needs pystac-client; install it with pip install 'swath[stac]'"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a static catalogue, that it has no search
            found = {item.id: item for item in _items(how) if _fits(item, how)}
    except ConfigError:
        raise
    except (pystac.STACError, APIError, requests.RequestException, OSError, ValueError) as error:
        raise ConfigError(
            f"{how.catalogue}: the catalogue cannot be read, after {how.tries} tries: "
            f"{_cause(error)}"
        ) from error
    if not found:
        raise ConfigError(
            f"{how.catalogue}: no item of {how.collection} fits: area {_said(how.area)}, after "
            f"{_said(how.after)}, before {_said(how.before)}, cloud_cover {_said(how.cloud_cover)}"
        )
    chosen = sorted(found.values(), key=lambda item: (_when(item), item.id))[: how.most]
    return [_item(item, how) for item in chosen]


def _items(how: Stac) -> Iterator[Any]:
    import pystac_client
    from pystac_client.stac_api_io import StacApiIO
    from urllib3.util import Retry

    again = Retry(
        total=how.tries - 1,
        backoff_factor=how.wait_seconds,
        status_forcelist=BUSY,
        allowed_methods=None,
    )
    client = pystac_client.Client.open(
        how.catalogue, stac_io=StacApiIO(max_retries=again, timeout=_TIMEOUT)
    )
    if client.conforms_to("ITEM_SEARCH"):
        dates = [f"{day}T00:00:00Z" if day else ".." for day in (how.after, how.before)]
        searched = client.search(
            collections=[how.collection],
            bbox=list(how.area) if how.area else None,
            datetime="/".join(dates) if how.after or how.before else None,
        )
        yield from searched.items()
        return
    known = {found.id: found for found in (client, *client.get_collections())}
    if how.collection not in known:
        there = ", ".join(name for name in known if name != client.id) or "none"
        raise ConfigError(
            f"{how.catalogue}: has no collection {how.collection!r}; there are {there}"
        )
    yield from known[how.collection].get_items(recursive=True)


def _fits(item: Any, how: Stac) -> bool:
    if how.area is not None:
        if item.bbox is None:
            return False
        half = len(item.bbox) // 2  # 2, or 3 with heights
        west, south, east, north = (item.bbox[i] for i in (0, 1, half, half + 1))
        if west > how.area[2] or east < how.area[0] or south > how.area[3] or north < how.area[1]:
            return False
    cloud = item.properties.get("eo:cloud_cover")
    if how.cloud_cover is not None and cloud is not None and cloud > how.cloud_cover:
        return False
    when = _when(item)
    return (how.after or "0") <= when < (how.before or "9999")


def _when(item: Any) -> str:
    """Return when it was taken, or began to be, in UTC."""
    found = item.datetime
    if found is None:
        found = datetime.datetime.fromisoformat(item.properties["start_datetime"])
    if found.tzinfo:
        found = found.astimezone(datetime.UTC).replace(tzinfo=None)
    return found.isoformat(timespec="seconds")


def _item(item: Any, how: Stac) -> Item:
    sensor = load_sensor(how.sensor)
    known = {band.name: band for band in sensor.bands}
    wanted = [known[name] for name in how.wanted()]
    if how.clouds is not None:
        name = how.clouds.band or (KNOWN[how.sensor][0] if how.sensor in KNOWN else "")
        wanted += [Band(name=name)] if name else []
    found = {band.name: _asset(item, band, how) for band in wanted}
    cloud = item.properties.get("eo:cloud_cover")
    return Item(item.id, _when(item), None if cloud is None else float(cloud), found)


def _asset(item: Any, band: Band, how: Stac) -> Asset:
    """Return the asset of ``item`` that has ``band``; ConfigError if none or several could be."""
    written, hash_, channel = how.assets.get(band.name, "").partition("#")
    keys = [written] if written else _likely(item, band)
    if len(keys) != 1 or keys[0] not in item.assets:
        why = f"has no asset for band {band.name}"
        if written:
            why = f"has no asset {written!r}"
        elif keys:
            why = f"has several assets that may be band {band.name}: {', '.join(keys)}"
        raise ConfigError(
            f"{how.catalogue}: item {item.id} {why}; there are {', '.join(item.assets)}. Say which "
            f"it is with assets: {{{band.name}: KEY}}, or leave the band out with bands"
        )
    asset = item.assets[keys[0]]
    href = str(asset.get_absolute_href())
    scheme = urllib.parse.urlsplit(href).scheme
    if scheme not in ("http", "https", "file", ""):
        raise ConfigError(
            f"{how.catalogue}: item {item.id}: band {band.name} lies at {href}; only http, https "
            "and files can be fetched. Fetch it with other means, and use kind scenes"
        )
    if scheme == "file":
        href = urllib.parse.unquote(urllib.parse.urlsplit(href).path)
    # One channel is called by its band, so that it is found by it; several by the asset.
    suffix = pathlib.PurePosixPath(urllib.parse.urlsplit(href).path).suffix or ".tif"
    name = re.sub(r"[^\w.-]", "_", keys[0]) if channel else band.name
    about = asset.extra_fields
    total = str(about.get("file:checksum", ""))
    return Asset(
        href=href,
        file=f"{name}{suffix}",
        channel=hash_ + channel,
        size=about.get("file:size"),
        sha256=total.removeprefix(_SHA256) if total.startswith(_SHA256) else None,
    )


def _likely(item: Any, band: Band) -> list[str]:
    """Return the keys of the assets that may hold ``band``: by their key, by the name of their one
    band, or by its wavelength; the surest of these that finds any."""
    single = {key: about[0] for key, a in item.assets.items() if len(about := _bands(a)) == 1}
    named = [key for key in item.assets if _fold(key) == _fold(band.name)]
    named = named or [k for k, a in single.items() if _fold(a.get("name", "")) == _fold(band.name)]
    if named or band.wavelength_nm is None:
        return named[:1] if len({item.assets[k].href for k in named}) == 1 else named
    off = {
        key: abs(1000 * float(length) - band.wavelength_nm)
        for key, about in single.items()
        if (length := about.get("center_wavelength") or about.get("eo:center_wavelength"))
    }
    near = {key: o for key, o in off.items() if o <= _NEAR * (band.width_nm or 20.0)}
    best = [key for key, o in near.items() if o == min(near.values())]
    tiff = [key for key in best if "tiff" in str(item.assets[key].media_type).lower()]
    return tiff or best


def _bands(asset: Any) -> list[dict[str, Any]]:
    return asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or []


def _fold(name: str) -> str:
    """B2, b02 and B002 are the same band."""
    return re.sub(r"(?<=[a-z])0+(?=\d)", "", str(name).casefold())


def _said(value: Any) -> str:
    return "any" if value is None else str(list(value) if isinstance(value, tuple) else value)


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None and str(error.__cause__):
        error = error.__cause__
    return str(error) or type(error).__name__
