"""Ranks that share matrices."""

from tests.layouts.following import follows, follows_in_float32, rows


@rows(
    (2, "vit vit-dense", {"tensor": 2}),
    (4, "vit", {"tensor": 4}),
    (2, "vit vit-dense", {"tensor": 2, "sequence": True}),
    (4, "vit-dense", {"tensor": 2, "sequence": True}),
    (4, "vit-dense", {"tensor": 2, "shard": 2}),
    (4, "vit", {"tensor": 2, "shard": 2, "wrap": "matrix"}),
    (4, "vit", {"tensor": 2, "shard": 2, "sequence": True, "recompute": "selective"}),
    (8, "vit", {"replicate": 2, "tensor": 2, "shard": 2}),
)  # fmt: skip
def test_a_layout_follows_one_process(ranks, number, name, parallel):
    follows(ranks, number, name, parallel)


@rows(
    (2, "vit", {"tensor": 2}),
    (4, "vit", {"tensor": 2, "shard": 2, "sequence": True}),
)  # fmt: skip
def test_a_layout_follows_one_process_in_float32(ranks, number, name, parallel):
    follows_in_float32(ranks, number, name, parallel)
