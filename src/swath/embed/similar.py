"""Places like this one: the samples, or patches, whose vectors have the largest cosine with it.

The mean of all vectors is taken off first: what all places have in common says nothing, and would
bring every cosine near to 1.

Neighbours in a store often overlap, and what shows the same ground is alike by necessity. So none
of the places found has ground in common with the query, or with a better one.
"""

from __future__ import annotations

import numpy as np

from swath.config import ConfigError
from swath.embed.found import Found, apart, found
from swath.embed.neighbours import unit
from swath.embed.places import Places
from swath.embed.table import Table

SCORE = "cosine"


def similar(places: Places, query: int, count: int) -> list[Found]:
    """Return the vector ``query``, of rank 0, and the ``count`` places that are most like it, best
    first.

    Equal ones come in the order of the table. ConfigError if there are not so many.
    """
    if count < 1:
        raise ConfigError(f"--count {count}: ask for one place at least")
    table = places.table
    mean = mean_of(table)
    asked = unit(table.vectors(np.array([query])) - mean)[0]
    cosine = np.concatenate([unit(block - mean) @ asked for _, block in table.blocks()])
    taken = apart(places, np.argsort(-cosine, kind="stable"), count, [query])
    if len(taken) <= count:
        raise ConfigError(
            f"--count {count}: {table.path} has {len(taken) - 1} places that overlap neither the "
            "query nor one another; ask for fewer"
        )
    return found(places, taken, cosine, first=0)


def mean_of(table: Table) -> np.ndarray:
    """Return the mean of all vectors of ``table``, float64 (d,)."""
    total, count = np.zeros(table.width), 0
    for _, block in table.blocks():
        total += block.sum(0, dtype=np.float64)
        count += len(block)
    return total / count
