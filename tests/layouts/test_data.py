"""Ranks that share the samples of an update, and those that share weights besides."""

from tests.layouts.following import follows, follows_in_float32, rows


@rows(
    (1, "vit vit-dense resnet unet", {"recompute": "full"}),
    (1, "vit-dense", {"recompute": "selective"}),
    (2, "vit vit-dense resnet unet", {}),
    (3, "mae contrast dino moco", {}),
    (4, "vit", {"bucket": 1}),
    (2, "vit vit-dense resnet unet", {"shard": 2}),
    (3, "vit", {"shard": 3}),
    (4, "vit-dense", {"shard": 4}),
    (4, "vit-dense unet", {"replicate": 2, "shard": 2}),
    (2, "vit", {"shard": 2, "reshard": False}),
    (2, "resnet", {"shard": 2, "wrap": "matrix", "recompute": "full"}),
)  # fmt: skip
def test_a_layout_follows_one_process(ranks, number, name, parallel):
    follows(ranks, number, name, parallel)


@rows(
    (2, "vit resnet", {}),
    (2, "vit resnet", {"shard": 2}),
    (4, "vit", {"replicate": 2, "shard": 2}),
)  # fmt: skip
def test_a_layout_follows_one_process_in_float32(ranks, number, name, parallel):
    follows_in_float32(ranks, number, name, parallel)
