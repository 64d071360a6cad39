"""Arrays from .npy, MATLAB .mat and raster files (ENVI, GeoTIFF, ...), with clear errors."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

import numpy as np

from swath.config import ConfigError, no_such


@dataclass(frozen=True)
class Loaded:
    """An array as its file holds it: (h, w) or (h, w, c), and its place if the file has one."""

    values: np.ndarray
    transform: tuple[float, ...] | None = None
    crs: str | None = None


def load_array(path: str, dims: int, key: str | None = None) -> Loaded:
    """Return the array of ``dims`` 2 (h, w) or 3 (h, w, c) in ``path``; ConfigError if not there.

    key: name of the variable in a .mat file; None if only one has so many dimensions.
    """
    file = pathlib.Path(path)
    if not file.exists():
        raise no_such(path)
    if key is not None and file.suffix != ".mat":
        raise ConfigError(f"{path}: the variable {key!r} is named, but only a .mat file has any")
    if file.suffix == ".npy":
        loaded = Loaded(_npy(file))
    elif file.suffix == ".mat":
        loaded = Loaded(_mat(file, dims, key))
    else:
        loaded = _raster(file, dims)
    if loaded.values.ndim != dims:
        raise ConfigError(f"{path}: has shape {loaded.values.shape}; expected {dims} dimensions")
    if loaded.values.dtype.kind not in "iuf":
        raise ConfigError(f"{path}: holds {loaded.values.dtype}, not real numbers")
    return loaded


def _npy(file: pathlib.Path) -> np.ndarray:
    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ConfigError(f"{file}: is not a .npy array, or is damaged ({error})") from error


def _mat(file: pathlib.Path, dims: int, key: str | None) -> np.ndarray:
    import scipy.io

    try:
        found = scipy.io.loadmat(file)
    except NotImplementedError as error:
        raise ConfigError(f"{file}: is MATLAB 7.3 (HDF5); save it again with '-v7'") from error
    except Exception as error:  # scipy raises many kinds at damaged files
        raise ConfigError(f"{file}: is not a .mat file, or is damaged ({error})") from error
    arrays = {k: v for k, v in found.items() if isinstance(v, np.ndarray) and k[0] != "_"}
    shapes = ", ".join(f"{k} {v.shape}" for k, v in arrays.items()) or "no arrays"
    if key is not None and key not in arrays:
        raise ConfigError(f"{file}: has no variable {key!r}; it has {shapes}")
    fitting = [key] if key else [k for k, v in arrays.items() if v.ndim == dims]
    if len(fitting) != 1:
        raise ConfigError(f"{file}: say which variable to read; it has {shapes}")
    return arrays[fitting[0]]


def _raster(file: pathlib.Path, dims: int) -> Loaded:
    from swath.geo.raster import lacking, open_raster

    if file.suffix == ".hdr":  # GDAL opens the image that an ENVI header describes
        inner = [file.with_suffix(s) for s in ("", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip")]
        there = [f for f in inner if f.is_file()]
        if not there:
            raise ConfigError(f"{file}: the image that this header describes is not beside it")
        file = there[0]
    with open_raster(file) as raster:
        values = raster.read(1) if dims == 2 else raster.read().transpose(1, 2, 0)
        if lacking(raster):
            return Loaded(values)
        return Loaded(values, tuple(raster.transform)[:6], raster.crs.to_string())
