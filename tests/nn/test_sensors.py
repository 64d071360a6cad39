"""One model, several sensors: what was learned on one set of bands holds on another."""

import torch
import torch.nn.functional as F

from swath.data.chip import Known
from swath.data.sensor import Band
from swath.models import Inputs, Outputs
from swath.models.vit import ViT

TRAINED = (443.0, 490.0, 560.0, 665.0, 842.0, 945.0)
UNSEEN = (460.0, 530.0, 600.0, 760.0, 900.0)


def draw(nm: tuple[float, ...], samples: int, generator: torch.Generator):
    """Spectra that rise (class 1) or fall (class 0) with the wavelength, under a brightness of
    their own and noise in every pixel; (b, c, 8, 8)."""
    kind = torch.randint(2, (samples,), generator=generator)
    slope = (2 * kind - 1)[:, None] * (torch.tensor(nm) - 700) / 250
    brightness = torch.randn(samples, 1, generator=generator)
    noise = torch.randn(samples, len(nm), 8, 8, generator=generator)
    return (slope + brightness)[..., None, None] + 0.5 * noise, kind


def test_a_model_trained_on_one_sensor_reads_another():
    """Above 95 % on five bands it never saw; and below 5 % if their wavelengths are told in
    reverse, which shows that it reads them and not the bands' order."""
    torch.manual_seed(0)
    bands = tuple(Band(name=f"{nm:g}", wavelength_nm=nm) for nm in TRAINED)
    settings = ViT(width=16, depth=1, heads=2, patch=4, embed="wavelengths", pool="mean")
    model = settings.build(Inputs(bands=bands, size=8), Outputs(channels=2, dense=False))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    for _ in range(60):
        image, kind = draw(TRAINED, 32, generator)
        optimizer.zero_grad()
        F.cross_entropy(model(image), kind).backward()
        optimizer.step()
    model.eval()
    image, kind = draw(UNSEEN, 400, generator)
    told = tuple(Band(name=f"{nm:g}", wavelength_nm=nm) for nm in UNSEEN)
    right, reverse = (
        (model(image, Known(bands=bands)).argmax(1) == kind).float().mean()
        for bands in (told, told[::-1])
    )
    assert right > 0.95
    assert reverse < 0.05
