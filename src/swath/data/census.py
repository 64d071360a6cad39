"""Who is where: how many labelled things of which class each group has in each sample.

A labelled thing is a sample, or a pixel if the label is a mask or a raster. One census per way
of grouping is taken when a store is built and kept in its attributes; after that any split, its
samples and its class counts follow without reading a label again. Chips that overlap count their
common pixels each.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from swath.data.chip import Label

SAMPLES = "samples"
"""Name of the census in which every sample is a group of its own."""

ANY = -1
"""Class of the rows that count labelled things of whatever class; see :class:`Census`."""


@dataclass(frozen=True)
class Census:
    """Rows (sample, group, class, count), all int64 (m,), sorted, no pair of them alike.

    For class and mask, each labelled thing is in one row. A sample may have several flags, or
    none: its flags have rows, and it has a row of class ANY, which is what counts samples.
    value, raster and none have only rows of class ANY.
    """

    sample: np.ndarray
    group: np.ndarray
    kind: np.ndarray  # class id, or ANY
    count: np.ndarray


def count(
    label: Label, indices: np.ndarray, labels: np.ndarray | None, groups: np.ndarray | None
) -> Census:
    """Return the census of samples ``indices`` with their ``labels`` (b, ...).

    groups: (b,) or (b, h, w) ints, -1 for none; None: every sample is its own group. A group of
        a sample whose label is a mask or a raster holds all its labelled pixels.
    """
    batch = len(indices)
    indices = np.asarray(indices, np.int64)
    if label.kind == "flags":
        assert labels is not None
        sample, kind = np.nonzero(labels)
        sample = np.concatenate([sample, np.arange(batch)])
        kind = np.concatenate([kind, np.full(batch, ANY)])
    elif label.kind == "class":
        assert labels is not None
        sample = np.flatnonzero(labels >= 0)
        kind = labels[sample].astype(np.int64)
    elif label.per_pixel:
        assert labels is not None
        known = label.known(labels)
        sample, row, col = np.nonzero(known)
        kind = labels[known].astype(np.int64) if label.kind == "mask" else np.full(len(sample), ANY)
    else:
        sample, kind = np.arange(batch), np.full(batch, ANY)
    if groups is None:
        group = indices[sample]
    elif groups.ndim == 1:
        group = groups[sample].astype(np.int64)
    elif label.per_pixel:
        group = groups[sample, row, col].astype(np.int64)
    else:
        raise ValueError(f"pixels are grouped, but the label is a {label.kind}")
    kept = group >= 0
    ones = np.ones(int(kept.sum()), np.int64)
    return _tallied(indices[sample][kept], group[kept], kind[kept], ones)


def _tallied(sample: np.ndarray, group: np.ndarray, kind: np.ndarray, number: np.ndarray) -> Census:
    # One integer per row sorts many times faster than three columns. Products fit 63 bits: up to
    # 2^27 samples, 2^27 groups of a store, 2^9 classes; larger ones fall back to columns.
    group_span, kind_span = int(group.max(initial=0)) + 1, int(kind.max(initial=0)) + 2
    if (int(sample.max(initial=0)) + 1) * group_span * kind_span < 2**63:
        key = (sample * group_span + group) * kind_span + kind + 1
        found, place = np.unique(key, return_inverse=True)
        rest, kinds = np.divmod(found, kind_span)
        samples, groups = np.divmod(rest, group_span)
        kinds = kinds - 1
    else:
        rows, place = np.unique(np.stack([sample, group, kind]), axis=1, return_inverse=True)
        samples, groups, kinds = rows
    counts = np.bincount(np.ravel(place), number, len(samples)).astype(np.int64)
    return Census(samples, groups, kinds, counts)


def join(parts: Sequence[Census]) -> Census:
    """Return one census of all ``parts``, in whatever order they come."""
    columns = (np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Census))
    return _tallied(*columns)


def regroup(census: Census, groups: np.ndarray) -> Census:
    """Return a census with sample ``i`` in group ``groups[i]``; those of group -1 are left out."""
    group = np.asarray(groups, np.int64)[census.sample]
    kept = group >= 0
    return Census(census.sample[kept], group[kept], census.kind[kept], census.count[kept])


@dataclass(frozen=True)
class CensusFold:
    """Fold over shards (indices, labels, groups) of a store; see :func:`count`."""

    label: Label

    def map(self, shard: tuple[np.ndarray, np.ndarray | None, np.ndarray | None]) -> Census:
        return count(self.label, *shard)

    def merge(self, left: Census, right: Census) -> Census:
        return join([left, right])

    def finish(self, state: Census) -> Census:
        return state


def pack(census: Census) -> str:
    """Return ``census`` as text for a store's attributes."""
    rows = np.stack([getattr(census, f.name) for f in fields(Census)])
    assert rows.max(initial=0) < 2**31, "a census counts beyond 32 bits"
    # Differences along a row are small and alike: 590 000 samples of 3 classes take about 2 MB.
    steps = np.diff(rows, axis=1, prepend=0).astype("<i4")
    return base64.b64encode(zlib.compress(steps.tobytes())).decode()


def unpack(text: str) -> Census:
    """Return what :func:`pack` packed."""
    steps = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i4")
    return Census(*steps.reshape(len(fields(Census)), -1).astype(np.int64).cumsum(axis=1))
