"""Blending: exact in any order, equal to the plain weighted mean, without seams."""

import numpy as np
import pytest
import torch

from swath.predict.blend import ONE, Blend, quantise
from swath.predict.forward import Forward
from swath.predict.tiles import tiling

CPU = torch.device("cpu")


def blended(plan, answer, order=None, values=False):
    """The whole map, from ``answer(row, col)`` of each window, added in the given order."""
    strips = []
    blend = Blend(plan, answer(0, 0).shape[0], 0, CPU, values)
    for row in plan.rows:
        cols = list(plan.cols)
        if order is not None:
            order.shuffle(cols)
        for col in cols:
            blend.add(answer(row, col), col)
        strips.append(blend.finish())
    return torch.cat(strips, dim=1)


def answers(plan, channels=3, seed=0):
    made = {}

    def answer(row, col):
        if (row, col) not in made:
            generator = torch.Generator().manual_seed(seed + 1000 * (row + 99) + col + 99)
            logits = torch.randn(channels, plan.tile, plan.tile, generator=generator)
            made[row, col] = quantise(logits.softmax(0))
        return made[row, col]

    return answer


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.75, 0.9])
def test_blend_is_the_weighted_mean(overlap):
    """Against the mean written down pixel by pixel in float64 over the whole scene at once."""
    plan = tiling(37, 53, 16, overlap, 0, True)
    answer = answers(plan)
    weight = np.outer(plan.profile, plan.profile).astype(float)
    big = np.zeros((3, 37 + 64, 53 + 64))
    total = np.zeros_like(big[0])
    for row in plan.rows:
        for col in plan.cols:
            at = (slice(row + 32, row + 48), slice(col + 32, col + 48))
            big[(slice(None), *at)] += answer(row, col).numpy() / ONE * weight
            total[at] += weight
    inside = (slice(32, 32 + 37), slice(32, 32 + 53))
    want = big[(slice(None), *inside)] / total[inside]
    np.testing.assert_allclose(blended(plan, answer).numpy(), want, atol=2e-7)


def test_the_order_of_windows_changes_no_bit():
    """Whole numbers add up the same in any order; float32 would not (the control)."""
    plan = tiling(40, 200, 16, 0.75, 0, True)
    answer = answers(plan)
    straight = blended(plan, answer)
    assert torch.equal(straight, blended(plan, answer, np.random.default_rng(3)))

    terms = torch.rand(16, 1000) * torch.rand(16, 1)
    assert not torch.equal(terms.sum(0), terms.flip(0).contiguous().sum(0))


def test_the_largest_sum_fits():
    """Certain windows everywhere, overlapping ten by ten, must come out as exactly 1."""
    plan = tiling(64, 64, 20, 0.9, 0, True)
    ones = blended(plan, lambda row, col: torch.full((1, 20, 20), ONE, dtype=torch.int32))
    assert torch.equal(ones, torch.ones_like(ones))


def test_values_blend_too():
    plan = tiling(30, 30, 16, 0.5, 0, True)
    flat = blended(plan, lambda row, col: torch.full((2, 16, 16), -1234.5), values=True)
    assert flat.dtype == torch.float64
    torch.testing.assert_close(flat, torch.full_like(flat, -1234.5), rtol=1e-15, atol=0)


def box(channels=2):
    """A model whose answer depends on neighbours, and that sees zeros beyond its window."""
    kernel = torch.ones(channels, channels, 5, 5) / 25
    return lambda images: torch.nn.functional.conv2d(images, kernel, padding=2)


@pytest.mark.parametrize("symmetries", [4, 8])
def test_symmetries_undo_each_turn(symmetries):
    """The answer to a model without a sense of direction is the same as without turning."""
    images = torch.rand(3, 2, 12, 12)
    plain, turned = (
        Forward(box(), at_once=3, symmetries=s, values=True, tell=print)(images)
        for s in (1, symmetries)
    )
    torch.testing.assert_close(turned, plain, rtol=1e-6, atol=1e-7)

    def upper_left(images):  # has a sense of direction: each corner must be seen once or twice
        return images.clone()[:, :1].mul_(torch.arange(144.0).reshape(12, 12) == 0)

    seen = Forward(upper_left, at_once=3, symmetries=symmetries, values=True, tell=print)(
        torch.ones(1, 1, 12, 12)
    )
    corners = seen[0, 0, [0, 0, 11, 11], [0, 11, 0, 11]]
    torch.testing.assert_close(corners, torch.full_like(corners, 0.25))


def test_windows_go_alone_if_together_they_round_otherwise():
    """A model whose last bit depends on how many windows it gets must not change the map."""
    said = []

    def fickle(images):
        return (images * 0.5 + (1e-7 if len(images) > 1 else 0)).clamp(0, 1)

    forward = Forward(fickle, at_once=4, symmetries=1, values=True, tell=said.append)
    images = torch.rand(10, 1, 8, 8)
    alone = torch.cat([fickle(image[None]) for image in images]).double()
    assert torch.equal(forward(images), alone)
    assert forward.at_once == 1 and "one at a time here, so that the map is exact" in said[0]

    steady = Forward(lambda x: x * 0.5, at_once=4, symmetries=1, values=True, tell=said.append)
    assert torch.equal(steady(images), images.double() * 0.5)
    assert steady.at_once == 4 and len(said) == 1


def test_a_group_that_is_short_is_filled_up():
    """Kernels are chosen by shape, so the model must see no number of windows but the one it was
    tried with, and one alone; a group at the end, or a first one, may hold fewer."""
    seen, said = [], []

    def fickle(images):  # the two that are tried agree; any other number rounds otherwise
        seen.append(len(images))
        return images * 0.5 if len(images) in (1, 4) else images * 0.5 + 1e-7

    images = torch.rand(10, 1, 8, 8)
    for count in (10, 2):
        forward = Forward(fickle, at_once=4, symmetries=1, values=True, tell=said.append)
        assert torch.equal(forward(images[:count]), images[:count].double() * 0.5)
        assert forward.at_once == 4 and not said
    assert set(seen) == {1, 4}


def test_one_answer_a_window_fills_its_middle():
    """A model of whole windows maps pixel by pixel with a stride of 1."""
    plan = tiling(6, 7, 5, 0.99, 0, False)
    assert (plan.stride, plan.pad, sum(plan.profile)) == (1, 2, plan.profile[2])
    centre = {}
    forward = Forward(
        lambda images: images[:, :, 2, 2], at_once=1, symmetries=1, values=True, tell=print
    )
    scene = torch.rand(1, 10, 11, dtype=torch.float64)
    for row in plan.rows:
        for col in plan.cols:
            window = scene[:, row + 2 : row + 7, col + 2 : col + 7]
            centre[row, col] = forward(window[None])[0]
    found = blended(plan, lambda row, col: centre[row, col], values=True)
    torch.testing.assert_close(found, scene[:, 2:8, 2:9], rtol=1e-15, atol=0)
