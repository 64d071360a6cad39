"""The gradient-free fitter: map over shards, merge, finish; repeat.

Everything that is fitted without gradients goes through it: statistics, PCA, the samples that
forests and SVMs are fitted on. A fold's result must not depend on how the data was sharded, nor
on the order of merging; a test runs every fold through that claim.
"""

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

Shard = TypeVar("Shard", contravariant=True)
State = TypeVar("State")
Result = TypeVar("Result", covariant=True)


class Fold(Protocol, Generic[Shard, State, Result]):
    """How one pass over the data is mapped, merged and finished."""

    def map(self, shard: Shard) -> State: ...

    def merge(self, left: State, right: State) -> State: ...

    def finish(self, state: State) -> Result: ...


def fit(fold: Fold[Shard, State, Result], shards: Iterable[Shard]) -> Result:
    """Return ``fold``'s result over ``shards``, read one by one; ValueError if there are none."""
    states = (fold.map(shard) for shard in shards)
    total = next(states, None)
    if total is None:
        raise ValueError("nothing to fit: there are no shards")
    for state in states:
        total = fold.merge(total, state)
    return fold.finish(total)
