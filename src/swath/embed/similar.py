"""Places like this one: the samples, or patches, whose vectors have the largest cosine with it.

The mean of all vectors is taken off first: what all places have in common says nothing, and would
bring every cosine near to 1.

Neighbours in a store often overlap, and what shows the same ground is alike by necessity. So none
of the places found has ground in common with the query, or with a better one. Beyond that the same
field goes on, and the same place may be there at another date: who looks for places elsewhere says
how far away they have to be.
"""

from __future__ import annotations

import numpy as np

from swath.config import ConfigError
from swath.embed.found import Found, apart, found
from swath.embed.neighbours import unit
from swath.embed.places import Places
from swath.embed.table import Table

SCORE = "cosine"


def similar(places: Places, query: int, count: int, away_km: float = 0.0) -> list[Found]:
    """Return the vector ``query``, of rank 0, and the ``count`` places that are most like it, best
    first.

    away_km: from the middle of its sample to those of others, at least; where one lies has to be
    known then. Equal ones come in the order of the table. ConfigError if there are not so many.
    """
    if count < 1:
        raise ConfigError(f"--count {count}: ask for one place at least")
    if not away_km >= 0:
        raise ConfigError(f"--away {away_km:g}: is a distance in kilometres, 0 or more")
    table = places.table
    mean = mean_of(table)
    asked = unit(table.vectors(np.array([query])) - mean)[0]
    cosine = np.concatenate([unit(block - mean) @ asked for _, block in table.blocks()])
    order = np.argsort(-cosine, kind="stable")
    far = f", {away_km:g} km away or more," if away_km else ""
    if away_km:
        km = np.repeat(places.km_from(places.sample(query)), places.each)
        if not np.isfinite(km[query]):
            raise ConfigError(
                f"--away {away_km:g}: where {places.store.column('name')[places.sample(query)]} "
                "lies on the Earth is not known; leave --away out"
            )
        order = order[km[order] >= away_km]
    taken = apart(places, order, count, [query])
    if len(taken) <= count:
        raise ConfigError(
            f"--count {count}: {table.path} has {len(taken) - 1} places{far} that overlap neither "
            f"the query nor one another; ask for fewer{', or nearer ones' if away_km else ''}"
        )
    return found(places, taken, cosine, first=0)


def mean_of(table: Table) -> np.ndarray:
    """Return the mean of all vectors of ``table``, float64 (d,)."""
    total, count = np.zeros(table.width), 0
    for _, block in table.blocks():
        total += block.sum(0, dtype=np.float64)
        count += len(block)
    return total / count
