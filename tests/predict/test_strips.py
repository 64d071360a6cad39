"""Strips survive: whole or absent, damage found, strips of another map thrown away."""

import numpy as np
import pytest

from swath.config import ConfigError
from swath.predict.strips import Strips


def filled(folder, plan=None):
    strips = Strips(folder, plan or {"tile": 64})
    for number in range(3):
        strips.save(number, {"classes": np.full((4, 100), number, np.uint8)})
    return strips


def test_strips_come_back(tmp_path):
    filled(tmp_path / "part")
    again = Strips(tmp_path / "part", {"tile": 64})
    assert again.whole() == 3 and not again.discarded
    np.testing.assert_array_equal(again.load(2)["classes"], 2)


def test_a_damaged_strip_is_made_again(tmp_path):
    """One flipped byte in the pixels of the second strip: only the first counts as done."""
    filled(tmp_path)
    file = tmp_path / "000001.npz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert Strips(tmp_path, {"tile": 64}).whole() == 1


def test_a_strip_cut_short_is_made_again(tmp_path):
    filled(tmp_path)
    file = tmp_path / "000000.npz"
    file.write_bytes(file.read_bytes()[:50])
    assert Strips(tmp_path, {"tile": 64}).whole() == 0


def test_strips_of_other_settings_are_thrown_away_and_said(tmp_path):
    filled(tmp_path)
    other = Strips(tmp_path, {"tile": 128})
    assert other.whole() == 0 and other.discarded == "tile"


def test_a_full_disk_is_said_and_keeps_what_is_there(tmp_path, monkeypatch):
    strips = filled(tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(ConfigError, match=r"strip 3 .* No space left on device; the 3"):
        strips.save(3, {"classes": np.zeros((4, 4), np.uint8)})
    assert strips.whole() == 3 and not list(tmp_path.glob("*.aside"))
