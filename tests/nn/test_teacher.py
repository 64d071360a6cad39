"""A teacher is the closed form of a sum of past students; it learns, drops and loses nothing."""

import math

import pytest
import torch
from torch import nn

from swath.nn.norm import BatchNorm2d
from swath.nn.random import DropPath
from swath.nn.settle import Update, forget, settle
from swath.nn.teacher import Mean, Teacher, following, through


def alone(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def followed(samples: int, updates: int, memory: float, total: int) -> float:
    """Return the weight of a teacher, which began at 0, after updates to students of weight 1."""
    student = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(student.weight)
    teacher = Teacher(student, memory, total)
    nn.init.ones_(student.weight)
    for update in range(1, updates + 1):
        settle(teacher, alone, Update(samples, update * samples))
    assert teacher.seen == updates * samples
    return teacher.network.weight.item()


def test_it_forgets_exponentially_along_a_cosine():
    """Of its beginning exp(-integral of the falling rate) is left; here summed up by hand."""
    left, seen = 1.0, 0
    for _ in range(7):
        left *= math.exp(-10 / 50 * (1 + math.cos(math.pi * seen / 100)) / 2)
        seen += 10
    assert followed(10, 7, 50.0, 100) == pytest.approx(1 - left, rel=1e-12)


def test_in_the_first_update_it_is_the_papers_momentum():
    assert 1 - following(1024, 0, -1024 / math.log(0.996), 10**9) == pytest.approx(0.996)
    assert following(64, 1000, 500.0, 1000) == 0  # at the end it stands still


def test_half_the_batch_twice_follows_as_far():
    """To the first order of the cosine's slope over a batch."""
    coarse, fine = followed(10, 400, 1000.0, 8000), followed(5, 800, 1000.0, 8000)
    assert coarse == pytest.approx(fine, abs=1e-3)
    constant = 1 - math.exp(-4000 / 1000)
    assert coarse < constant - 1e-3  # the cosine shows


def test_a_teacher_learns_nothing_and_drops_nothing():
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(2, 2), DropPath(0.5))
    teacher = Teacher(student, 10.0, 100)
    assert not any(p.requires_grad for p in teacher.parameters())
    image = torch.randn(8, 2)
    assert torch.equal(teacher(image), student[0](image))
    assert not teacher(image).requires_grad
    assert torch.equal(teacher.eval().train()(image), student[0](image))


def test_what_the_student_keeps_still_stays_to_the_last_bit():
    student = nn.Linear(3, 3)
    student.bias.requires_grad_(False)
    teacher = Teacher(student, 10.0, 100)
    teacher.network.bias.data.fill_(5)
    settle(teacher, alone, Update(10, 10))
    assert (teacher.network.bias == 5).all()


def test_it_begins_as_the_student_is():
    student = nn.Linear(2, 2)
    teacher = Teacher(student, 10.0, 100)
    nn.init.ones_(student.weight)
    teacher.begin()
    assert torch.equal(teacher.network.weight, student.weight)


def test_its_batch_statistics_are_its_own():
    """Of what it saw, and not an average of the student's."""
    student = BatchNorm2d(1).double()
    teacher = Teacher(student, 10.0, 100)
    image = 3 + torch.randn(4, 1, 5, 5, dtype=torch.float64)
    teacher(image)
    settle(teacher, alone, Update(10, 10))
    torch.testing.assert_close(teacher.network.running_mean, 0.1 * image.mean().view(1))
    assert student.running_mean == 0


def test_a_mean_is_over_all_ranks_and_what_counts():
    """Two ranks with 3 and 2 vectors, of which one does not count."""
    torch.manual_seed(0)
    vectors, counts = torch.randn(5, 4), torch.tensor([1, 1, 1, 0, 1])
    means = [Mean(4, memory=20.0) for _ in range(2)]
    means[0].add(vectors[:3], counts[:3])
    means[1].add(vectors[3:], counts[3:])
    both = torch.cat([torch.stack([m.sum for m in means]).sum(0), sum(m.count for m in means)])
    expected = vectors[counts > 0].mean(0) * (1 - math.exp(-10 / 20))
    for mean in means:
        settle(mean, lambda _: both, Update(10, 10))
        torch.testing.assert_close(mean.value, expected)
        assert not mean.sum.any() and not mean.count


def test_a_skipped_or_empty_update_leaves_a_mean_as_it_was():
    mean = Mean(2, memory=20.0)
    mean.value.fill_(3)
    mean.add(torch.full((2, 2), math.nan), torch.ones(2))
    forget(mean)
    settle(mean, alone, Update(10, 20))
    assert (mean.value == 3).all()


def test_views_of_a_size_go_through_together():
    calls = []

    class Network(nn.Module):
        def forward(self, image):
            calls.append(tuple(image.shape))
            return image.mean((2, 3))

    views = [torch.randn(2, 3, size, size) for size in (8, 8, 4, 4, 4)]
    found = through(Network(), views)
    assert calls == [(4, 3, 8, 8), (6, 3, 4, 4)]
    torch.testing.assert_close(found, torch.stack([view.mean((2, 3)) for view in views]))
