"""Labels of a scene: vectors burnt on its grid, or a raster brought to it.

Vectors are burnt window by window, so that a scene of any size fits in memory. A pixel belongs to
one feature: of those that cover its centre the smallest, and of equally large ones the later in
the file, so that a pond stays visible in its park.
"""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from swath.config import ConfigError, NoSuch, no_such
from swath.data.chip import IGNORE, Label
from swath.geo import warp
from swath.geo.channel import Channel, File
from swath.geo.raster import extent, extent_of
from swath.geo.window import Window, windows

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox


_FEW = 20  # values of a column that may each be a class, however few features have them


class Elsewhere(ConfigError):
    """No label lies in the scene."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What is known on the ground: a vector file, or a raster."""

    file: str | None = None
    """A vector file of any format that OGR reads (GeoPackage, Shapefile, GeoJSON, ...)."""

    layer: str | None = None
    """Layer of the vector file; None: its only one."""

    column: str | None = None
    """Column of the vector file whose values tell the class."""

    raster: str | None = None
    """A raster whose pixels tell the class, or hold the ``quantity``."""

    channel: int = 1
    """Channel of the raster, counted from 1."""

    classes: dict[str, str] | None = None
    """Value -> class name, in the order of the class ids; several values may share a class.
    None: each value of a vector column is a class, in alphabetical order; a column of measurements,
    or of names that hardly any two features share, is refused."""

    colours: tuple[str, ...] = ()
    """Colour "#rrggbb" of each class; empty: chosen."""

    others: Literal["error", "ignore"] = "error"
    """Values that ``classes`` does not name are an error, or unlabelled: "ignore" is for a raster
    in which 0, say, means that nothing is known."""

    all_touched: bool = False
    """Burn every pixel that a feature touches, not only those whose centre it covers."""

    on_top: Literal["smaller", "later"] = "smaller"
    """Which of overlapping features a pixel belongs to: the smaller, or the later in the file."""

    quantity: str | None = None
    """Name of the quantity in the raster, such as "tree cover": numbers to regress, not classes."""

    unit: str = ""
    """Unit of the quantity."""

    nodata: float | None = None
    """Raster value that means "unknown"; None: as the raster says."""

    def __post_init__(self) -> None:
        if (self.file is None) == (self.raster is None):
            raise ConfigError(
                "labels need either file (vectors) or raster, and not both: "
                "{file: fields.gpkg, column: crop}, or {raster: classes.tif, classes: {1: water, "
                "2: forest}}"
            )
        if self.file is not None:
            if self.column is None:
                raise ConfigError(
                    f"labels: say which column of {self.file} tells the class, such as column: crop"
                )
            self._idle("raster", channel=1, quantity=None, unit="", nodata=None)
        else:
            self._idle("file", layer=None, column=None, all_touched=False, on_top="smaller")
            if (self.classes is None) == (self.quantity is None):
                raise ConfigError(
                    f"labels: a raster needs either classes or quantity: {{raster: {self.raster}, "
                    "classes: {1: water, 2: forest}} with the values in it and their names, or "
                    f"{{raster: {self.raster}, quantity: tree cover}} for numbers to regress"
                )
            if self.quantity is not None:
                self._idle("classes", colours=(), others="error")
            elif self.unit:
                raise ConfigError("labels: unit has no effect without quantity")
        names = self.names if self.classes else ()
        if self.colours and self.classes and len(self.colours) != len(names):
            raise ConfigError(f"labels: {len(self.colours)} colours for {len(names)} classes")
        if len(names) > IGNORE:
            raise ConfigError(f"labels: {len(names)} classes; at most {IGNORE} fit")

    def _idle(self, other: str, **defaults: Any) -> None:
        for name, default in defaults.items():
            if getattr(self, name) != default:
                raise ConfigError(f"labels: {name} has no effect; it belongs to {other}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their ids."""
        return tuple(dict.fromkeys((self.classes or {}).values()))

    def open(self, grid: GeoBox) -> Burn | Raster:
        """Return the labels on ``grid``; ConfigError if they cannot be read or lie elsewhere."""
        return Burn(self, grid) if self.file is not None else Raster(self, grid)


class Burn:
    """Features of a vector file on a grid: class and feature of each pixel."""

    def __init__(self, labels: Labels, grid: GeoBox) -> None:
        import shapely

        self._grid, self._all_touched = grid, labels.all_touched
        shapes, values, real = _features(labels, grid)
        names = labels.names
        known = dict(labels.classes or {})
        found = sorted(set(values.tolist()))
        if labels.classes is None:
            _check_classes(labels, found, len(values), real)
            names, known = tuple(found), {value: value for value in found}
            if labels.colours and len(labels.colours) != len(names):
                raise ConfigError(
                    f"labels: {len(labels.colours)} colours, but column {labels.column} of "
                    f"{labels.file} has {len(names)} values: {', '.join(names[:12])}"
                )
        _check_values(f"{labels.file}: column {labels.column}", found, known, labels.others)
        keep = np.array([value in known for value in values.tolist()], bool)
        shapes, values = shapes[keep], values[keep]
        inside = shapely.intersects(shapes, shapely.box(*tuple(grid.extent.boundingbox)[:4]))
        if not inside.any():
            import pyogrio
            import pyproj

            there = pyogrio.read_info(labels.file, layer=labels.layer)
            covered = extent_of(there["total_bounds"], pyproj.CRS(there["crs"]))
            raise Elsewhere(
                f"{labels.file}: none of {len(shapes)} labelled features lies in the scene: they "
                f"cover {covered}, the scene {extent(grid)}; one of them has a wrong "
                "CRS, or is of another place"
            )
        order = np.arange(int(inside.sum()))
        if labels.on_top == "smaller":
            order = np.argsort(-shapely.area(shapes[inside]), kind="stable")
        self._shapes = shapes[inside][order]
        self._tree = shapely.STRtree(self._shapes)
        ids = {name: number for number, name in enumerate(names)}
        # One more at the end, for pixels of no feature (-1).
        self._class = np.array(
            [ids[known[value]] for value in values[inside][order].tolist()] + [IGNORE], np.uint8
        )
        self.label = Label(kind="mask", classes=names, colours=labels.colours)
        self.features = len(self._shapes)

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Return class ids (h, w) uint8 and feature numbers (h, w) int32, -1 for none."""
        import rasterio.features
        import shapely

        part = warp.crop(self._grid, window)
        touched = np.sort(self._tree.query(shapely.box(*tuple(part.extent.boundingbox)[:4])))
        owner = np.full((window.height, window.width), -1, np.int32)
        if len(touched):
            rasterio.features.rasterize(
                ((self._shapes[i], int(i)) for i in touched),
                out=owner,
                transform=part.affine,
                all_touched=self._all_touched,
            )
        return self._class[owner], owner


class Raster:
    """A raster of classes or numbers on a grid."""

    def __init__(self, labels: Labels, grid: GeoBox) -> None:
        assert labels.raster is not None
        self._grid, self._labels = grid, labels
        self._channel = Channel(File(labels.raster), labels.channel, labels.nodata)
        if warp.source_window(grid, self._channel.grid, 0) is None:
            raise Elsewhere(
                f"{labels.raster}: the label raster lies elsewhere than the scene: it covers "
                f"{extent(self._channel.grid)}, the scene {extent(grid)}; one of them has a wrong "
                "CRS, or is of another place"
            )
        if labels.quantity is not None:
            self.label = Label(kind="raster", classes=(labels.quantity,), unit=labels.unit)
            return
        names = labels.names
        known = {_number(text): names.index(name) for text, name in (labels.classes or {}).items()}
        found = _values(self._channel)
        where = f"{labels.raster}: channel {labels.channel}"
        _check_values(where, found, known, labels.others)
        self._from = np.array(sorted(known))
        self._to = np.array([known[value] for value in self._from], np.uint8)
        self.label = Label(kind="mask", classes=names, colours=labels.colours)

    def read(self, window: Window) -> np.ndarray:
        """Return class ids (h, w) uint8, or numbers (1, h, w) float32, NaN where unknown."""
        if self.label.kind == "raster":
            # Real numbers, so that a finer grid is not given steps by rounding.
            values, observed = self._channel.on(
                self._grid, window, "bilinear", np.dtype(np.float32)
            )
            return np.where(observed, values, np.float32(np.nan))[None]
        values, observed = self._channel.on(self._grid, window, "nearest")
        place = np.searchsorted(self._from, values).clip(max=len(self._from) - 1)
        known = observed & (self._from[place] == values)
        return np.where(known, self._to[place], np.uint8(IGNORE))


def _features(labels: Labels, grid: GeoBox) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the geometries in the CRS of ``grid``, the values of the column as text, and whether
    they are real numbers in the file."""
    import pyogrio
    import pyproj
    import shapely
    from pyogrio.errors import DataSourceError

    assert labels.file is not None
    path, column = pathlib.Path(labels.file), labels.column
    if not path.exists():
        raise no_such(path)
    try:
        layers = [str(name) for name, _ in pyogrio.list_layers(path)]
        if labels.layer is None and len(layers) > 1:
            raise ConfigError(f"{path}: choose a layer of {', '.join(layers)}")
        if labels.layer is not None and labels.layer not in layers:
            raise ConfigError(f"{path}: no layer {labels.layer!r}; there are {', '.join(layers)}")
        fields = [str(name) for name in pyogrio.read_info(path, layer=labels.layer)["fields"]]
        if column not in fields:
            raise NoSuch(f"{path}: no column {column!r}; there are {', '.join(fields)}", column)
        meta, _, geometry, (values,) = pyogrio.raw.read(
            path, layer=labels.layer, columns=[column], datetime_as_string=True
        )
    except DataSourceError as error:
        raise ConfigError(f"{path}: is not a vector file, or is damaged ({error})") from error
    if meta["crs"] is None:
        raise ConfigError(f"{path}: has no coordinate reference system; write one into the file")
    shapes = shapely.from_wkb(geometry)
    there = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    there &= np.array([value is not None and value == value for value in values], bool)
    shapes, values = shapes[there], values[there]
    source, target = pyproj.CRS(meta["crs"]), pyproj.CRS(str(grid.crs))
    if source != target:
        move = pyproj.Transformer.from_crs(source, target, always_xy=True)
        shapes = shapely.transform(
            shapes, lambda points: np.column_stack(move.transform(*points.T))
        )
    real = values.dtype.kind == "f"
    return shapes, np.array([_text(value) for value in values], dtype=object), real


def _text(value: Any) -> str:
    """Write 3.0 as "3", as it stands in a settings file."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"labels.classes: {text!r} is not a pixel value of the raster") from error


def _values(channel: Channel) -> list[float]:
    """Return the values that occur in a label raster, sorted; reads it once, piece by piece."""
    found: set[float] = set()
    for window in windows(channel.file.height, channel.file.width, 1024, 1024):
        values, observed = channel.pixels(window)
        found.update(np.unique(values[observed]).tolist())
        if len(found) > 4096:
            raise ConfigError(
                f"{channel.file.path}: channel {channel.number} has more than 4096 values; is it "
                "classes? Give quantity, not classes, for a raster of numbers"
            )
    return sorted(found)


def _check_classes(labels: Labels, found: list[str], features: int, real: bool) -> None:
    """Raise ConfigError if the values of a column cannot be classes: they are measurements
    (``real``, with fractions), or names of features. With ``classes``, a user says that they are.
    """
    fractions = [text for text in found if real and not float(text).is_integer()]
    unique = len(found) > _FEW and 2 * len(found) > features
    if not fractions and not unique and len(found) <= IGNORE:
        return
    why = f"and at most {IGNORE} classes fit"
    if fractions:
        why = "which are numbers with fractions, not classes"
    elif unique:
        why = "which names features rather than classes"
    some = ", ".join([*fractions, *found][:3])
    raise ConfigError(
        f"{labels.file}: column {labels.column} has {len(found)} different values in {features} "
        f"features ({some}, ...), {why}. Name another column, or say "
        f"with classes which class each value stands for ({{{found[0]}: first, {found[-1]}: "
        "second}). To regress numbers, burn them into a raster (gdal_rasterize -a "
        f"{labels.column}) and give {{raster: FILE, quantity: {labels.column}}}"
    )


def _check_values(where: str, found: list, known: dict, others: str) -> None:
    strange = [value for value in found if value not in known]
    if strange and others == "error":
        shown = ", ".join(_text(value) for value in strange[:12])
        more = f" and {len(strange) - 12} more" if len(strange) > 12 else ""
        raise ConfigError(
            f"{where} has values outside the class map: {shown}{more}; add them to classes or, if "
            f"{'it means' if len(strange) == 1 else 'they mean'} that the class is not known, set "
            "others: ignore beside classes"
        )
    if not any(value in known for value in found):
        raise ConfigError(
            f"{where} has none of the classes' values {', '.join(_text(v) for v in known)}; it has "
            f"{', '.join(_text(value) for value in found[:12]) or 'no values at all'}"
        )
