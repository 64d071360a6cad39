"""Ranks that share the rows of an image."""

from tests.layouts.following import follows, follows_in_float32, rows


@rows(
    (2, "unet unet-resnet", {"spatial": 2}),
    (3, "unet", {"spatial": 3, "recompute": "full"}),
    (4, "unet", {"spatial": 4, "recompute": "selective"}),
    (4, "unet", {"spatial": 2, "shard": 2}),
    (8, "unet", {"spatial": 2, "replicate": 2, "shard": 2}),
)  # fmt: skip
def test_a_layout_follows_one_process(ranks, number, name, parallel):
    follows(ranks, number, name, parallel)


@rows(
    (2, "unet", {"spatial": 2}),
    (3, "unet", {"spatial": 3}),
)  # fmt: skip
def test_a_layout_follows_one_process_in_float32(ranks, number, name, parallel):
    follows_in_float32(ranks, number, name, parallel)
