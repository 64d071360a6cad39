"""Ranks that share layers."""

from tests.layouts.following import follows, follows_in_float32, rows


@rows(
    (2, "vit vit-dense resnet", {"pipeline": 2}),
    (3, "vit", {"pipeline": 3}),
    (4, "vit-dense resnet", {"pipeline": 4}),
    (2, "vit-dense", {"pipeline": 2, "schedule": "gpipe"}),
    (2, "vit", {"pipeline": 2, "schedule": "interleaved", "stages": 2}),
    (2, "vit-dense", {"pipeline": 2, "recompute": "full"}),
    (4, "vit", {"pipeline": 2, "replicate": 2}),
    (4, "vit-dense", {"pipeline": 2, "shard": 2}),
    (4, "vit", {"pipeline": 2, "shard": 2, "schedule": "interleaved", "stages": 2}),
    (4, "vit", {"pipeline": 2, "shard": 2, "reshard": False, "recompute": "selective"}),
    (4, "vit-dense", {"pipeline": 2, "tensor": 2}),
    (4, "vit", {"pipeline": 2, "tensor": 2, "sequence": True}),
    (8, "vit", {"pipeline": 2, "shard": 2, "tensor": 2}),
)  # fmt: skip
def test_a_layout_follows_one_process(ranks, number, name, parallel):
    follows(ranks, number, name, parallel)


@rows(
    (2, "vit", {"pipeline": 2}),
    (4, "vit", {"pipeline": 2, "shard": 2}),
)  # fmt: skip
def test_a_layout_follows_one_process_in_float32(ranks, number, name, parallel):
    follows_in_float32(ranks, number, name, parallel)
