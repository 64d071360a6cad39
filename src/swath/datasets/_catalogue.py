"""What a STAC catalogue has: items that fit. Which asset holds which band: see ``_assets``.

Items are chosen here by the same rules whether the server searched or the catalogue is a static
one, so a server that searches loosely changes nothing.
"""

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from swath.config import ConfigError
from swath.datasets._assets import Item, of_item
from swath.datasets._fetch import BUSY

if TYPE_CHECKING:
    from swath.datasets.stac import Stac

_TIMEOUT = 60.0  # seconds for a page


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
            f", platforms {_said(how.platforms)}"
        )
    chosen = sorted(found.values(), key=lambda item: (_when(item), item.id))[: how.most]
    return [of_item(item, _when(item), how) for item in chosen]


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
    if how.platforms is not None:
        known = {_letters(name) for name in how.platforms}
        if _letters(item.properties.get("platform", "")) not in known:
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


def _letters(platform: str) -> str:
    """LANDSAT_8 and landsat-8 are the same."""
    return re.sub(r"[^a-z0-9]", "", platform.casefold())


def _said(value: Any) -> str:
    return "any" if value is None else str(list(value) if isinstance(value, tuple) else value)


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None and str(error.__cause__):
        error = error.__cause__
    return str(error) or type(error).__name__
