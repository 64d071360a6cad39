"""Decoders of a vit that maps pixels: a linear one, and UPerNet."""

from tests.layouts.following import follows, follows_in_float32, rows


@rows(
    (2, "vit-linear vit-upernet", {"shard": 2}),
    (2, "vit-linear vit-upernet", {"tensor": 2, "sequence": True}),
    (2, "vit-linear vit-upernet", {"context": 2}),
    (2, "vit-linear vit-upernet", {"pipeline": 2}),
    (4, "vit-upernet", {"tensor": 2, "shard": 2, "recompute": "full"}),
    (4, "vit-upernet", {"pipeline": 2, "context": 2, "attention": "ring"}),
    (4, "vit-upernet", {"pipeline": 2, "tensor": 2, "sequence": True}),
)  # fmt: skip
def test_a_layout_follows_one_process(ranks, number, name, parallel):
    follows(ranks, number, name, parallel)


@rows(
    (2, "vit-upernet", {"tensor": 2, "sequence": True}),
)  # fmt: skip
def test_a_layout_follows_one_process_in_float32(ranks, number, name, parallel):
    follows_in_float32(ranks, number, name, parallel)
