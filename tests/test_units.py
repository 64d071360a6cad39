"""Counts, bytes and durations, there and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swath import units
from swath.config import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [("1500", 1500), ("40k", 40_000), ("49.2M", 49_200_000), ("1.2 G", 1_200_000_000), (7, 7),
     ("12 000", 12_000), ("40e6", 40_000_000), ("2B", 2_000_000_000), ("1_000", 1000)],
)  # fmt: skip
def test_counts(text, value):
    assert units.parse_count(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("4096", 4096), ("256MB", 256_000_000), ("256MiB", 268_435_456), ("1.5 GiB", 1_610_612_736),
     ("1k", 1000), ("2 kB", 2000), ("3B", 3)],
)  # fmt: skip
def test_bytes(text, value):
    assert units.parse_bytes(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("90", 90), ("1.5h", 5400), ("2d12h", 216_000), ("3 min 20 s", 200), ("250ms", 0.25),
     ("1:30:00", 5400), ("2:00", 120), (12.5, 12.5)],
)  # fmt: skip
def test_durations(text, value):
    assert units.parse_seconds(text) == value


@given(st.integers(10, 10**6))
def test_a_shown_duration_is_read_back_to_its_last_unit(seconds):
    """Two units are shown, so at most one of the smaller of them is lost."""
    lost = 1 if seconds < 3600 else 60 if seconds < 86400 else 3600
    assert abs(units.parse_seconds(units.seconds(seconds)) - seconds) < lost


@given(st.integers(0, 10**14))
def test_a_shown_count_is_read_back_to_three_figures(value):
    assert units.parse_count(units.count(value)) == pytest.approx(value, rel=0.05)


def test_what_is_shown():
    assert [units.count(n) for n in (0, 950, 12_000, 99_999, 49_200_000, 1.234e9)] == [
        "0", "950", "12 000", "99 999", "49.2M", "1.2G",
    ]  # fmt: skip
    assert [units.bytes_(n) for n in (512, 1536, 3 << 30)] == ["512 B", "1.5 KiB", "3.0 GiB"]
    assert [units.seconds(n) for n in (0.25, 3.14, 42, 200, 7500, 97_200)] == [
        "0.25 s", "3.1 s", "42 s", "3 min 20 s", "2 h 5 min", "1 d 3 h",
    ]  # fmt: skip


def test_what_is_no_quantity_is_said():
    with pytest.raises(ConfigError, match=r"'many' is not a count such as 1500, 40k or 49\.2M"):
        units.parse_count("many")
    with pytest.raises(ConfigError, match="'3 apples': no unit 'apples'; there are k, K, M"):
        units.parse_count("3 apples")
    with pytest.raises(ConfigError, match=r"'1\.5' is not a whole number"):
        units.parse_count("1.5")
    with pytest.raises(ConfigError, match="'-2' is not a whole number of at least 0"):
        units.parse_bytes("-2")
    with pytest.raises(ConfigError, match="'soon' is not a duration"):
        units.parse_seconds("soon")
    with pytest.raises(ConfigError, match="no unit 'weeks'"):
        units.parse_seconds("3 weeks")
