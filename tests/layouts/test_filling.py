"""Masked autoencoders, with either decoder, and of several sensors."""

from tests.layouts.following import follows, follows_in_float32, rows


@rows(
    (2, "mae mae-cross mae-sensors", {"shard": 2}),
    (2, "mae-token mae-cross mae-sensors", {"tensor": 2}),
    (2, "mae mae-cross", {"tensor": 2, "sequence": True}),
    (4, "mae", {"tensor": 2, "shard": 2, "recompute": "full"}),
    (2, "mae-token mae-cross", {"context": 2}),
    (2, "mae mae-cross", {"pipeline": 2}),
    (2, "mae-cross", {"pipeline": 2, "schedule": "interleaved", "stages": 2}),
    (4, "mae", {"pipeline": 4}),
    (4, "mae", {"pipeline": 2, "shard": 2, "recompute": "full"}),
    (4, "mae", {"pipeline": 2, "tensor": 2, "sequence": True}),
    (4, "mae-token", {"pipeline": 2, "context": 2}),
)  # fmt: skip
def test_a_layout_follows_one_process(ranks, number, name, parallel):
    follows(ranks, number, name, parallel)


@rows(
    (2, "mae mae-sensors", {"shard": 2}),
    (2, "mae", {"tensor": 2, "sequence": True}),
    (2, "mae-cross", {"context": 2}),
    (2, "mae", {"pipeline": 2}),
)  # fmt: skip
def test_a_layout_follows_one_process_in_float32(ranks, number, name, parallel):
    follows_in_float32(ranks, number, name, parallel)
