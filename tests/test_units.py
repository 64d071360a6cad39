"""Counts, bytes, durations, means and tables as they are shown."""

from swath import units


def test_what_is_shown():
    assert [units.count(n) for n in (0, 950, 12_000, 99_999, 49_200_000, 1.234e9)] == [
        "0", "950", "12 000", "99 999", "49.2M", "1.2G",
    ]  # fmt: skip
    assert [units.bytes_(n) for n in (512, 1536, 3 << 30)] == ["512 B", "1.5 KiB", "3.0 GiB"]
    assert [units.seconds(n) for n in (0.25, 3.14, 42, 200, 7500, 97_200)] == [
        "0.25 s", "3.1 s", "42 s", "3 min 20 s", "2 h 5 min", "1 d 3 h",
    ]  # fmt: skip


def test_means_and_tables_are_shown():
    """The deviation of a sample, with one less than there are."""
    assert units.spread([0.1, 0.2, 0.6]) == f"0.300 ± {0.07**0.5:.3f}" == "0.300 ± 0.265"
    assert units.spread([0.5], "+") == "+0.500" and units.spread([0.5, 0.5]) == "0.500 ± 0"
    assert units.spread([0.1, 0.1001]).endswith("± 0.000")
    assert units.markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert units.markdown(["a", "b"], [["1", "2"]], 1).split("\n")[1] == "| --- | ---: |"
