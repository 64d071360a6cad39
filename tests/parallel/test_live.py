"""What is in memory at once, by closed forms: fake tensors of known sizes come and go."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from swath.parallel.live import Live

MIB = 2**20


def bytes_(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.uint8)


@pytest.fixture
def live():
    with FakeTensorMode(allow_non_fake_inputs=True), Live() as live:
        yield live


def test_the_peak_is_what_lives_at_once(live):
    """One is gone before the next comes; views and changes in place are free."""
    kept = bytes_(5 * MIB)
    for _ in range(3):
        gone = bytes_(7 * MIB)
        gone.view(7, MIB)[1:3].add_(1)
        del gone
    assert live.most == 12 * MIB
    live.begin()
    assert live.most == 5 * MIB
    del kept


def test_nothing_is_allocated(live):
    """A terabyte of fake tensors is counted."""
    whole = bytes_(2**40)
    assert live.most == 2**40 and whole.numel() == 2**40


def test_names_hold_for_the_whole_life(live):
    """Said after the peak, of what was there at the peak; the rest are activations."""
    first, other = bytes_(3 * MIB), bytes_(2 * MIB)
    more = bytes_(MIB)
    del more
    live.name("gradients", [first, None])
    assert live.at_peak() == {"gradients": 3 * MIB, "activations": 3 * MIB}
    del other


def test_memory_that_is_taken_from_a_tensor_and_given_back(live):
    """As FSDP2 does with gathered parameters: by resizing, past the dispatcher."""
    tensor = bytes_(4 * MIB)
    tensor.untyped_storage().resize_(0)
    other = bytes_(MIB)
    live.begin()
    assert live.most == MIB
    tensor.untyped_storage().resize_(4 * MIB)
    assert live.at_peak() == {"gathered": 4 * MIB, "activations": MIB}
    del other


def test_torch_is_as_before_after_the_block():
    resize = torch.UntypedStorage.resize_
    with pytest.raises(ZeroDivisionError), Live():
        1 / 0  # noqa: B018
    assert torch.UntypedStorage.resize_ is resize


def test_what_the_backward_pass_keeps_counts(live):
    """Of y = (a x)^2, a x is kept; of a sum, nothing."""
    a = torch.ones(MIB, requires_grad=True)
    x = torch.ones(MIB)
    live.begin()
    before = live.most
    loss = (a * x).square().sum()
    assert live.most == before + 2 * 4 * MIB + 4  # a x, its square, and the sum
    live.begin()
    assert live.most == before + 4 * MIB + 4
    loss.backward()
    # The gradients of a x: of the square (2 a x and times the outer one), and of a.
    assert a.grad is not None and live.most > before + 2 * 4 * MIB
