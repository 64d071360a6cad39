"""What the tests of a run share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """On a busy machine two threads wait for each other: small networks ran many times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
