"""Pictures of a store: samples beside their labels, and which ground belongs to which part."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from swath.data.draw import uniform
from swath.data.mosaic import mosaic
from swath.data.palette import class_colours, coloured
from swath.data.split import PARTS, Part, Selection, Split, select
from swath.data.stretch import colour_bands, limits_of, shown, stretch

if TYPE_CHECKING:
    from swath.data.store import Store

PART_COLOURS = {"train": "#2b6cb0", "val": "#e0a100", "test": "#c53030"}
_MAP_PIXELS = 40_000_000  # larger grounds are drawn by the outlines of their samples


def chips_picture(
    store: Store,
    path: str | os.PathLike[str],
    n: int = 12,
    part: Part = "train",
    *,
    split: Split | None = None,
    colour: str | tuple[str, ...] = "true",
) -> None:
    """Write a picture of ``n`` samples of ``part``, drawn at random, each beside its label; of
    masks drawn among those with most classes.

    Of a mask or raster, only the pixels that belong to the part are shown.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    selection = select(store, split, part)
    label = store.contents.label
    count = min(n, len(selection.indices))
    among = _telling(selection, count)
    luck = uniform(0, among, "picture")[:, 0]
    chosen = _apart(store, among[np.argsort(luck, kind="stable")], count)
    modality = max(store.contents.modalities, key=lambda m: (m.height, len(m.sensor.bands)))
    groups = (selection.grouping,) if selection.grouping else ()
    read = store.read(chosen, (modality.name,), groups=groups).result()
    limits = limits_of(store, modality, chosen, colour)
    pixels = label.per_pixel
    across = min(count, 4 if pixels else 6)
    rows = -(-count // across)
    wide = 2 if pixels else 1
    figure = Figure(figsize=(1.75 * across * wide, 1.95 * rows + 0.7), layout="constrained")
    axes = figure.subplots(rows, across * wide, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for place, index in enumerate(chosen.tolist()):
        image = axes[place * wide]
        image.imshow(shown(read[modality.name][place], modality, limits[place], colour))
        image.set_title(_title(store, read, place, index), fontsize=7)
        if store.contents.centred:  # the label is this pixel's
            image.plot(modality.width // 2, modality.height // 2, "s", mfc="none", mec="#ff00ff")
        if pixels:
            group = read[f"groups/{groups[0]}"][place] if groups else None
            _draw_label(
                axes[place * wide + 1], selection.restrict(read["label"][place], group), store
            )
    bands = ", ".join(colour_bands(modality.sensor, colour))
    having = " with a label in it" if pixels and len(selection.indices) < store.samples else ""
    told = f"{part}: {count} of {len(selection.indices)} samples{having}"
    if len(among) < len(selection.indices):
        told += f", among the {len(among)} with most classes"
    figure.suptitle(f"{told}; {bands}, {stretch(store)}", fontsize=9)
    if label.kind == "mask":
        colours = class_colours(label)
        handles = [
            Patch(color=c, label=name) for c, name in zip(colours, label.classes, strict=True)
        ]
        handles.append(Patch(facecolor="white", edgecolor="grey", label="no label, or other part"))
        figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=8)
    figure.savefig(path, dpi=130)


def _telling(selection: Selection, count: int) -> np.ndarray:
    """Return the samples to draw from: of masks the quarter with most classes, of as many those
    with most labelled pixels, and ``count`` at least; else all."""
    indices = selection.indices
    if selection.store.contents.label.kind != "mask":
        return indices
    counts = selection.sample_counts()
    best = np.lexsort((indices, -counts.sum(1), -(counts > 0).sum(1)))
    return np.sort(indices[best[: max(count, len(indices) // 4)]])


def _apart(store: Store, indices: np.ndarray, count: int) -> np.ndarray:
    """Return the first ``count`` of ``indices`` that do not overlap, and of the others as many as
    are lacking, in the store's order."""
    ground, row, col, height, width = store.column("where")[indices].astype(np.int64).T
    kept: list[int] = []
    for i in range(min(1000, len(indices))):
        there = np.array(kept, np.int64)
        over = (ground[there] == ground[i]) & (ground[i] >= 0)
        over &= (abs(row[there] - row[i]) < height[i]) & (abs(col[there] - col[i]) < width[i])
        if not over.any():
            kept.append(i)
        if len(kept) == count:
            break
    rest = [i for i in range(len(indices)) if i not in kept]
    return np.sort(indices[[*kept, *rest[: count - len(kept)]]])


def _title(store: Store, read: dict[str, np.ndarray], place: int, index: int) -> str:
    """Return the name of a sample, or its end, and below the label, if it has one as a whole."""
    name = str(store.column("name")[index])
    shown = f"...{name[-25:]}" if len(name) > 28 else name
    return "\n".join(filter(None, [shown, _label(store, read, place)]))


def _label(store: Store, read: dict[str, np.ndarray], place: int) -> str:
    label = store.contents.label
    if label.kind == "class":
        value = int(read["label"][place])
        return textwrap.shorten(label.classes[value], 26) if value >= 0 else "no label"
    if label.kind == "flags":
        present = [label.classes[i] for i in np.flatnonzero(read["label"][place])]
        short = [textwrap.shorten(p, 28, placeholder="...") for p in present[:4]]
        return "\n".join(short + ["..."] * (len(present) > 4)) or "none"
    if label.kind == "value":
        pairs = zip(label.classes, read["label"][place], strict=True)
        return "\n".join(f"{n} {v:.3g} {label.unit}" for n, v in pairs)
    return ""


def _draw_label(axis: Any, value: np.ndarray, store: Store) -> None:
    label = store.contents.label
    if label.kind == "mask":
        axis.imshow(coloured(value, label), interpolation="nearest")
    else:
        axis.imshow(value[0], cmap="viridis", interpolation="nearest")
        axis.set_title(f"{label.classes[0]} {label.unit}", fontsize=7)
    axis.add_patch(_frame(value.shape[-1], value.shape[-2]))


def _frame(width: int, height: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor="grey", linewidth=0.8)


def split_picture(store: Store, path: str | os.PathLike[str], split: Split | None = None) -> None:
    """Write a picture of the largest ground coloured by part over grey imagery, beside the
    labelled samples or pixels of each class by part, if there are labels."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    chosen = split or Split(**store.attributes["split"])
    parts: dict[str, Selection] = {p: select(store, split, p) for p in PARTS}  # type: ignore[arg-type]
    where = store.column("where")
    placed = where[where[:, 0] >= 0, 0]
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    if len(placed):
        ground = int(np.bincount(placed).argmax())
        here = store.contents.grounds[ground]
        right = []
        if store.contents.label.kind == "none":
            figure.set_size_inches(9, min(max(8 * here.height / here.width, 2), 9) + 1.5)
            left = figure.subplots()
        else:
            left, *right = figure.subplots(1, 2, width_ratios=[3, 1])
        left.set_title(f"{here.name}: split by {chosen.by}, seed {chosen.seed}", fontsize=10)
        if here.height * here.width <= _MAP_PIXELS:
            _draw_map(left, store, ground, parts)
        else:
            _draw_outlines(left, where, ground, parts)
        left.set_xlabel("column (px)", fontsize=8)
        left.set_ylabel("row (px)", fontsize=8)
    else:
        right = [figure.subplots()]
        right[0].set_title(f"split by {chosen.by}, seed {chosen.seed}; places unknown", fontsize=10)
    for axis in right:
        _draw_counts(axis, store, parts)
    handles = [Patch(color=c, label=_key(parts[part])) for part, c in PART_COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    figure.savefig(path, dpi=130)


def _key(part: Selection) -> str:
    """Return the name of a part, and what it has where samples are not divided."""
    if part.store.contents.label.per_pixel:
        return part.part
    return f"{part.part}: {(count := len(part.indices))} sample{'s'[: count != 1]}"


def part_map(store: Store, ground: int, parts: dict[str, Selection]) -> np.ndarray:
    """Return the part of each labelled pixel of a ground, uint8 (H, W): TRAIN, VAL, TEST, NONE."""
    here = store.contents.grounds[ground]
    out = np.full((here.height, here.width), 255, np.uint8)
    grouping = next(iter(parts.values())).grouping
    per_pixel = store.contents.label.per_pixel
    if grouping is not None:
        groups, label = (
            mosaic(store, ground, grouping, grouping=True),
            mosaic(store, ground, "label"),
        )
        known = store.contents.label.known(label)
        for part, selection in parts.items():
            out[known & selection.member(groups)] = PARTS[part]
        return out
    where = store.column("where").astype(np.int64)
    for part, selection in parts.items():
        mine = selection.indices[where[selection.indices, 0] == ground]
        if per_pixel:
            label = mosaic(store, ground, "label", mine)
            out[store.contents.label.known(label)] = PARTS[part]
            continue
        for row, col, height, width in where[mine, 1:].tolist():
            if store.contents.centred:
                row, col, height, width = row + height // 2, col + width // 2, 1, 1
            out[max(row, 0) : row + height, max(col, 0) : col + width] = PARTS[part]
    return out


def _draw_map(axis: Any, store: Store, ground: int, parts: dict[str, Selection]) -> None:
    from matplotlib.colors import to_rgb

    modality = max(store.contents.modalities, key=lambda m: m.height)
    mine = np.flatnonzero(store.column("where")[:, 0] == ground)[:1]
    limits = limits_of(store, modality, mine)[0]
    grey = shown(mosaic(store, ground, modality.name), modality, limits).mean(2)
    picture = np.repeat(0.35 + 0.6 * grey[:, :, None], 3, axis=2)
    found = part_map(store, ground, parts)
    for part, number in PARTS.items():
        here = found == number
        picture[here] = 0.3 * picture[here] + 0.7 * np.array(to_rgb(PART_COLOURS[part]))
    axis.imshow(picture, interpolation="nearest" if picture.size < 1e6 else "antialiased")


def _draw_outlines(axis: Any, where: np.ndarray, ground: int, parts: dict[str, Selection]) -> None:
    for part, selection in parts.items():
        mine = where[selection.indices]
        mine = mine[mine[:, 0] == ground]
        row, col = mine[:, 1] + mine[:, 3] / 2, mine[:, 2] + mine[:, 4] / 2
        axis.scatter(col, row, s=6, marker="s", color=PART_COLOURS[part])
    axis.invert_yaxis()
    axis.set_aspect("equal")


def _draw_counts(axis: Any, store: Store, parts: dict[str, Selection]) -> None:
    label = store.contents.label
    counts = {part: selection.counts for part, selection in parts.items()}
    names = list(label.classes)
    if not len(counts["train"]):
        counts, names = {p: np.array([float(s.size)]) for p, s in parts.items()}, ["all"]
    start = np.zeros(len(names))
    for part, colour in PART_COLOURS.items():
        axis.barh(np.arange(len(names)), counts[part], left=start, color=colour)
        start = start + counts[part]
    axis.set_yticks(np.arange(len(names)), [textwrap.shorten(n, 30) for n in names], fontsize=7)
    axis.invert_yaxis()
    things = "pixels" if label.per_pixel else "samples"
    axis.set_xlabel(things if label.kind == "none" else f"labelled {things}", fontsize=8)
    axis.tick_params(axis="x", labelsize=7)
