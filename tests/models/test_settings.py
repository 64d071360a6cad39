"""Settings of models that cannot be meant, and what the message says."""

import pytest

from swath.config import ConfigError, find, kinds
from swath.data.sensor import Band
from swath.models import Inputs, Model, Outputs
from swath.models.conv3d import Conv3d
from swath.models.resnet import ResNet
from swath.models.unet import UNet
from swath.models.vit import ViT

RADAR = Inputs(bands=(Band(name="B04", wavelength_nm=665), Band(name="VV")), size=9)
SINGLE, DENSE = Outputs(channels=2, dense=False), Outputs(channels=2, dense=True)


def fitting(dense: bool) -> str:
    """Return the families with such outputs, as a message names them."""
    families = {kind: find(Model, kind) for kind in kinds(Model)}
    fit = (k for k, one in families.items() if one.dense in (None, dense) and not one.masked)
    return " or ".join(fit)


@pytest.mark.parametrize(
    "cls, settings, message",
    [
        (UNet, {"encoder": "resnet18", "depth": 4}, "depth=4 has no effect with encoder=resnet18"),
        (UNet, {"depth": 0}, r"depth=0 in 1\.\.8"),
        (UNet, {"dropout": 1.0}, "dropout=1.0 must be"),
        (ResNet, {"dropout": -0.1}, "dropout=-0.1 must be"),
        (
            ViT,
            {"preset": "base", "depth": 6, "heads": 3},
            "preset=base has a depth of its own; leave out preset or depth, heads",
        ),
        (ViT, {"width": 100}, "width=100 must be a multiple of heads=6"),
        (ViT, {"width": 30, "heads": 3, "positions": "waves"}, "a width that 4 divides, not 30"),
        (ViT, {"drop_path": 1.0}, "drop_path=1.0 must be"),
        (Conv3d, {"filters": ()}, "filters needs one entry"),
        (Conv3d, {"strides": (2, 2)}, r"strides=\[2, 2\] must have a step .* 3 convolutions"),
        (Conv3d, {"hidden": (), "dropout": 0.5}, "no effect without hidden layers"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(cls, settings, message):
    with pytest.raises(ConfigError, match=message):
        cls(**settings)


@pytest.mark.parametrize(
    "settings, outputs, message",
    [
        (
            UNet(),
            SINGLE,
            f"every pixel.* one output for each image; choose model.kind {fitting(dense=False)}$",
        ),
        (
            ResNet(),
            DENSE,
            f"resnet gives one output for each image, and .* model.kind {fitting(dense=True)}$",
        ),
        (
            Conv3d(),
            DENSE,
            f"conv3d gives one output for each image, and .* model.kind {fitting(dense=True)}$",
        ),
        (Conv3d(), SINGLE, "nothing is left of windows of 9 px and 2 bands after 3 convolutions"),
        (ViT(patch=4, pool="mean"), DENSE, "pool=mean has no effect"),
        (ViT(patch=16), SINGLE, r"patch=16 is larger than the samples \(9 px\); make it 9 or less"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused(settings, outputs, message):
    with pytest.raises(ConfigError, match=message):
        settings.build(RADAR, outputs)
