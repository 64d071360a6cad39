"""What all tests share: shapes checked against signatures, few threads, and the rank pool."""

import os

import pytest
from jaxtyping import install_import_hook

# Before anything of swath.nn is imported: every call checks the shapes that its signature states.
install_import_hook("swath.nn", "beartype.beartype")

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    """Small tensors run slower on many threads, and the ranks of a test share the machine."""
    import torch

    torch.set_num_threads(min(2, os.cpu_count() or 1))
