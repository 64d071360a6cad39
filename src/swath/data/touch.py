"""How near the test is to what was trained on: what a score must be read with.

Two shares of the test windows are told: of those that touch training pixels, and of those that show
an object (a polygon, a region) of which another piece was trained on. A split by blocks brings the
first to 0 and not the second, for the line between two blocks may run through a field.

A window is the footprint of a sample on its ground. Training pixels are the labelled ones of the
training part if labels are per pixel; the centre pixels if a label is that of a window's centre;
otherwise the footprints of training samples. Edges that merely meet do not touch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from swath.data.split import Selection
    from swath.data.store import Store

OBJECTS = ("polygon", "region")
"""Groupings whose groups are things on the ground, which a split by something else may cut."""

_BATCH = 256  # samples read at a time


@dataclass(frozen=True)
class CutObjects:
    """What lies on both sides of the line between training and a part to test on."""

    grouping: str
    """Which objects: one of OBJECTS."""
    tested: int
    """Objects that have something labelled in the test part."""
    both: int
    """Those of them that have something labelled in the training part too."""
    share: float
    """Test windows with such an object, as a share of all."""


def nearness(test: Selection, train: Selection) -> dict[str, float | None]:
    """Return the shares by the names that figures have: share_touching (None if unknown) and,
    where the store knows objects, share_same_object."""
    found: dict[str, float | None] = {"share_touching": share_touching(test, train)}
    cut = cut_objects(test, train)
    return found if cut is None else {**found, "share_same_object": cut.share}


def cut_objects(test: Selection, train: Selection) -> CutObjects | None:
    """Return which objects of ``test`` are trained on as well; None if the store knows no objects,
    or ``test`` is empty."""
    groupings = test.store.contents.groupings
    grouping = next((name for name in OBJECTS if name in groupings), None)
    if grouping is None or not len(test.indices):
        return None
    windows, seen = _objects(test, grouping)
    trained = np.isin(seen, np.unique(_objects(train, grouping)[1]))
    return CutObjects(
        grouping,
        tested=len(np.unique(seen)),
        both=len(np.unique(seen[trained])),
        share=len(np.unique(windows[trained])) / len(test.indices),
    )


def _objects(selection: Selection, grouping: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which objects have something labelled in ``selection``, and in which sample: pairs
    (sample, object), int64 (m,) each."""
    store = selection.store
    if grouping not in store.contents.grouped_pixels:
        group = store.column(f"groups/{grouping}")[selection.indices].astype(np.int64)
        return selection.indices[group >= 0], group[group >= 0]
    pairs = [np.zeros((0, 2), np.int64)]
    for some, read, known in _known(selection, selection.indices, (grouping,)):
        group = read[f"groups/{grouping}"]
        place, row, col = np.nonzero(known & (group >= 0))
        pairs.append(np.unique(np.stack([some[place], group[place, row, col]], 1), axis=0))
    sample, group = np.concatenate(pairs).T
    return sample, group


def share_touching(test: Selection, train: Selection) -> float | None:
    """Return the share of ``test``'s windows that touch pixels of ``train`` on the Earth, seen at
    whatever time.

    None if no window of ``test`` lies on a known ground.
    """
    ground = test.store.column("where")[test.indices, 0]
    if not (ground >= 0).any():
        return None
    where = _placed(test.store)
    tested, trained = where[test.indices], where[train.indices]
    touching = 0
    for number in np.unique(ground[ground >= 0]):
        here = tested[ground == number]
        frame, (top, left) = here[0, 0], here[:, 1:3].min(0)
        bottom, right = (here[:, 1:3] + here[:, 3:]).max(0)
        near = (trained[:, 0] == frame) & (trained[:, 1] < bottom) & (trained[:, 2] < right)
        near &= (trained[:, 1] + trained[:, 3] > top) & (trained[:, 2] + trained[:, 4] > left)
        if not near.any():
            continue
        if test.store.contents.label.per_pixel:
            hit = _over_pixels(here[:, 1:], train, train.indices[near], where[:, 1:])
        else:
            boxes = trained[near, 1:]
            if test.store.contents.centred:
                centre = boxes[:, :2] + boxes[:, 2:] // 2
                boxes = np.concatenate([centre, np.ones_like(centre)], axis=1)
            hit = _over_boxes(here[:, 1:], boxes)
        touching += int(hit.sum())
    return touching / int((ground >= 0).sum())


def _placed(store: Store) -> np.ndarray:
    """Return (frame, row, col, height, width) of each sample, int64 (n, 5), -1 where it has no
    place: grounds with pixels of one size in one CRS, such as a scene's at two dates, are one frame
    (pixels that are part of a pixel apart are taken to be the nearest)."""
    where = store.column("where").astype(np.int64)
    frames: dict[object, tuple[int, float, float]] = {}
    moved = np.zeros((len(store.contents.grounds) + 1, 3), np.int64)
    moved[-1] = -1, 0, 0  # of ground -1, for samples without a place
    for number, ground in enumerate(store.contents.grounds):
        a, b, c, d, e, f = ground.transform or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
        straight = ground.crs is not None and ground.transform is not None and not (b or d)
        frame = frames.setdefault((ground.crs, a, e) if straight else number, (number, c, f))
        moved[number] = frame[0], round((f - frame[2]) / e), round((c - frame[1]) / a)
    shift = moved[where[:, 0]]
    where[:, 0] = shift[:, 0]
    where[:, 1:3] += shift[:, 1:]
    return where


def _over_boxes(windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return which of ``windows`` overlap any of ``boxes``; rows (row, col, height, width)."""
    import shapely

    def shapes(rows: np.ndarray) -> np.ndarray:
        top, left, height, width = rows.T.astype(np.float64)
        inset = 0.25  # of a pixel, so that edges that meet do not intersect
        return shapely.box(left + inset, top + inset, left + width - inset, top + height - inset)

    tree = shapely.STRtree(shapes(boxes))
    found, _ = tree.query(shapes(windows), predicate="intersects")
    hit = np.zeros(len(windows), bool)
    hit[found] = True
    return hit


def _over_pixels(
    windows: np.ndarray, train: Selection, trained: np.ndarray, where: np.ndarray
) -> np.ndarray:
    """Return which of ``windows`` contain a labelled pixel of ``train``'s samples ``trained``."""
    every = np.concatenate([windows, where[trained]])
    top, left = every[:, :2].min(0)
    bottom, right = (every[:, :2] + every[:, 2:]).max(0)
    pixels = np.zeros((bottom - top, right - left), bool)
    for (row, col, height, width), known in _labelled(train, trained, where):
        row, col = row - top, col - left
        pixels[row : row + height, col : col + width] |= known
    total = np.zeros((pixels.shape[0] + 1, pixels.shape[1] + 1), np.int64)
    total[1:, 1:] = pixels.cumsum(0, dtype=np.int64).cumsum(1)
    y0, x0 = windows[:, 0] - top, windows[:, 1] - left
    y1, x1 = y0 + windows[:, 2], x0 + windows[:, 3]
    return total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0] > 0


def _known(
    selection: Selection, indices: np.ndarray, groups: tuple[str, ...] = ()
) -> Iterator[tuple[np.ndarray, dict[str, Any], np.ndarray]]:
    """Yield some of ``indices``, what was read of them, and their labelled pixels (b, h, w)."""
    own = selection.grouping
    every = tuple({*groups, *([own] if own else [])})
    for start in range(0, len(indices), _BATCH):
        some = indices[start : start + _BATCH]
        read = selection.store.read(some, modalities=(), label=True, groups=every).result()
        label = selection.restrict(read["label"], read[f"groups/{own}"] if own else None)
        yield some, read, selection.store.contents.label.known(label)


def _labelled(
    selection: Selection, indices: np.ndarray, where: np.ndarray
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yield (row, col, height, width), as in ``where``, and (h, w) bool of the labelled pixels of
    each of ``indices``."""
    for some, _, known in _known(selection, indices):
        for index, one in zip(some, known, strict=True):
            place = where[index].tolist()
            # A label finer or coarser than the ground counts for the ground's pixels it covers.
            y = np.arange(place[2]) * one.shape[0] // place[2]
            x = np.arange(place[3]) * one.shape[1] // place[3]
            yield place, one[y][:, x]
