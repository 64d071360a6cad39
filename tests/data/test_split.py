"""Parts are of whole groups, in the asked shares, and follow from the seed."""

import numpy as np
import pytest

from swath.config import ConfigError, build
from swath.data.census import ANY, CensusFold, count, join, pack, regroup, unpack
from swath.data.chip import IGNORE, Label
from swath.data.fold import fit
from swath.data.split import NONE, TEST, TRAIN, VAL, GroupTable, Split, assign, tabulate


def table_of(classes, sizes, k=None):
    k = k or max(classes) + 1
    counts = np.zeros((len(classes), k), np.int64)
    counts[np.arange(len(classes)), classes] = sizes
    return GroupTable(np.arange(len(classes)) * 3, counts, np.asarray(sizes, np.int64))


def test_shares_hold_in_every_class():
    """Of 100 and of 10 groups, 20 % and 10 % are 20 and 10, 2 and 1."""
    table = table_of([0] * 100 + [1] * 10, [1] * 110)
    parts = assign(table, Split(val=0.1, test=0.2))
    for members, test, val in ((parts[:100], 20, 10), (parts[100:], 2, 1)):
        assert (members == TEST).sum() == test
        assert (members == VAL).sum() == val
        assert (members == TRAIN).sum() == len(members) - test - val


def test_a_share_of_pixels_is_met_by_groups_of_any_size():
    """Greedy filling lands within half of the largest group that was taken; a giant stays out."""
    draw = np.random.default_rng(0)
    sizes = [9000, *draw.integers(10, 200, 60).tolist()]
    for seed in range(20):
        parts = assign(table_of([0] * 61, sizes), Split(val=0, test=0.2, weigh="pixels", seed=seed))
        tested = np.asarray(sizes)[parts == TEST].sum()
        assert abs(tested - 0.2 * sum(sizes)) <= 100
        assert parts[0] == TRAIN


def test_few_groups_go_to_training_first_then_to_testing():
    """A class with one group can be learned but not tested, with two not validated."""
    table = table_of([0, 1, 1, 2, 2, 2], [5] * 6)
    parts = assign(table, Split(val=0.1, test=0.2))
    assert parts[0] == TRAIN
    assert sorted(parts[1:3]) == [TRAIN, TEST]
    assert sorted(parts[3:]) == [TRAIN, VAL, TEST]


def test_a_cap_on_training_leaves_the_rest_to_no_part():
    """Learning curves need the same test part with less to train on."""
    table = table_of([0] * 50, [1] * 50)
    full, capped = (assign(table, Split(val=0.1, test=0.2, train=t)) for t in (None, 0.3))
    np.testing.assert_array_equal(full == TEST, capped == TEST)
    np.testing.assert_array_equal(full == VAL, capped == VAL)
    assert (capped == TRAIN).sum() == 15
    assert (capped == NONE).sum() == 20


def test_the_split_follows_from_the_seed_and_ids_not_from_order():
    """Seeds differ; the luck of a group does not depend on which row it is in."""
    table = table_of([0] * 40, [1] * 40)
    split = Split(seed=5)
    np.testing.assert_array_equal(assign(table, split), assign(table, split))
    assert (assign(table, split) != assign(table, Split(seed=6))).any()
    order = np.random.default_rng(1).permutation(40)
    shuffled = GroupTable(table.ids[order], table.counts[order], table.sizes[order])
    np.testing.assert_array_equal(assign(shuffled, split), assign(table, split)[order])


def test_every_group_is_tested_about_as_often_as_its_share():
    """Over seeds, each of 30 groups is in the test part in 20 % of splits (binomial, 5 sd)."""
    table = table_of([0] * 30, [1] * 30)
    often = sum(assign(table, Split(seed=s)) == TEST for s in range(400))
    assert np.all(np.abs(often / 400 - 0.2) < 5 * np.sqrt(0.16 / 400))


def test_shares_that_cannot_be_are_refused():
    """Each mistake is said with what was asked."""
    with pytest.raises(ConfigError, match=r"val=0.5 and test=0.5 leave nothing to train on"):
        Split(val=0.5, test=0.5)
    with pytest.raises(ConfigError, match=r"test=1.5 must be a share"):
        Split(test=1.5)
    with pytest.raises(ConfigError, match=r"train=0.9 is not in 0..0.7"):
        Split(train=0.9)
    with pytest.raises(ConfigError, match="seed=3 has no effect on a split by=given"):
        Split(by="given", seed=3)


def masks(n=7, h=6, classes=3, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, (n, h, h)).astype(np.uint8)
    labels[draw.random((n, h, h)) < 0.2] = IGNORE
    groups = draw.integers(-1, 5, (n, h, h)).astype(np.int32)
    return labels, groups


def test_a_census_of_masks_counts_each_labelled_pixel_once():
    """Against counting by hand with a loop."""
    labels, groups = masks()
    found = count(Label(kind="mask", classes=("a", "b", "c")), np.arange(7) + 10, labels, groups)
    by_hand: dict[tuple[int, int, int], int] = {}
    for (n, y, x), kind in np.ndenumerate(labels):
        if kind != IGNORE and groups[n, y, x] >= 0:
            key = (n + 10, int(groups[n, y, x]), int(kind))
            by_hand[key] = by_hand.get(key, 0) + 1
    rows = zip(found.sample, found.group, found.kind, found.count, strict=True)
    assert {(s, g, k): c for s, g, k, c in rows} == by_hand


@pytest.mark.parametrize("cut", [[3], [1, 2, 5], [2, 4, 6]])
def test_a_census_does_not_depend_on_shards(cut):
    """The fold's law: any sharding, any order of merging."""
    labels, groups = masks()
    label = Label(kind="mask", classes=("a", "b", "c"))
    whole = count(label, np.arange(7), labels, groups)
    shards = list(
        zip(np.split(np.arange(7), cut), np.split(labels, cut), np.split(groups, cut), strict=True)
    )
    for order in (shards, shards[::-1]):
        found = fit(CensusFold(label), order)
        for name in ("sample", "group", "kind", "count"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))


def test_flags_are_counted_beside_their_samples():
    """A sample of two flags is one sample; its class is the rarer of its flags."""
    flags = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1]], np.uint8)
    label = Label(kind="flags", classes=("a", "b", "c"))
    table = tabulate(count(label, np.arange(4), flags, None), label)
    np.testing.assert_array_equal(table.sizes, 1)
    np.testing.assert_array_equal(table.counts, flags)
    assert table.classes.tolist() == [1, 0, 0, 2]


def test_regrouping_samples_sums_them():
    """Sample groupings follow from the census of samples; group -1 is left out."""
    label = Label(kind="class", classes=("a", "b"))
    census = count(label, np.arange(5), np.array([0, 1, 1, 0, -1]), None)
    table = tabulate(regroup(census, np.array([7, 7, 2, -1, 2])), label)
    assert table.ids.tolist() == [2, 7]
    assert table.counts.tolist() == [[0, 1], [1, 1]]


def test_a_packed_census_comes_back():
    """It lives in a store's attributes as text."""
    labels, groups = masks()
    census = count(Label(kind="mask", classes=("a", "b", "c")), np.arange(7), labels, groups)
    back = unpack(pack(census))
    for name in ("sample", "group", "kind", "count"):
        np.testing.assert_array_equal(getattr(back, name), getattr(census, name))
    empty = join([count(Label(kind="none"), np.arange(0), None, None)])
    assert len(unpack(pack(empty)).sample) == 0
    assert count(Label(kind="none"), np.arange(2), None, None).kind.tolist() == [ANY, ANY]


def test_where_the_size_of_a_block_is_set_is_said():
    """It is looked for beside by: block."""
    with pytest.raises(
        ConfigError, match=r"has no field 'block'; how large .* build.dataset.block "
    ):
        build(Split, {"by": "block", "block": 64}, "split")
