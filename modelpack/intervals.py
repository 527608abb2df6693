"""Confidence intervals of the difference between two models' metrics on the same samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from modelpack.metrics import Auc, Mean, Measured
from modelpack.samples import Array

CONFIDENCE = 0.95
RESAMPLES = 1000

# The quantile of the standard normal distribution at 0.975.
_NORMAL = 1.959963984540054

# Elements of one block of weights: bounds the memory of the resamples.
_BLOCK = 1 << 20


def difference_interval(
    candidate: Measured, reference: Measured, samples: int, seed: int = 0
) -> tuple[float, float]:
    """The 95 % confidence interval of ``candidate - reference``, samples drawn in pairs.

    Accuracy (of one decision a sample) and AUC have closed forms. Others are resampled: the
    2.5 % and 97.5 % quantiles of the difference over 1000 resamples of the samples, both
    models on the same ones (B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap,
    1993, section 13.3).

    Args:
        candidate: measured on all samples.
        reference: likewise, by the same metric.
        samples: how many there are.
        seed: of the resamples.
    """
    if isinstance(candidate, Mean) and isinstance(reference, Mean) and candidate.binary:
        return _of_proportions(candidate.terms, reference.terms)
    if isinstance(candidate, Auc) and isinstance(reference, Auc):
        return _of_areas(candidate, reference)
    differences = np.concatenate(
        [
            candidate.resampled(weights) - reference.resampled(weights)
            for weights in _resamples(samples, seed)
        ]
    )
    low, high = np.quantile(differences, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _of_proportions(candidate: Array, reference: Array) -> tuple[float, float]:
    """Wald's interval for matched pairs, with half a pair added to each of the four cells.

    A. Agresti and Y. Min, Simple improved confidence intervals for comparing matched
    proportions, Statistics in Medicine 24 (2005). Unlike a bootstrap's, it is no point where
    both models are right on the same samples.
    """
    count = len(candidate) + 2.0
    gained = np.count_nonzero(candidate > reference) + 0.5
    lost = np.count_nonzero(candidate < reference) + 0.5
    centre = (gained - lost) / count
    reach = _NORMAL * np.sqrt(gained + lost - (gained - lost) ** 2 / count) / count
    return max(float(centre - reach), -1.0), min(float(centre + reach), 1.0)


def _of_areas(candidate: Auc, reference: Auc) -> tuple[float, float]:
    """Normal, with the variance of the mean influence (see `modelpack.metrics.Auc`)."""
    influence = candidate.influence - reference.influence
    reach = _NORMAL * float(np.sqrt(np.mean(influence**2) / len(influence)))
    centre = candidate.value - reference.value
    return centre - reach, centre + reach


def _resamples(samples: int, seed: int) -> Iterator[Array]:
    """How often each sample is drawn, block by block: ``(some resamples, samples)``."""
    rng = np.random.default_rng(seed)
    rows = max(_BLOCK // samples, 1)
    for begin in range(0, RESAMPLES, rows):
        count = min(rows, RESAMPLES - begin)
        drawn = rng.integers(0, samples, (count, samples))
        drawn += np.arange(count)[:, np.newaxis] * samples
        counts = np.bincount(drawn.ravel(), minlength=count * samples)
        yield counts.reshape(count, samples).astype(np.float64)
