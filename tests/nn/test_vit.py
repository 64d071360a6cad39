"""The transformer's parts against torch's own layers and closed forms."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from swath.config import ConfigError
from swath.data.chip import Known
from swath.data.sensor import Band, load_sensor
from swath.models import Inputs, Outputs
from swath.models.vit import ViT
from swath.nn import transfer
from swath.nn.attention import Attention
from swath.nn.block import Block, DropPath, GatedMlp
from swath.nn.patch import PatchEmbed, SpectralHead, SpectralPatchEmbed, codes
from swath.nn.position import kept_waves, resized, waves

NM = (443.0, 490.0, 560.0, 665.0, 842.0, 1610.0)


def small(dense: bool = False, size: int = 16, bands=NM, **settings) -> nn.Module:
    torch.manual_seed(0)
    inputs = Inputs(bands=tuple(Band(name=f"{nm:g}", wavelength_nm=nm) for nm in bands), size=size)
    chosen = {"width": 24, "depth": 2, "heads": 3, "patch": 4, **settings}
    return ViT(**chosen).build(inputs, Outputs(channels=3, dense=dense)).double().eval()


def test_a_block_is_torchs_encoder_layer():
    """nn.TransformerEncoderLayer, norm first, with the same weights: outputs and gradients."""
    torch.manual_seed(0)
    mine = Block(24, 3, 96).double()
    theirs = nn.TransformerEncoderLayer(
        24, 3, 96, dropout=0, activation=F.gelu, layer_norm_eps=1e-6, batch_first=True,
        norm_first=True, dtype=torch.float64,
    )  # fmt: skip
    names = {
        "norm1": "norm1", "norm2": "norm2", "attn.proj": "self_attn.out_proj",
        "mlp.fc1": "linear1", "mlp.fc2": "linear2",
    }  # fmt: skip
    state = {
        f"{their}.{part}": mine.state_dict()[f"{my}.{part}"]
        for my, their in names.items()
        for part in ("weight", "bias")
    }
    for part in ("weight", "bias"):
        of_each = [getattr(getattr(mine.attn, name), part) for name in "qkv"]
        state[f"self_attn.in_proj_{part}"] = torch.cat(of_each)
    theirs.load_state_dict(state)
    x = torch.randn(2, 7, 24, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(mine(x), theirs(x), rtol=1e-10, atol=1e-12)
    (a,) = torch.autograd.grad(mine(x).pow(2).sum(), x)
    (b,) = torch.autograd.grad(theirs(x).pow(2).sum(), x)
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_attention_does_not_know_the_order_of_tokens():
    attention = Attention(12, 2).double()
    x = torch.randn(1, 6, 12, dtype=torch.float64)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(attention(x)[:, order], attention(x[:, order]))


def test_the_keys_bias_gets_no_gradient():
    """Its true gradient is 0; in float32 the rounding noise would become steps of Adam."""
    attention = Attention(12, 2)
    attention(torch.randn(2, 5, 12)).pow(2).sum().backward()
    assert attention.q.bias.grad.any() and attention.v.bias.grad.any()
    assert attention.k.bias.grad is None


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    out = drop(torch.ones(20_000, 2, 3))
    kept = out[:, 0, 0] > 0
    assert torch.equal(out, torch.where(kept, 1 / 0.75, 0.0)[:, None, None].expand(-1, 2, 3))
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.015)  # 5 standard errors
    assert torch.equal(drop.eval()(torch.ones(2, 2, 3)), torch.ones(2, 2, 3))


def test_waves_tell_places_by_distance_alone():
    """The dot product of two places' waves must depend only on how far apart they are."""
    places = waves(6, 7, 32).double().unflatten(0, (6, 7))
    same = (places[1, 2] @ places[3, 3], places[2, 4] @ places[4, 5])
    assert same[0].item() == pytest.approx(same[1].item(), rel=1e-5)
    assert (places.flatten(0, 1) @ places[2, 2]).argmax() == 2 * 7 + 2


def test_learned_positions_keep_their_grid_and_stretch_to_others():
    """A plane of values stays a plane, and all are what torch's own bicubic stretching makes of
    them; the same grid is left alone, to the bit."""
    row, col = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    places = torch.stack([row, col], 2).flatten(0, 1)
    assert resized(places, (8, 8), (8, 8)) is places
    found = resized(places, (8, 8), (16, 16)).unflatten(0, (16, 16))
    inner = (torch.arange(16.0)[4:-4] + 0.5) / 2 - 0.5  # beyond these edges are felt
    torch.testing.assert_close(found[4:-4, 0, 0], inner, rtol=0, atol=1e-5)
    torch.testing.assert_close(found[0, 4:-4, 1], inner, rtol=0, atol=1e-5)
    table = torch.randn(24, 5, dtype=torch.float64, requires_grad=True)
    for wanted in ((9, 5), (3, 7)):
        image = table.T.reshape(1, 5, 4, 6)
        theirs = F.interpolate(image, size=wanted, mode="bicubic", antialias=True)
        ours = resized(table, (4, 6), wanted)
        torch.testing.assert_close(ours, theirs[0].flatten(1).T)
        one, two = (torch.autograd.grad(each.pow(2).sum(), table)[0] for each in (ours, theirs))
        torch.testing.assert_close(one, two)


def test_a_larger_image_is_told_the_places_that_training_on_it_would_begin_with():
    """Stretched at run time, or once by init."""
    model = ViT(width=16, depth=1, heads=2, patch=4)
    bands, outputs = (Band(name="a"),), Outputs(channels=2, dense=False)
    small, large = (model.build(Inputs(bands=bands, size=n), outputs) for n in (16, 24))
    begun = {n: v for n, v in small.state_dict().items() if n != "pos_embed"}
    places = transfer.places(small.pos_embed.detach(), (4, 4), (6, 6), (1, 1))
    large.load_state_dict({**begun, "pos_embed": places})
    image = torch.randn(1, 1, 24, 24)
    torch.testing.assert_close(small.embedded(image), large.embedded(image))


def test_patch_projection_is_a_matrix_product():
    """Token (i, j) is the flattened patch times the weights, plus the bias."""
    torch.manual_seed(0)
    embed = PatchEmbed(("a", "b"), 3, 5).double()
    image = torch.randn(1, 2, 6, 9, dtype=torch.float64)
    patch = image[0, :, 3:6, 6:9].flatten()
    expected = embed.proj.weight.flatten(1) @ patch + embed.proj.bias
    torch.testing.assert_close(embed(image)[0, :, 1, 2], expected)


def test_dense_output_is_written_patch_by_patch():
    """Pixel (r, c) of class k is row k p² + (r mod p) p + (c mod p) of its token's head."""
    model = small(dense=True)
    image = torch.randn(1, 6, 16, 16, dtype=torch.float64)
    tokens, grid = model.tokens(image)
    assert grid == (4, 4)
    out, r, c, k = model(image), 9, 14, 2
    row = k * 16 + (r % 4) * 4 + c % 4
    expected = model.head(tokens[0, (r // 4) * 4 + c // 4])[row]
    assert out[0, k, r, c].item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_what_the_head_reads(pool):
    model = small(pool=pool)
    image = torch.randn(2, 6, 16, 16, dtype=torch.float64)
    tokens, _ = model.tokens(image)
    assert tokens.shape[1] == 16 + (pool == "token")
    read = tokens[:, 0] if pool == "token" else tokens.mean(1)
    torch.testing.assert_close(model(image), model.head(read))


@pytest.mark.parametrize("positions", ["learned", "waves"])
def test_positions_matter(positions):
    """Without them the mean of the tokens cannot see that two patches changed places."""
    model = small(pool="mean", positions=positions)
    image = torch.randn(1, 6, 16, 16, dtype=torch.float64)
    moved = image.roll(4, dims=3)
    assert (model(image) - model(moved)).abs().max() > 1e-9
    if positions == "learned":
        torch.nn.init.zeros_(model.pos_embed)
        torch.testing.assert_close(model(image), model(moved), rtol=1e-13, atol=1e-14)


def test_names_and_shapes_are_those_of_timm_without_leading_ones():
    """A public ViT's weights load: (1, N, D) and (1, 1, D) become (N, D) and (D,)."""
    model, other = small(), small()
    state = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    assert state["pos_embed"].shape == (17, 24) and state["cls_token"].shape == (24,)
    theirs = {
        **{name: value for name, value in state.items() if ".attn." not in name},
        "pos_embed": state["pos_embed"][None],
        "cls_token": state["cls_token"][None, None],
    }
    for block in ("blocks.0.attn", "blocks.1.attn"):
        for part in ("weight", "bias"):
            of_each = [state[f"{block}.{name}.{part}"] for name in "qkv"]
            theirs[f"{block}.qkv.{part}"] = torch.cat(of_each)
            theirs[f"{block}.proj.{part}"] = state[f"{block}.proj.{part}"]
    timm = {"patch_embed.proj.weight", "blocks.1.attn.qkv.bias", "blocks.0.norm2.weight",
            "blocks.1.mlp.fc2.weight", "norm.bias", "head.weight"}  # fmt: skip
    assert timm <= set(theirs)
    model.load_state_dict(theirs)
    other.load_state_dict(state)
    image = torch.randn(1, 6, 16, 16, dtype=torch.float64)
    assert torch.equal(model(image), other(image))


# One model, several sensors.


def seen(*nm: float) -> Known:
    return Known(bands=tuple(Band(name=f"{i}", wavelength_nm=w) for i, w in enumerate(nm)))


def test_order_of_bands_does_not_matter_with_wavelengths():
    """Bands shuffled together with their wavelengths are the same image, whatever their names."""
    model = small(embed="wavelengths")
    image, order = torch.randn(2, 6, 16, 16, dtype=torch.float64), [4, 0, 5, 2, 1, 3]
    shuffled = seen(*(NM[i] for i in order))
    own = model(image)
    torch.testing.assert_close(model(image, seen(*NM)), own)
    torch.testing.assert_close(model(image[:, order], shuffled), own)
    assert (model(image, shuffled) - own).abs().max() > 1e-6  # other wavelengths, other image


def test_a_band_given_twice_changes_nothing():
    """A token is a mean over the spectrum, so denser sampling alone must not scale it."""
    model = small(embed="wavelengths")
    image = torch.randn(1, 6, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(model(image.repeat(1, 2, 1, 1), seen(*NM, *NM)), model(image))


@pytest.mark.parametrize("bands", [1, 3, 200])
def test_a_model_takes_another_sensor(bands):
    model = small(embed="wavelengths")
    nm = torch.linspace(400, 2500, bands).tolist()
    out = model(torch.randn(1, bands, 20, 16, dtype=torch.float64), seen(*nm))
    assert out.shape == (1, 3) and out.isfinite().all()


def test_near_wavelengths_have_near_weights():
    """2 nm aside must be nearly the same projection, 300 nm aside another; over eight draws."""
    apart = []
    for seed in range(8):
        torch.manual_seed(seed)
        embed = SpectralPatchEmbed(seen(560.0).bands, 4, 24)
        here, near, far = embed.weights(seen(560.0, 562.0, 860.0).bands).unbind(1)
        apart.append([((here - other).norm() / here.norm()).item() for other in (near, far)])
    near, far = np.mean(apart, 0)
    assert near < 0.25 and far > 0.8


def test_tokens_begin_as_large_as_those_of_a_plain_layer():
    """Positions are added to both alike, and would drown what is much smaller."""
    bands = load_sensor("sentinel2_l1c").bands
    image, sizes = torch.randn(64, len(bands), 4, 4), []
    for seed in range(8):
        torch.manual_seed(seed)
        plain = PatchEmbed(tuple(band.name for band in bands), 4, 96)
        sizes.append((SpectralPatchEmbed(bands, 4, 96)(image).std() / plain(image).std()).item())
    assert 0.5 < np.mean(sizes) < 2


def test_bands_without_a_wavelength_are_told_apart_by_name():
    """The same name is the same band, of any instrument; no two names, and no wavelength, have
    weights as near as two neighbouring bands have."""
    torch.manual_seed(0)
    embed = SpectralPatchEmbed(seen(560.0).bands, 4, 24)
    names = ("VV", "VH", "HH", "HV", "elevation")
    bands = (*(Band(name=n) for n in names), Band(name="VV", gsd_m=3.0), *seen(*NM).bands)
    weights = embed.weights(bands)
    assert torch.equal(weights[:, 0], weights[:, len(names)])
    far = [(weights[:, 0] - weights[:, i]).norm() for i in range(1, len(bands)) if i != 5]
    assert min(far) > 0.5 * weights[:, 0].norm()
    assert codes(bands).shape == (12, 32)
    np.testing.assert_allclose((codes(bands) ** 2).sum(1), 16)  # all of one length


def test_tokens_and_predictions_start_at_the_scale_of_the_image():
    """At the first step tokens of a normalised image are of order 1, for 1 band or 200 alike, and
    so is what the head makes of tokens."""
    torch.manual_seed(0)
    for count in (1, 12, 200):
        bands = seen(*torch.linspace(420, 2400, count).tolist()).bands
        embed = SpectralPatchEmbed(bands, 8, 96)
        grey = torch.randn(8, 1, 32, 32).expand(-1, count, -1, -1)  # bands wholly correlated
        assert 0.2 < embed(grey).std().item() < 4
        filled = SpectralHead(bands, 8, 96)(torch.randn(2, 16, 96))
        assert filled.shape == (2, 16, 64 * count) and 0.2 < filled.std().item() < 3


def test_the_head_of_any_bands_writes_each_by_its_own_weights():
    """A pixel's bands together, as patches_of has them: against the layer of one band alone."""
    torch.manual_seed(0)
    head, tokens = SpectralHead(seen(*NM).bands, 2, 8), torch.randn(1, 3, 8)
    torch.nn.init.normal_(head.bias)
    every = head(tokens).unflatten(2, (4, len(NM)))
    for i, nm in enumerate(NM):
        torch.testing.assert_close(every[..., i], head(tokens, seen(nm)))


def test_places_may_be_counted_on_the_ground():
    """At 10 m a pixel they are the waves of patches; at 20 m those of an image twice as large,
    every other one."""
    every = waves(8, 8, 16).view(8, 8, 16)
    assert torch.equal(waves(4, 4, 16, step=2.0).view(4, 4, 16), every[::2, ::2])
    plain, ground = (small(positions=p, width=48) for p in ("waves", "metres"))
    image = torch.randn(1, 6, 16, 16, dtype=torch.float64)
    assert torch.equal(plain(image), ground(image, Known(gsd_m=10.0)))
    assert not torch.allclose(ground(image), ground(image, Known(gsd_m=30.0)))
    inputs = Inputs(bands=seen(*NM).bands, size=16, gsd_m=30.0)
    outputs = Outputs(channels=3, dense=False)
    trained = ViT(width=48, depth=2, heads=3, patch=4, positions="metres").build(inputs, outputs)
    trained.load_state_dict(ground.state_dict())
    trained.double().eval()
    assert torch.equal(trained(image), ground(image, Known(gsd_m=30.0)))


def test_missing_and_useless_bands_are_said():
    image = torch.randn(1, 4, 16, 16, dtype=torch.float64)
    with pytest.raises(ConfigError, match="4 bands and 2 are told of"):
        small(embed="wavelengths")(image, seen(500.0, 600.0))
    with pytest.raises(ConfigError, match="the image has 4 bands, the model was built for 6"):
        small(embed="wavelengths")(image)
    with pytest.raises(ConfigError, match=r"the image has bands 0, 1, .*embed=wavelengths"):
        small(bands=NM[:4])(image, seen(*NM[:4]))


def test_waves_are_made_once_for_a_grid_and_serve_training_after_a_map():
    """A map is made in inference mode, whose tensors autograd refuses."""
    kept_waves.cache_clear()
    model, image = small(positions="waves"), torch.randn(1, 6, 16, 16, dtype=torch.float64)
    with torch.inference_mode():
        first = model(image)
    loss = model(image.requires_grad_()).sum()
    loss.backward()
    assert kept_waves.cache_info().misses == 1 and kept_waves.cache_info().hits == 1
    found = kept_waves(4, 4, 24, torch.float64, torch.device("cpu"))
    assert torch.equal(found, waves(4, 4, 24).double()) and not found.is_inference()
    torch.testing.assert_close(loss, first.sum())


def test_a_gated_layer_is_its_formula():
    """SwiGLU: fc2(silu(fc1_g(x)) * fc1_x(x)), as in arXiv:2002.05202; names are timm's."""
    mlp = GatedMlp(6, 10).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    gate, value = (x @ layer.weight.T + layer.bias for layer in (mlp.fc1_g, mlp.fc1_x))
    inner = gate / (1 + torch.exp(-gate)) * value
    torch.testing.assert_close(mlp(x), inner @ mlp.fc2.weight.T + mlp.fc2.bias)
