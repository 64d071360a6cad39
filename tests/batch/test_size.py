"""An update is cut into microbatches, and these are dealt to any number of ranks."""

import pytest

from swath.batch.size import BatchSize
from swath.config import ConfigError


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5])
def test_every_microbatch_belongs_to_one_rank(ranks):
    """Also to a number of ranks that does not divide the microbatches: none lost, none twice."""
    batch = BatchSize(samples=40, micro=8)
    dealt = [i for rank in range(ranks) for i in batch.mine(rank, ranks)]
    assert sorted(dealt) == list(range(batch.passes)) == [0, 1, 2, 3, 4]


def test_a_batch_that_cannot_be_cut_names_a_size_that_can():
    with pytest.raises(ConfigError, match=r"samples=64 is not a multiple of micro=24; micro=16"):
        BatchSize(samples=64, micro=24)


def test_sizes_below_one_are_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        BatchSize(samples=0, micro=1)


def test_more_ranks_than_microbatches_are_refused():
    batch = BatchSize(samples=64, micro=16)
    with pytest.raises(
        ConfigError,
        match=r"5 ranks cannot share 4 microbatches.*at most 4 ranks, or set micro to 8, or "
        "samples to at least 80",
    ):
        batch.mine(0, 5)
    assert BatchSize(samples=64, micro=8).mine(0, 5) and BatchSize(samples=80).mine(0, 5)
    with pytest.raises(ConfigError, match=r"at most 4 ranks, or set samples to at least 65536"):
        batch.mine(0, 4096)  # micro=1 makes 64 of them
