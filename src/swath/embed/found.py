"""Places that were found for something: where they are, in words, in files, in a picture."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from swath.data.split import PARTS
from swath.embed.places import Places, feature
from swath.files import write_file, write_json

_NAMES = {number: name for name, number in PARTS.items()}


@dataclass(frozen=True, kw_only=True)
class Found:
    """One place, and the figure that brought it here."""

    rank: int
    """From 1; 0 is what others were compared with."""
    vector: int
    score: float
    sample: int
    name: str
    row: int
    col: int
    """Of the patch in its sample; 0, 0 of a whole sample."""
    lon: float | None
    lat: float | None
    """Of its middle, degrees; None: unknown."""
    part: str
    label: str
    """The class that it has; "" if none is known."""


def apart(places: Places, order: Iterable[int], count: int, taken: Sequence[int] = ()) -> list[int]:
    """Return ``taken`` and the first ``count`` vectors of ``order``, fewer if there are not so
    many, that have no ground in common with one before them."""
    chosen = list(taken)
    boxes = [places.box(number) for number in chosen]
    for number in map(int, order):
        if len(chosen) == len(taken) + count:
            break
        box = places.box(number)
        if number not in chosen and not any(box.meets(other) for other in boxes):
            chosen.append(number)
            boxes.append(box)
    return chosen


def found(
    places: Places, numbers: Sequence[int], scores: np.ndarray, first: int = 1
) -> list[Found]:
    """Return the places of vectors ``numbers`` in this order, ranked from ``first``.

    scores: of all vectors (n,).
    """
    table = places.table
    part, label = table.column("part"), table.column("label")
    names, classes = table.column("name"), table.plan["classes"]
    made = []
    for rank, number in enumerate(numbers, first):
        corners = places.corners(number)
        row, col = places.cell(number)
        made.append(
            Found(
                rank=rank,
                vector=number,
                score=round(float(scores[number]), 6),
                sample=places.sample(number),
                name=str(names[places.sample(number)]),
                row=row,
                col=col,
                lon=None if corners is None else round(float(np.mean(corners, 0)[0]), 7),
                lat=None if corners is None else round(float(np.mean(corners, 0)[1]), 7),
                part=_NAMES.get(int(part[number]), ""),
                label=classes[label[number]] if label[number] >= 0 else "",
            )
        )
    return made


def text(every: Sequence[Found], score: str) -> str:
    """Return the places as a table for the terminal. score: what the figure is called."""
    head = ("rank", score, "lon", "lat", "part", "label")
    wide = max(7, len(score))
    lines = [f"{{:>4}}  {{:>{wide}}}  {{:>10}}  {{:>9}}  {{:<5}}  {{:<14}}  name".format(*head)]
    for one in every:
        lon, lat = ("-" if v is None else f"{v:.5f}" for v in (one.lon, one.lat))
        rank = "-" if not one.rank else str(one.rank)
        place = one.name if not (one.row or one.col) else f"{one.name} ({one.row}, {one.col})"
        lines.append(
            f"{rank:>4}  {one.score:>{wide}.4f}  {lon:>10}  {lat:>9}  {one.part:<5}  "
            f"{one.label:<14}  {place}"
        )
    return "\n".join(lines)


def write(
    places: Places, every: Sequence[Found], score: str, beside: pathlib.Path
) -> list[pathlib.Path]:
    """Write ``beside`` with .csv, .geojson and .png; return the files.

    score: what the figure is called.
    """
    files = [beside.with_name(f"{beside.name}.{kind}") for kind in ("csv", "geojson", "png")]
    rows = [_facts(one, score) for one in every]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file(files[0], out.getvalue().encode())
    shapes = [feature(places.corners(one.vector), _facts(one, score)) for one in every]
    write_json(files[1], {"type": "FeatureCollection", "features": shapes})
    _draw(places, every, files[2])
    return files


def _facts(one: Found, score: str) -> dict[str, Any]:
    return {score if name == "score" else name: value for name, value in asdict(one).items()}


def _draw(places: Places, every: Sequence[Found], path: pathlib.Path) -> None:
    """Draw the chips of ``every`` place; a patch is framed in its chip."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    from swath.data.stretch import limits_of, shown

    store, table = places.store, places.table
    modality = max(store.contents.modalities, key=lambda m: (m.height, len(m.sensor.bands)))
    samples = np.array([one.sample for one in every])
    images = store.read(samples, (modality.name,), label=False).result()[modality.name]
    limits = limits_of(store, modality, samples)
    across = min(len(every), 6)
    rows = -(-len(every) // across)
    figure = Figure(figsize=(1.75 * across, 2.3 * rows), layout="constrained")
    axes = figure.subplots(rows, across, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, one, image, between in zip(axes, every, images, limits, strict=False):
        axis.imshow(shown(image, modality, between))
        title = f"{one.rank}: {one.score:.3f}" if one.rank else "query"
        axis.set_title(f"{title}\n{one.label}", fontsize=8, weight="normal" if one.rank else "bold")
        frame = (0, 0, modality.width, modality.height)
        if table.grid:
            side = table.plan["unit"] * modality.height / places.store.grid[0]
            frame = (one.col * side, one.row * side, side, side)
        if table.grid or not one.rank:
            left, top, wide, high = frame
            corner = (left - 0.5, top - 0.5)
            axis.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor="#ff00ff"))
    figure.savefig(path, dpi=130)
