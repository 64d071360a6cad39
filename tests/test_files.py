"""JSON and full disks; tests/train/test_checkpoint.py has that nothing is ever torn."""

import errno
import os

import pytest

from swath.config import ConfigError
from swath.files import disk_full, read_json, write_json


def test_json_comes_back(tmp_path):
    value = {"oa": 0.5, "classes": ["water", "forest"], "patience": None}
    write_json(tmp_path / "scores.json", value)
    assert read_json(tmp_path / "scores.json") == value
    assert os.listdir(tmp_path) == ["scores.json"]


def test_json_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none.json: cannot be read: No such file"):
        read_json(tmp_path / "none.json")
    (tmp_path / "torn.json").write_text('{"oa": 0.')
    with pytest.raises(ConfigError, match=r"torn.json: is not JSON, or is damaged \(.*char"):
        read_json(tmp_path / "torn.json")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_a_quota_and_a_limit_of_files_are_alike(number):
    assert disk_full(OSError(number, os.strerror(number)))


def test_other_errors_are_no_full_disk():
    assert not disk_full(OSError(errno.EACCES, "Permission denied"))
    assert not disk_full(ValueError("disk full"))
