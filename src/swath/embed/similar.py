"""Places like this one: the samples, or patches, whose vectors have the largest cosine with it.

The mean of all vectors is taken off first: what all places have in common says nothing, and would
bring every cosine near to 1.

Neighbours in a store often overlap, and what shows the same ground is alike by necessity. So none
of the places found has ground in common with the query, or with a better one.
"""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from swath.config import ConfigError
from swath.data.split import PARTS
from swath.embed.neighbours import unit
from swath.embed.places import Places, feature
from swath.embed.table import Table
from swath.files import write_file, write_json
from swath.predict.settings import stem

_NAMES = {number: name for name, number in PARTS.items()}


@dataclass(frozen=True, kw_only=True)
class Match:
    """One place, and how like the query it is; the query itself is the first, of rank 0."""

    rank: int
    vector: int
    cosine: float
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


def similar(places: Places, query: int, count: int) -> list[Match]:
    """Return the vector ``query`` and the ``count`` places that are most like it, best first.

    Equal ones come in the order of the table. ConfigError if there are not so many.
    """
    if count < 1:
        raise ConfigError(f"--count {count}: ask for one place at least")
    table = places.table
    mean = mean_of(table)
    asked = unit(table.vectors(np.array([query])) - mean)[0]
    cosine = np.concatenate([unit(block - mean) @ asked for _, block in table.blocks()])
    taken, boxes = [query], [places.box(query)]
    for number in np.argsort(-cosine, kind="stable").tolist():
        box = places.box(number)
        if number == query or any(box.meets(other) for other in boxes):
            continue
        taken.append(number)
        boxes.append(box)
        if len(taken) == count + 1:
            break
    if len(taken) <= count:
        raise ConfigError(
            f"--count {count}: {table.path} has {len(taken) - 1} places that overlap neither the "
            "query nor one another; ask for fewer"
        )
    part, label = table.column("part"), table.column("label")
    names, classes = table.column("name"), table.plan["classes"]
    found = []
    for rank, number in enumerate(taken):
        corners = places.corners(number)
        row, col = places.cell(number)
        found.append(
            Match(
                rank=rank,
                vector=number,
                cosine=round(float(cosine[number]), 6),
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
    return found


def mean_of(table: Table) -> np.ndarray:
    """Return the mean of all vectors of ``table``, float64 (d,)."""
    total, count = np.zeros(table.width), 0
    for _, block in table.blocks():
        total += block.sum(0, dtype=np.float64)
        count += len(block)
    return total / count


def text(matches: Sequence[Match]) -> str:
    """Return the matches as a table for the terminal."""
    head = ("rank", "cosine", "lon", "lat", "part", "label")
    lines = ["{:>4}  {:>7}  {:>10}  {:>9}  {:<5}  {:<14}  name".format(*head)]
    for one in matches:
        lon, lat = ("-" if v is None else f"{v:.5f}" for v in (one.lon, one.lat))
        rank = "-" if not one.rank else str(one.rank)
        place = one.name if not (one.row or one.col) else f"{one.name} ({one.row}, {one.col})"
        lines.append(
            f"{rank:>4}  {one.cosine:>7.4f}  {lon:>10}  {lat:>9}  {one.part:<5}  {one.label:<14}  "
            f"{place}"
        )
    return "\n".join(lines)


def write(places: Places, matches: Sequence[Match], asked: str) -> list[pathlib.Path]:
    """Write csv, geojson and png beside the table; return the files. asked: the query in words."""
    table = places.table
    beside = table.path.with_name(f"{table.path.stem}-like-{stem(asked)}")
    files = [beside.with_name(f"{beside.name}.{kind}") for kind in ("csv", "geojson", "png")]
    rows = [asdict(one) for one in matches]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file(files[0], out.getvalue().encode())
    features = [feature(places.corners(one.vector), asdict(one)) for one in matches]
    write_json(files[1], {"type": "FeatureCollection", "features": features})
    _draw(places, matches, files[2])
    return files


def _draw(places: Places, matches: Sequence[Match], path: pathlib.Path) -> None:
    """Draw the chips of ``matches``, the query first; a patch is framed in its chip."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    from swath.data.picture import shown
    from swath.data.stats import unplain

    store, table = places.store, places.table
    modality = max(store.contents.modalities, key=lambda m: (m.height, len(m.sensor.bands)))
    images = store.read([one.sample for one in matches], (modality.name,), label=False).result()
    stats = unplain(store.attributes["stats"])[modality.name]
    across = min(len(matches), 6)
    rows = -(-len(matches) // across)
    figure = Figure(figsize=(1.75 * across, 2.3 * rows), layout="constrained")
    axes = figure.subplots(rows, across, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, one, image in zip(axes, matches, images[modality.name], strict=False):
        axis.imshow(shown(image, modality, stats))
        title = f"{one.rank}: {one.cosine:.3f}" if one.rank else "query"
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
