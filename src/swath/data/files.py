"""Which file and channel holds each band of an ``Imagery``.

Where a band lies in several resolutions, as in ESA's products, it is taken from the file with the
pixels that the instrument saw.

A file may describe its channels by name. Where it does, the description must agree with what the
settings ask for: bands in another order would train a model on the wrong numbers, silently.

B02 is Sentinel-2's and B2 Landsat's, but people write B2 for B02 as well. So a name is taken
loosely, unless all names together are rather those of another sensor.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from swath.config import ConfigError, no_such
from swath.data.product import holds_product, image_folders, native, pixel_m
from swath.data.sensor import Sensor, is_own, load_sensor, of_your_own, shipped
from swath.geo.channel import Channel, File
from swath.geo.raster import is_gdal_name

if TYPE_CHECKING:
    from swath.data.imagery import Imagery

log = logging.getLogger(__name__)

SUFFIXES = {".tif", ".tiff", ".jp2", ".img", ".vrt", ".png", ".jpg", ".jpeg", ".nc", ".dat", ".bil"}


def channels(imagery: Imagery, sensor: Sensor) -> dict[str, Channel]:
    """Return where each band of ``imagery`` is, in the order asked for; ConfigError if nowhere."""
    if imagery.bands is not None:
        sensor.select(imagery.bands)  # says what is wrong with them
    path = pathlib.Path(imagery.path)
    if not is_gdal_name(imagery.path) and not path.exists():
        raise no_such(path, "file or folder")
    if imagery.files is None and not path.is_dir():
        return _of_one_file(imagery, sensor)
    if imagery.order is not None:
        raise ConfigError(
            f"{path} is a folder; order is for one file with all bands: give files. "
            f"{_whole(path, sensor)}".strip()
        )
    return _of_many_files(imagery, sensor, path)


def check_assumed(imagery: Imagery) -> None:
    """Raise ConfigError if the bands of ``imagery``, whose sensor was not said but assumed, are
    called as another sensor's are. Whoever names them (order, files) says that it is this one."""
    path, sensor = pathlib.Path(imagery.path), load_sensor(imagery.known_sensor)
    if imagery.order is not None or imagery.files is not None or not path.exists():
        return
    if path.is_dir():
        there = {name: _there(path, known) for name, known in shipped().items()}
        most = max(map(len, there.values()))
        likely = [name for name in there if len(there[name]) == most > len(_there(path, sensor))]
        found, way = there[likely[0]] if likely else [], f"files: {{{sensor.names[0]}: ...}}"
    else:
        file = _file(imagery.path, imagery)
        file.close()
        found = [d for d in file.descriptions if d]
        best, likely = _likely(found)
        likely = likely if best > _fit(found, sensor) else []
        way = _order(sensor, file.count)
    if likely:
        raise ConfigError(
            f"{path}: its bands are called {', '.join(found)}, as those of {' and '.join(likely)}. "
            f"It names no sensor, and the model was trained on {sensor.name}, whose bands are "
            f"{', '.join(sensor.names)}: another instrument's colours. Say beside path which "
            f"sensor took it, such as sensor: {likely[0]}; if it was {sensor.name} after all, set "
            f"{way}"
        )


def _fit(names: Iterable[str], sensor: Sensor) -> tuple[int, int]:
    """Return how many of ``names`` can be bands of ``sensor``, and how many are written just so."""
    found = [(name, _band(name, sensor)) for name in names]
    return sum(bool(b) for _, b in found), sum(b in _words(name) for name, b in found if b)


def _likely(names: list[str]) -> tuple[tuple[int, int], list[str]]:
    """Return the best :func:`_fit` of a sensor that ships with Swath, and which ones have it."""
    fits = {name: _fit(names, sensor) for name, sensor in shipped().items()}
    best = max(fits.values())
    return best, [name for name in fits if fits[name] == best]


def _there(path: pathlib.Path, sensor: Sensor) -> list[str]:
    """Return the bands of ``sensor`` that files in the folder ``path`` are named after."""
    return [band for band in sensor.names if _search(path, None, band)]


def _of_one_file(imagery: Imagery, sensor: Sensor) -> dict[str, Channel]:
    file = _file(imagery.path, imagery)
    described = [_band(d, sensor) for d in file.descriptions]
    order = imagery.order
    if order is None and any(described):
        order = tuple(d or "-" for d in described)
        _check_left_out(file, described, sensor)
    if order is None and file.count == len(sensor.bands):
        # A sensor that ships has its bands in the instrument's order, files in their maker's.
        told = file.count == 1 or is_own(imagery.sensor or "")
        order = sensor.names if told else None
    if order is None:
        known = len(sensor.bands)
        few = (
            f". Sensor {sensor.name} has only {known} bands; swath show --kinds lists others. For "
            f"bands of none of these {of_your_own(file.count)}"
            if known < file.count
            else ""
        )
        raise ConfigError(
            f"{file.path}: has {file.count} channels without names; say which bands they are with "
            f'order, channel by channel ("-": none), such as {_order(sensor, file.count)}{few}'
        )
    if len(order) != file.count:
        raise ConfigError(
            f"{file.path}: has {file.count} channels, but order names {len(order)} "
            f"({', '.join(order)}); write '-' for a channel that is no band"
        )
    sensor.select([band for band in order if band != "-"])
    for number, (asked, found) in enumerate(zip(order, described, strict=True), 1):
        _agree(file, number, asked, found)
    place = {band: number for number, band in enumerate(order, 1) if band != "-"}
    bands = imagery.bands or tuple(place)
    missing = [band for band in bands if band not in place]
    if missing:
        raise ConfigError(
            f"{file.path}: band {', '.join(missing)} is missing; the file has {', '.join(place)}"
        )
    return {band: _channel(file, place[band], imagery, sensor) for band in bands}


def _check_left_out(file: File, described: list[str], sensor: Sensor) -> None:
    """Say which channels are no band of ``sensor``. ConfigError if they are another sensor's, as
    whose all can be read, and some only look like bands of this one (B02, B2)."""
    pairs = list(zip(file.descriptions, described, strict=True))
    left = [f"{n} ({name or 'no name'})" for n, (name, band) in enumerate(pairs, 1) if not band]
    if not left:
        return
    names = [name for name, _ in pairs if name]
    (most, _), likely = _likely(names)
    own, exact = _fit(names, sensor)
    if own < most and exact < own:
        raise ConfigError(
            f"{file.path}: its bands are called {', '.join(names)}, as those of "
            f"{' and '.join(likely)}; sensor {sensor.name} has {', '.join(sensor.names)}, and none "
            f"for channel {', '.join(left)}. Set sensor: {likely[0]}, or say channel by channel "
            f"which band it is, such as {_order(sensor, file.count)}"
        )
    log.info("%s: channel %s: no band of %s, left out", file.path, ", ".join(left), sensor.name)


def _of_many_files(imagery: Imagery, sensor: Sensor, path: pathlib.Path) -> dict[str, Channel]:
    written = imagery.files
    if isinstance(written, dict):
        sensor.select(written)
        bands = imagery.bands or tuple(written)
        unknown = [band for band in bands if band not in written]
        if unknown:
            raise ConfigError(f"files names no file for band {', '.join(unknown)}")
        names = {band: [written[band].replace("{path}", str(path))] for band in bands}
    else:
        bands = imagery.bands or sensor.names
        names = {band: _search(path, written, band) for band in bands}
    missing = [band for band, found in names.items() if not found]
    if missing:
        there = [band for band, found in names.items() if found]
        looked = written or "*_{band}.*"
        whole = "" if there else _whole(path, sensor)
        such = f", as bands: [{', '.join(there)}]" if there else ""
        raise ConfigError(
            f"{path}: no file for band {', '.join(missing)} of {sensor.name} (looked for "
            f"{looked!r}; found {', '.join(there) or 'none'}); choose "
            f"bands{such}, or say where they are with files{whole and '. '}{whole}"
        )
    files: dict[str, File] = {}
    out = {}
    for band, found in names.items():
        name, number = _split(found[0] if len(found) == 1 else _one(found, band, imagery, sensor))
        full = name if is_gdal_name(name) else str(path / name)
        if full not in files:
            files[full] = _file(full, imagery)
        file = files[full]
        if number is None and file.count > 1:
            raise ConfigError(
                f"{full}: has {file.count} channels; say which is band {band}, such as "
                f"{band}: {name}#1"
            )
        out[band] = _channel(file, number or 1, imagery, sensor)
        _agree(file, number or 1, band, _band(file.descriptions[(number or 1) - 1], sensor))
    return out


def _one(found: list[str], band: str, imagery: Imagery, sensor: Sensor) -> str:
    """Return which of several files to take ``band`` from; ConfigError lists them."""
    path = pathlib.Path(imagery.path)
    sizes: dict[str, float | None] = {}
    for each in found:
        file = _file(str(path / _split(each)[0]), imagery)
        sizes[each] = None if file.grid is None else pixel_m(file.grid)
        file.close()
    chosen = native(band, sizes, sensor)
    if chosen is not None:
        return chosen
    told = [f"{name} ({size:g} m)" if size else name for name, size in sizes.items()]
    more = f", and {len(told) - 8} more" if len(told) > 8 else ""
    raise ConfigError(
        f"{path}: band {band} is in {len(found)} files: {', '.join(told[:8])}{more}; choose one of "
        f"them with files: {{{band}: {found[0]}, ...}}, or a pattern that only one of them matches"
    )


def _whole(path: pathlib.Path, sensor: Sensor) -> str:
    """Return what to write if a file in the folder ``path`` has all bands, or it is the folder
    above; "" if neither is so."""
    product = holds_product(path)
    if product:
        return product
    images = sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES)
    for image in images[:1]:
        with contextlib.suppress(ConfigError):
            file = File(str(image))
            file.close()
            if file.count < 2:
                return ""
            named = any(_band(d, sensor) for d in file.descriptions)
            order = "" if named else f", {_order(sensor, file.count)}"
            others = f" and {len(images) - 1} more" if len(images) > 1 else ""
            pattern = path / f"*{image.suffix}"
            many = f"; of several scenes a pattern, as path: {pattern}" if others else ""
            return (
                f"It holds {image.name} ({file.count} channels){others}: path may be the file "
                f"itself, as in {{path: {image}{order}}}{many}"
            )
    return ""


def _order(sensor: Sensor, count: int) -> str:
    """Return, as one would type it, an ``order`` that names ``count`` channels."""
    names = list(sensor.names[:count])
    if count > 13:
        names[3:] = ["..."]
    elif count > len(names):
        names += ['"-"', "..."][: count - len(names)]
    return f"order: [{', '.join(names)}]"


def _search(path: pathlib.Path, pattern: str | None, band: str) -> list[str]:
    if pattern is not None:
        name, hash_, number = (
            pattern.replace("{band}", band).replace("{path}", str(path)).partition("#")
        )
        if is_gdal_name(name):
            return [name + hash_ + number]
        found = path.glob(name)
    else:
        own = re.compile(rf"(^|[^A-Za-z0-9]){re.escape(band)}(_\d+m)?$")
        hash_ = number = ""
        images = (f for folder in image_folders(path) for f in folder.iterdir())
        found = (f for f in images if f.suffix.lower() in SUFFIXES and own.search(f.stem))
    return sorted(str(f.relative_to(path)) + hash_ + number for f in found)


def _split(name: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(.*)#(\d+)", name)
    return (match[1], int(match[2])) if match else (name, None)


def _file(name: str, imagery: Imagery) -> File:
    place = imagery.georeference
    return File(name, place.crs, place.transform) if place else File(name)


def _channel(file: File, number: int, imagery: Imagery, sensor: Sensor) -> Channel:
    channel = Channel(file, number, imagery.nodata)
    if channel.nodata is None:
        channel.nodata = sensor.nodata
    return channel


def _band(description: str, sensor: Sensor) -> str:
    """Return the band that a channel's description names; "" if it names none."""
    folded = {_fold(name): name for name in sensor.names}
    for word in _words(description):
        if _fold(word) in folded:
            return folded[_fold(word)]
    return ""


def _words(description: str) -> list[str]:
    return [description, *re.split(r"[^A-Za-z0-9]+", description)]


def _fold(name: str) -> str:
    """B2, b02 and B002 are the same band."""
    return re.sub(r"(?<=[a-z])0+(?=\d)", "", name.casefold())


def _agree(file: File, number: int, asked: str, described: str) -> None:
    if described and asked != described and asked != "-":
        raise ConfigError(
            f"{file.path}: channel {number} is asked for as {asked}, but the file describes it as "
            f"{described}; correct the order of the bands"
        )
