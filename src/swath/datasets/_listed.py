"""From patterns to scenes: which files there are, when they were taken, what they are called.

A pattern stands in the path of an ``Imagery``. A date is looked for in the names of files and
folders; in a series, where each channel of the files is a date, in what a netCDF says of its time.
"""

from __future__ import annotations

import dataclasses
import datetime
import glob
import os
import pathlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from swath.config import ConfigError, no_such
from swath.data.files import SUFFIXES
from swath.data.imagery import Imagery
from swath.geo.channel import File
from swath.geo.raster import is_gdal_name


@dataclass(frozen=True)
class Listed:
    """One scene to be gathered."""

    imagery: Imagery
    """With its name, and ``when`` if that is known."""
    channel: int | None = None
    """Of a series, the channel of this date."""
    mask: str | None = None
    """The file of the classification that tells clouds; None: as the settings say."""


def listed(patterns: Iterable[Imagery], series: bool) -> list[Listed]:
    """Return the scenes that ``patterns`` match, in the order written, then by name.

    series: each channel of the files is a date of its own.
    ConfigError if a pattern matches nothing, or two scenes are the same.
    """
    found: list[Listed] = []
    for pattern in patterns:
        for path in _matches(pattern.path):
            one = dataclasses.replace(pattern, path=path)
            if series:
                found += _dates(one)
            else:
                when = one.when or date_in(path)
                found.append(Listed(dataclasses.replace(one, when=when)))
    return _named(found)


def date_in(path: str) -> str | None:
    """Return the first date in the name of ``path``, or of the nearest folder above that has one:
    20170216 or 2017-02-16, with a time behind T if there is one."""
    digits = r"(?<!\d)((?:19|20)\d\d)([-_]?)(\d\d)\2(\d\d)(?:T(\d\d)(\d\d)(\d\d))?(?!\d)"
    for name in reversed(pathlib.PurePath(path).parts):
        for year, _, month, day, hour, minute, second in re.findall(digits, name):
            try:
                day = datetime.date(int(year), int(month), int(day))
                clock = datetime.time(int(hour or 0), int(minute or 0), int(second or 0))
                return datetime.datetime.combine(day, clock).isoformat()
            except ValueError:
                continue  # a number that is no date
    return None


def _matches(pattern: str) -> list[str]:
    if is_gdal_name(pattern) or not glob.has_magic(pattern):
        if not is_gdal_name(pattern) and not os.path.exists(pattern):
            raise no_such(pattern, "file or folder")
        return [pattern]
    found = sorted(glob.glob(pattern, recursive=True))
    scenes = [f for f in found if os.path.isdir(f) or pathlib.Path(f).suffix.lower() in SUFFIXES]
    if not scenes:
        others = f"; what it matches is no folder and no raster ({found[0]})" if found else ""
        raise ConfigError(f"scenes: nothing matches {pattern!r}{others}; correct the pattern")
    return scenes


def _dates(imagery: Imagery) -> list[Listed]:
    """Return a scene for each channel of the files of ``imagery``."""
    if not isinstance(imagery.files, dict):
        raise ConfigError(
            f"{imagery.path}: series needs files, which says where each band's dates are, such as "
            'files: {B02: "netcdf:{path}:B2", B03: "netcdf:{path}:B3"}'
        )
    times: dict[str, list[str | None]] = {}
    for band, written in imagery.files.items():
        name = written.replace("{path}", imagery.path)
        full = name if is_gdal_name(name) else str(pathlib.Path(imagery.path) / name)
        times[band] = _times(full)
    counts = {band: len(found) for band, found in times.items()}
    (first, dates), *others = times.items()
    for band, found in others:
        if found != dates:
            raise ConfigError(
                f"{imagery.path}: bands of a series differ in their dates: {first} has "
                f"{counts[first]}, {band} {counts[band]}, or others"
            )
    days = [when[:10] for when in dates if when]
    called = (
        days if len(set(days)) == len(dates) else [f"{n:04d}" for n in range(1, len(dates) + 1)]
    )
    stem = imagery.name or pathlib.Path(imagery.path).stem
    return [
        Listed(
            dataclasses.replace(
                imagery,
                files={band: f"{file}#{n}" for band, file in imagery.files.items()},
                when=when,
                name=f"{stem}_{name}",
            ),
            n,
        )
        for n, (when, name) in enumerate(zip(dates, called, strict=True), 1)
    ]


def _times(name: str) -> list[str | None]:
    """Return the time of each channel of a file, as netCDF's conventions (CF) tell it."""
    file = File(name)
    with file.borrow() as raster:
        about = raster.tags()
        every = [raster.tags(n) for n in range(1, file.count + 1)]
    file.close()
    units = re.fullmatch(r"(\w+?)s? since (.+)", about.get("time#units", ""))
    seconds = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}.get(units[1] if units else "")
    if units is None or seconds is None:
        return [None] * file.count
    start = datetime.datetime.fromisoformat(units[2].strip())
    steps = [float(tags["NETCDF_DIM_time"]) * seconds for tags in every]
    return [(start + datetime.timedelta(seconds=s)).isoformat() for s in steps]


def _named(found: list[Listed]) -> list[Listed]:
    """Give each scene a name of its own: that of its file or folder, or more of its path."""
    paths = [pathlib.Path(one.imagery.path).resolve() for one in found]
    for depth in range(1, 8):
        names = [
            one.imagery.name or "_".join([*path.parts[-depth:-1], path.stem]).strip("/_")
            for one, path in zip(found, paths, strict=True)
        ]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if not twice:
            break
    else:
        raise ConfigError(
            f"scenes: {twice[0]} is there twice; leave one out, or correct the patterns"
        )
    return [
        dataclasses.replace(one, imagery=dataclasses.replace(one.imagery, name=name))
        for one, name in zip(found, names, strict=True)
    ]
