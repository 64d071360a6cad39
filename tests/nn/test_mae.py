"""The masked autoencoder against Hugging Face's, an independent implementation."""

import numpy as np
import pytest
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from swath.data.chip import Batch, Label
from swath.data.sensor import Band
from swath.models import Inputs
from swath.models.mae import MAE
from swath.nn.mae import MaskedAutoencoder, joined, patches_of, shown_of
from swath.nn.position import waves
from swath.tasks.pretrain import Pretrain

BANDS, SIZE, PATCH = 5, 24, 4
INPUTS = Inputs(bands=tuple(Band(name=f"B{i}") for i in range(BANDS)), size=SIZE)
LABEL = Label(kind="none")
SMALL = {"width": 32, "depth": 3, "heads": 4, "patch": PATCH}
SMALL |= {"decoder_width": 24, "decoder_depth": 2, "decoder_heads": 3, "mask_ratio": 2 / 3}


def network(task: Pretrain | None = None, **settings) -> MaskedAutoencoder:
    torch.manual_seed(0)
    outputs = (task or Pretrain()).bind(LABEL, None, INPUTS).outputs
    return MAE(**{**SMALL, **settings}).build(INPUTS, outputs)


def batch(samples: int = 3, size: int = SIZE) -> Batch:
    image = torch.from_numpy(np.random.default_rng(3).normal(size=(samples, BANDS, size, size)))
    at = torch.arange(samples)
    return Batch(
        image=image,
        valid=torch.ones(samples, size, size, dtype=torch.bool),
        target=None,
        positions=at,
        indices=at,
        seed=0,
        keys=at + 2**40,
    )


def theirs(ours: MaskedAutoencoder, normalise: bool) -> ViTMAEForPreTraining:
    """Return Hugging Face's network with the weights of ``ours``."""
    config = ViTMAEConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128,
        image_size=SIZE, patch_size=PATCH, num_channels=BANDS, layer_norm_eps=1e-6,
        decoder_hidden_size=24, decoder_num_hidden_layers=2, decoder_num_attention_heads=3,
        decoder_intermediate_size=96, mask_ratio=2 / 3, norm_pix_loss=normalise,
    )  # fmt: skip
    other = ViTMAEForPreTraining(config).to(next(ours.parameters()).dtype)
    renamed = {their_name(name): value for name, value in ours.state_dict().items()}
    for name in ("vit.embeddings.cls_token", "decoder.mask_token"):
        renamed[name] = renamed[name].view(1, 1, -1)
    # Theirs would be zeros: the fixed waves come with its checkpoints. A class token has no place.
    for name, width in (
        ("vit.embeddings.position_embeddings", 32),
        ("decoder.decoder_pos_embed", 24),
    ):
        places = waves(SIZE // PATCH, SIZE // PATCH, width)
        renamed[name] = torch.cat([torch.zeros(1, width), places])[None]
    other.load_state_dict(renamed)
    return other


def their_name(name: str) -> str:
    """Return Hugging Face's name of our parameter ``name``."""
    start = (
        ("decoder_blocks.", "decoder.decoder_layers."),
        ("blocks.", "vit.layers."),
        ("norm.", "vit.layernorm."),
        ("patch_embed.proj", "vit.embeddings.patch_embeddings.projection"),
        ("cls_token", "vit.embeddings.cls_token"),
        ("decoder_", "decoder.decoder_"),
        ("mask_token", "decoder.mask_token"),
    )
    ours, others = next((a, b) for a, b in start if name.startswith(a))
    name = others + name.removeprefix(ours)
    for ours, others in (
        *((f".attn.{layer}.", f".attention.{layer}_proj.") for layer in "qkv"),
        (".attn.proj.", ".attention.o_proj."),
        (".norm1.", ".layernorm_before."),
        (".norm2.", ".layernorm_after."),
    ):
        name = name.replace(ours, others)
    return name


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_output_loss_and_gradients_are_those_of_another_implementation(normalise, dtype):
    """Hugging Face's ViTMAE with the same weights and the same patches hidden."""
    task = Pretrain(normalise=normalise)
    objective = task.bind(LABEL, None, INPUTS)
    ours = network(task, class_token=True).to(dtype)
    for p in ours.parameters():  # biases and scales are more than zeros and ones
        p.data += 0.1 * torch.randn_like(p)
    other = theirs(ours, normalise)
    samples = batch()
    samples.image = samples.image.to(dtype)
    shown, asked = objective.drawn(ours, samples)
    assert shown.shape == (3, 12) and asked.shape == (3, 24)
    noise = torch.cat([shown, asked], 1).argsort(1).to(dtype)

    total, weight = objective.loss(ours, samples)
    (total / weight).backward()
    answer = other(samples.image, noise=noise)
    answer.loss.backward()

    near = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close((total / weight).to(dtype), answer.loss, **near)
    rows = asked[:, :, None].expand(-1, -1, answer.logits.shape[2])
    found = ours(samples.image, shown, asked)
    torch.testing.assert_close(found, answer.logits.gather(1, rows), **near)
    of = dict(other.named_parameters())
    for name, p in ours.named_parameters():
        if p.requires_grad:
            grad = of[their_name(name)].grad.view_as(p)
            torch.testing.assert_close(
                p.grad, grad, **near, msg=lambda text, n=name: f"{n}: {text}"
            )


@pytest.mark.parametrize("decoder", ["full", "cross"])
def test_what_is_hidden_does_not_reach_the_output(decoder):
    """Not through the encoder, the decoder or the positions: hidden patches may hold anything."""
    model, one, other = network(decoder=decoder).double(), batch(), batch()
    shown, asked = Pretrain().bind(LABEL, None, INPUTS).drawn(model, one)
    seen = torch.zeros(3, 36, dtype=torch.bool).scatter(1, shown, True)
    pixels = joined(seen[..., None].expand(-1, -1, PATCH**2), (6, 6), 1).expand_as(one.image)
    other.image = torch.where(pixels, one.image, 1000.0)
    assert torch.equal(model(one.image, shown, asked), model(other.image, shown, asked))
    assert not torch.allclose(model(one.image), model(other.image))


def test_the_cross_decoder_fills_in_each_patch_alone():
    """Asked for others too, a patch gets the same answer; with the full decoder it does not."""
    samples = batch()
    for decoder, alone in (("cross", True), ("full", False)):
        model = network(decoder=decoder).double()
        patches, shown, asked = model.numbers(SIZE, SIZE)
        assert (patches, shown, asked) == (36, 12, 8 if alone else 24)
        order = torch.arange(36).expand(3, -1)
        few = model(samples.image, order[:, :12], order[:, 12:15])
        many = model(samples.image, order[:, :12], order[:, 12:])[:, :3]
        assert torch.allclose(few, many, rtol=0, atol=1e-12) == alone


@pytest.mark.parametrize("decoder", ["full", "cross"])
@pytest.mark.parametrize("token", [False, True])
def test_the_links_in_a_row_are_the_network(decoder, token):
    """What a pipeline cuts between: with some patches shown, and of a whole image of odd size."""
    model, samples = network(decoder=decoder, class_token=token).double(), batch(size=SIZE + 3)
    for given in (model.usual(samples.image), (samples.image,)):
        x = samples.image
        for link in model.chain():
            x = link.run(x, *given)
        torch.testing.assert_close(x, model(*given), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("linked", [False, True])
def test_the_last_block_of_the_decoder_works_on_what_is_read(linked):
    """Its other tokens go nowhere: only their keys and values are needed."""
    model, samples = network(class_token=True).double(), batch()
    worked = []
    for block in model.decoder_blocks:
        block.mlp.register_forward_pre_hook(lambda _, args: worked.append(args[0].shape[1]))
    given = model.usual(samples.image)
    for told in ({}, {"both": True}):
        x = samples.image
        if linked:
            for link in model.chain():
                x = link.run(x, *given, **told)
        else:
            model(*given, **told)
    assert worked == [37, 24, 37, 36]


@pytest.mark.parametrize("embed", ["bands", "wavelengths"])
def test_a_vit_takes_the_encoder_by_name(embed):
    """Its tokens are then those of the encoder, of images of any size."""
    from swath.models import Outputs
    from swath.models.vit import ViT

    inputs = Inputs(
        bands=tuple(Band(name=f"B{i}", wavelength_nm=500.0 + i) for i in range(5)), size=24
    )
    encoder = {
        "width": 32,
        "depth": 2,
        "heads": 4,
        "patch": 4,
        "embed": embed,
        "positions": "waves",
    }
    mae = MAE(**encoder, class_token=True).build(
        inputs, Pretrain().bind(LABEL, None, inputs).outputs
    )
    vit = ViT(**encoder).build(inputs, Outputs(channels=7, dense=False))
    left = vit.load_state_dict(mae.state_dict(), strict=False)
    assert set(left.missing_keys) == {"head.weight", "head.bias"}
    assert all(n.startswith(("decoder_", "mask_token")) for n in left.unexpected_keys)
    image = torch.randn(2, 5, 30, 21)
    torch.testing.assert_close(vit.tokens(image)[0], mae.tokens(image)[0])


def test_weights_of_the_papers_code_load():
    """With a leading 1 on tokens and positions, and queries, keys and values in one layer."""
    model = network(class_token=True, positions="learned")
    state = dict(network(class_token=True, positions="learned", mask_ratio=0.5).state_dict())
    for name in ("cls_token", "mask_token"):
        state[name] = state[name].view(1, 1, -1)
    for name in ("pos_embed", "decoder_pos_embed"):
        state[name] = state[name][None]
    for block in ("blocks.0", "decoder_blocks.0"):
        for kind in ("weight", "bias"):
            parts = [state.pop(f"{block}.attn.{layer}.{kind}") for layer in "qkv"]
            state[f"{block}.attn.qkv.{kind}"] = torch.cat(parts)
    model.load_state_dict(state)


@pytest.mark.parametrize(
    ("patches", "ratio", "shown"),
    [
        (196, 0.75, 48), (64, 0.75, 16), (144, 0.75, 32), (36, 0.75, 8), (25, 0.75, 6),
        (16, 0.75, 4), (196, 0.9, 20), (4, 0.99, 1), (4, 0.01, 3), (1024, 0.75, 256),
    ],
)  # fmt: skip
def test_how_many_are_shown_is_rounded_where_that_is_near(patches, ratio, shown):
    assert shown_of(patches, ratio) == shown


def test_patches_are_those_of_the_papers_order_and_join_again():
    """Row by row, a pixel's bands together."""
    image = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    patches = patches_of(image, 2)
    assert patches.shape == (2, 6, 12)
    assert patches[1, 4].tolist() == image[1, :, 2:4, 2:4].permute(1, 2, 0).flatten().tolist()
    assert torch.equal(joined(patches, (2, 3), 3), image)


def test_fixed_positions_are_those_of_the_papers_weights():
    """Sines of the column, its cosines, then of the row, at rates 10000^(-i / (d/4))."""
    found, width = waves(3, 4, 16), 16
    for row in range(3):
        for col in range(4):
            at = [
                wave(place * 10000 ** (-i / (width / 4)))
                for place in (col, row)
                for wave in (np.sin, np.cos)
                for i in range(width // 4)
            ]
            np.testing.assert_allclose(found[4 * row + col].numpy(), at, atol=1e-6)
