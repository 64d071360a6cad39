"""Chips of many scenes: what `scenes` and `stac` have in common, once their files are known.

Every scene is a ground of its own. Scenes are surveyed first, several at a time (see ``_survey``);
then chips are cut as the builder asks for them, with the last few scenes held open.
"""

from __future__ import annotations

import logging
import pathlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from swath import here
from swath.config import ConfigError, plain
from swath.data.chip import Chip, Contents, Label, Modality, Where
from swath.data.dataset import Dataset
from swath.data.imagery import Scene
from swath.datasets._clouds import Clouds
from swath.datasets._footprints import same_place
from swath.datasets._labels import Burn, Labels, Raster
from swath.datasets._listed import Listed
from swath.datasets._survey import CLOUDY, OUTSIDE_AREA, UNSEEN, Survey, opened, survey
from swath.log import bar

log = logging.getLogger(__name__)

_OPEN = 4  # scenes whose files are open, and whose last tiles are in memory, at a time
OUTSIDE = "scenes outside the dates"


@dataclass(frozen=True, kw_only=True)
class Gather(Dataset):
    """How scenes are cut to chips, and which chips are taken."""

    labels: Labels | None = None
    """Where the labels are; "{scene}" in file or raster is the scene's name. None: chips without
    labels, for pretraining. A scene where none lies is left out."""

    chip: int = 64
    """Height and width of a chip in px."""

    stride: int | None = None
    """Px from one chip to the next; smaller than ``chip``, they overlap. None: ``chip``."""

    block_m: float | None = None
    """Edge in m of the squares of ground that a split by block keeps together. Chips are cut within
    them, from the lines on, so that none lies in two; a rest narrower than a chip is lost. None: a
    place, which is all scenes that overlap, is a block."""

    observed: float = 0.9
    """Share of a chip's pixels that must be observed in every band, 0..1; chips with less are left
    out. 0: none is, and scenes are not read before they are cut."""

    clouds: Clouds | None = None
    """Leave out cloudy chips; None: no cloud is looked for."""

    area: tuple[float, ...] | None = None
    """West, south, east and north in degrees: chips whose middle lies elsewhere are left out."""

    after: str | None = None
    """First date taken, such as 2018-06-01; None: any."""

    before: str | None = None
    """First date no longer taken, such as 2018-09-01; None: any."""

    licence: str = ""
    """Licence of imagery and labels, as it is to be stated."""

    source: str = ""
    """Attribution, as the licence wants it."""

    def __post_init__(self) -> None:
        if self.chip < 1:
            raise ConfigError(f"chip={self.chip}: a chip has at least 1 px")
        if self.stride is not None and not 1 <= self.stride <= self.chip:
            raise ConfigError(
                f"stride={self.stride}: chips of {self.chip} px would leave gaps, or never move "
                f"on; give 1..{self.chip}"
            )
        if not 0 <= self.observed <= 1:
            raise ConfigError(f"observed={self.observed:g} is not a share, 0..1")
        if self.block_m is not None and self.block_m <= 0:
            raise ConfigError(f"block_m={self.block_m:g} is not a size in m")
        if self.area is not None:
            _check_area(self.area)
        for name in ("after", "before"):
            _day(name, getattr(self, name))
        if self.after and self.before and self.after >= self.before:
            raise ConfigError(f"after={self.after} and before={self.before}: no date lies between")

    def surveyed(self) -> dict[str, Any]:
        """Return the settings that a survey of a scene depends on."""
        names = ("labels", "chip", "stride", "block_m", "observed", "clouds", "area")
        return {name: plain(getattr(self, name)) for name in names}

    def marks(self, image: Scene) -> Burn | Raster | None:
        """Return the labels of one scene; Elsewhere if none lies there."""
        if self.labels is None:
            return None
        named = {
            name: text.replace("{scene}", image.name)
            for name in ("file", "raster")
            if (text := getattr(self.labels, name)) is not None
        }
        return replace(self.labels, **named).open(image.grid)

    def within(self, found: list[Listed]) -> tuple[list[Listed], int]:
        """Return the scenes between ``after`` and ``before``, and how many are not."""
        if self.after is None and self.before is None:
            return found, 0
        for one in found:
            if one.imagery.when is None:
                raise ConfigError(
                    f"{one.imagery.path}: after and before need a date, and its name tells none; "
                    "say it beside path, such as when: 2018-07-01, or leave after and before out"
                )
        first, end = self.after or "0", self.before or "9999"
        kept = [one for one in found if first <= str(one.imagery.when) < end]
        return kept, len(found) - len(kept)


def _check_area(area: tuple[float, ...]) -> None:
    if len(area) != 4 or not (-180 <= area[0] < area[2] <= 180 and -90 <= area[1] < area[3] <= 90):
        raise ConfigError(
            f"area={list(area)} is not west, south, east and north in degrees, such as "
            "[12.4, 52.4, 12.8, 52.6]"
        )


def _day(name: str, text: str | None) -> None:
    import datetime

    if text is None:
        return
    try:
        datetime.date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{name}={text!r} is not a date such as 2018-06-01") from error


class Gathered:
    """The chips of many scenes, scene by scene, row by row; random access from any thread."""

    def __init__(
        self, how: Gather, scenes: list[Listed], notes: pathlib.Path | None, progress: bool
    ) -> None:
        self.how = how
        scenes, outside = how.within(scenes)
        if not scenes:
            raise ConfigError(
                f"none of {outside} scenes lies between after={how.after} and before={how.before}"
            )
        surveys = _surveyed(scenes, how, notes, progress)
        told = Counter({OUTSIDE: outside} if outside else {})
        for found in surveys:
            told.update(found.left_out)
        self.left_out = dict(told)
        """Why scenes and chips were left out -> how many."""
        kept = [i for i, found in enumerate(surveys) if found.chips]
        taken = sum(len(surveys[i].chips) for i in kept)
        log.info(
            "%d chips of %d scene%s%s",
            taken,
            len(kept),
            "s"[: len(kept) != 1],
            "; left out: " + ", ".join(f"{n} {why}" for why, n in told.items()) if told else "",
        )
        if not kept:
            raise ConfigError(_nothing(how, len(scenes), told))
        self._scenes = [scenes[i] for i in kept]
        self._surveys = [surveys[i] for i in kept]
        _check_alike(self._surveys)
        self._chips = [(n, i) for n, s in enumerate(self._surveys) for i in range(len(s.chips))]
        self._places = same_place([s.footprints(None)[0] for s in self._surveys])
        self._blocks = self._numbered()
        self._open: OrderedDict[int, Future[Any]] = OrderedDict()
        self._lock = threading.Lock()
        first = self._surveys[0]
        assert first.sensor is not None
        # Counts of all scenes are brought to the lowest offset: adding to them loses nothing.
        offsets = [s.sensor.offset for s in self._surveys if s.sensor is not None]
        sensor = replace(first.sensor, offset=min(offsets))
        self._more = [(offset - sensor.offset) / sensor.scale for offset in offsets]
        modality = Modality(
            name="image", sensor=sensor, height=how.chip, width=how.chip, dtype=first.dtype
        )
        self.contents = Contents(
            modalities=(modality,),
            label=first.label or Label(kind="none"),
            grounds=tuple(s.ground for s in self._surveys if s.ground is not None),
            groupings=("block", "place", "scene"),
            licence=how.licence,
            source=how.source,
        )

    def __len__(self) -> int:
        return len(self._chips)

    @property
    def origins(self) -> list[dict[str, str]]:
        """What each ground was read from: see :attr:`swath.data.store.Store.origins`."""
        return [found.content for found in self._surveys]

    def chip(self, index: int) -> Chip:
        """Return chip ``index`` with its label and the numbers of its block, place and scene."""
        number, which = self._chips[index]
        found = self._surveys[number]
        window = found.window(which, self.how.chip)
        image, marks = self._image(number)
        label = None if marks is None else marks.read(window)
        return Chip(
            name=f"{image.name}_{window.row}_{window.col}",
            images={"image": _raised(image, image.read(window), self._more[number])},
            label=label[0] if isinstance(label, tuple) else label,
            groups={
                "block": self._blocks[number][found.chips[which][2]],
                "place": self._places[number],
                "scene": number,
            },
            where=Where(number, window.row, window.col, window.height, window.width),
            when=image.when,
        )

    def _image(self, number: int) -> Any:
        """Return a scene and its labels; the last few stay open."""
        with self._lock:
            found = self._open.get(number)
            if found is not None:
                self._open.move_to_end(number)
            else:
                mine = self._open[number] = Future()
                while len(self._open) > _OPEN:
                    self._open.popitem(last=False)  # closed when nobody reads it any more
        if found is not None:
            return found.result()
        try:
            mine.set_result(opened(self._scenes[number], self.how))
        except BaseException as error:
            with self._lock:
                self._open.pop(number, None)
            mine.set_exception(error)
            raise
        return mine.result()

    def _numbered(self) -> list[list[int]]:
        """Return the numbers of each scene's squares: those on the same ground have one number."""
        if self.how.block_m is None:
            return [[place] for place in self._places]
        squares = [s.footprints(self.how.block_m) for s in self._surveys]
        numbers = iter(same_place([f for some in squares for f in some]))
        return [[next(numbers) for _ in some] for some in squares]


def _surveyed(
    scenes: Sequence[Listed], how: Gather, notes: pathlib.Path | None, progress: bool
) -> list[Survey]:
    with bar(progress, "scenes", len(scenes)) as step, ThreadPoolExecutor(here.cores()) as pool:

        def look(one: Listed) -> Survey:
            found = survey(one, how, notes)
            step()
            return found

        try:
            return list(pool.map(look, scenes))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _check_alike(surveys: Sequence[Survey]) -> None:
    """Raise ConfigError if scenes cannot lie in one store."""
    first, said = surveys[0], _said(surveys[0])
    for other in surveys[1:]:
        if _said(other) != said:
            assert first.ground is not None and other.ground is not None
            raise ConfigError(
                f"scenes differ: {first.ground.name} is {said}; {other.ground.name} is "
                f"{_said(other)}. A store has one kind of pixels: name bands that all have, give "
                "resolution_m (and nodata), or build a store of each kind"
            )


def _raised(image: Scene, pixels: np.ndarray, more: float) -> np.ndarray:
    """Return ``pixels``, as read of ``image``, with ``more`` counts where they were observed."""
    if not more:
        return pixels
    if pixels.dtype.kind == "f":
        return np.where(image.observed(pixels), pixels + pixels.dtype.type(more), pixels)
    raised = np.minimum(pixels.astype(np.int64) + round(more), np.iinfo(pixels.dtype).max)
    raised -= raised == image.sensor.nodata
    return np.where(image.observed(pixels), raised.astype(pixels.dtype), pixels)


def _said(one: Survey) -> str:
    assert one.sensor is not None
    size = f"{one.pixel_m:.3g}"
    nodata = one.sensor.nodata if one.sensor.nodata is None else f"{one.sensor.nodata:g}"
    labels = f", classes {', '.join(one.label.classes)}" if one.label else ""
    return (
        f"{one.sensor.name} {one.dtype} with bands {', '.join(one.sensor.names)} in pixels of "
        f"{size}, {one.sensor.scale:g} a count, no-data {nodata}{labels}"
    )


def _nothing(how: Gather, scenes: int, told: Counter[str]) -> str:
    why = ", ".join(f"{n} {reason}" for reason, n in told.items()) or "no reason is known"
    mend = []
    if told[CLOUDY] and how.clouds is not None:
        mend.append(f"allow more cloud than clouds.most={how.clouds.most:g}")
    if told[OUTSIDE_AREA]:
        mend.append("correct area, which is west, south, east, north")
    if told[UNSEEN]:
        mend.append(f"ask for less than observed={how.observed:g}")
    mend.append("make chip smaller" if not mend else "take other dates")
    return f"nothing is left of {scenes} scenes: {why}; {', or '.join(mend)}"
