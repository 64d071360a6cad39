"""What the tests of a run share."""

import os

import pytest


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch):
    """Forcing files to disk takes tenths of a second on a busy disk, and no test cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
