"""Random numbers by place, not by turn: a draw is a pure function of (seed, position, stream).

Nothing is advanced, so any rank can make the draws of any sample in any order, and a resumed run
makes the same ones. A stream is a word for what the draw is for ("flip", "noise"): draws of
different streams are independent.

The function is three chained SplitMix64 finishers, over seed and stream, then position, then the
number of the draw. Sources: Salmon et al. 2011 (doi:10.1145/2063384.2063405) for drawing by
counter; Steele, Lea, Flood 2014 (doi:10.1145/2660193.2660195) for the finisher.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np

from swath.config import ConfigError

_STEP = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: SplitMix64's counter step


def mix(x: np.ndarray) -> np.ndarray:
    """Return uint64 ``x`` scrambled one to one: SplitMix64's output for the counter ``x``."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        x = x + np.uint64(_STEP)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def bits(seed: int, positions: np.ndarray, stream: str, count: int) -> np.ndarray:
    """Return ``count`` words of 64 random bits for each position (n,): uint64 (n, count)."""
    places = mix(np.asarray(positions).astype(np.uint64) + _root(seed, stream))
    numbers = np.arange(count, dtype=np.uint64) * np.uint64(_STEP)
    return mix(places[:, None] + numbers)


def uniform(seed: int, positions: np.ndarray, stream: str, count: int = 1) -> np.ndarray:
    """Return draws from [0, 1): float64 (n, count), on a lattice of 2^-53."""
    return (bits(seed, positions, stream, count) >> np.uint64(11)) * 2.0**-53


def normal(seed: int, positions: np.ndarray, stream: str, count: int = 1) -> np.ndarray:
    """Return draws of mean 0 and standard deviation 1: float64 (n, count), by Box and Muller."""
    pairs = uniform(seed, positions, stream, 2 * -(-count // 2))
    radius = np.sqrt(-2.0 * np.log1p(-pairs[:, 0::2]))  # 1 - u is in (0, 1], so never log 0
    angle = 2 * np.pi * pairs[:, 1::2]
    both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return both.reshape(len(pairs), -1)[:, :count]


def key(seed: int, position: int, stream: str) -> int:
    """Return a seed of 63 bits for a generator that has to advance, such as torch's."""
    return int(bits(seed, np.array([position]), stream, 1)[0, 0] >> np.uint64(1))


def keys(seed: int, positions: np.ndarray, stream: str) -> np.ndarray:
    """Return :func:`key` of each position (n,): int64 (n,)."""
    return (bits(seed, positions, stream, 1)[:, 0] >> np.uint64(1)).astype(np.int64)


@functools.lru_cache(maxsize=4096)
def _root(seed: int, stream: str) -> np.uint64:
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed={seed}: a seed is a whole number from 0 to 2^63 - 1")
    word = hashlib.blake2b(stream.encode(), digest_size=8).digest()
    return mix(mix(np.array([seed], np.uint64)) ^ np.frombuffer(word, "<u8"))[0]
