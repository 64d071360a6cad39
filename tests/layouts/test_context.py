"""Ranks that share the tokens of an image: 16, or 17, which divide by no number of ranks."""

from tests.layouts.following import follows, follows_in_float32, rows


@rows(
    (2, "vit-dense vit-token", {"context": 2}),
    (2, "vit vit-token", {"context": 2, "attention": "lss"}),
    (2, "vit-dense vit-token", {"context": 2, "attention": "ring"}),
    (2, "vit vit-token", {"context": 2, "attention": "ulysses"}),
    (4, "vit-token", {"context": 4, "attention": "gather"}),
    (4, "vit-token", {"context": 4, "attention": "lss"}),
    (4, "vit-token", {"context": 4, "attention": "ring"}),
    (4, "vit-token", {"context": 4, "attention": "ulysses"}),
    (3, "vit-token", {"context": 3, "attention": "ring", "recompute": "full"}),
    (2, "vit", {"context": 2, "recompute": "selective"}),
    (4, "vit-dense", {"context": 2, "shard": 2}),
    (4, "vit-token", {"context": 2, "shard": 2, "attention": "ring", "wrap": "matrix"}),
    (4, "vit-dense", {"context": 2, "replicate": 2, "attention": "lss"}),
    (4, "vit-token", {"context": 2, "tensor": 2, "attention": "ulysses"}),
    (4, "vit", {"context": 2, "tensor": 2, "attention": "ring", "sequence": True}),
    (4, "vit-token", {"context": 2, "pipeline": 2}),
    (8, "vit", {"context": 2, "shard": 2, "tensor": 2, "recompute": "full"}),
)  # fmt: skip
def test_a_layout_follows_one_process(ranks, number, name, parallel):
    follows(ranks, number, name, parallel)


@rows(
    (2, "vit", {"context": 2}),
    (2, "vit", {"context": 2, "attention": "lss"}),
    (2, "vit", {"context": 2, "attention": "ring"}),
    (2, "vit", {"context": 2, "attention": "ulysses"}),
)  # fmt: skip
def test_a_layout_follows_one_process_in_float32(ranks, number, name, parallel):
    follows_in_float32(ranks, number, name, parallel)
