"""How the bands of any sensor become inputs of a model that takes any (model.embed=wavelengths).

Each store of its run was normalised by its own statistics, and the model keeps them. So bands of a
sensor that it was trained on are normalised as in training, and those of another one by statistics
of their own: there are none that would be right.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from swath.config import ConfigError
from swath.data.normalize import Normalizer
from swath.data.sensor import Band, other_light
from swath.train.export import LoadedModel

log = logging.getLogger(__name__)


def sensors_of(model: LoadedModel, store: str = "") -> list[tuple[tuple[Band, ...], Normalizer]]:
    """Return bands and normalisation of each store that ``model`` was trained on; that of the
    fingerprint ``store`` comes first."""
    trained = model.about.trained
    every = [(trained.store, model.inputs.bands, model.normalize)]
    every += [(one.store, one.bands, one.normalize) for one in trained.also]
    every.sort(key=lambda one: one[0] != store)
    return [(bands, normalize) for _, bands, normalize in every]


def normalizer_of(
    model: LoadedModel, bands: Sequence[Band], where: str, store: str = ""
) -> Normalizer | None:
    """Return how pixels of ``bands`` became inputs in training; None: it knew no such sensor, and
    they are normalised by their own statistics, which is said.

    where: begins messages. store: fingerprint of the store that they are in. ConfigError for a band
    that tells the model nothing: without a wavelength, and of a name that it never met.
    """
    sensors = sensors_of(model, store)
    for known, normalize in sensors:
        if (found := _some(known, normalize, bands)) is not None:
            return found
    names = list(dict.fromkeys(b.name for known, _ in sensors for b in known))
    strange = [b.name for b in bands if b.wavelength_nm is None and b.name not in names]
    if strange:
        raise ConfigError(
            f"{where}: no wavelength is known of {', '.join(strange)}, and the model was trained on"
            f" no band of that name, but on {', '.join(names)}: it would read it by weights that"
            " nothing taught it. Give its sensor a wavelength_nm, or leave it out (data.bands)"
        )
    log.info(
        "%s: of another sensor than the run's, bands %s; normalised by its own statistics",
        *(where, ", ".join(band.name for band in bands)),
    )
    return None


def _some(known: Sequence[Band], normalize: Normalizer, bands: Sequence[Band]) -> Normalizer | None:
    there, asked = [b.name for b in known], [b.name for b in bands]
    if other_light(known, bands):
        return None
    if there == asked:
        return normalize
    if len(set(there)) < len(there) or not set(asked) <= set(there):
        return None
    return normalize.only([there.index(name) for name in asked])
