"""Weights of a fixed anchor, in the forms in which a configuration may give them."""

from __future__ import annotations

from collections.abc import Sequence


def fixed_anchor_weights(weights: Sequence[float] | int | str | None, modalities: int) -> list[float]:
    """Weights of a fixed anchor, one per modality, that sum to 1.

    Args:
        weights: one non-negative number per modality, the index of one modality (one-hot), ``"uniform"``, or None: the
            same as uniform.
        modalities: their number M.

    Raises:
        ValueError: when the weights do not fit, are negative or all zero.
    """
    allowed = f"a list of {modalities} numbers, an index 0..{modalities - 1}, or 'uniform'"
    if weights is None or weights == "uniform":
        return [1.0 / modalities] * modalities
    if isinstance(weights, str | bool):
        raise ValueError(f"weights must be {allowed}; got {weights!r}")
    if isinstance(weights, int):
        if not 0 <= weights < modalities:
            raise ValueError(f"weights must be {allowed}; got {weights}")
        return [float(m == weights) for m in range(modalities)]
    values = [float(w) for w in weights]
    if len(values) != modalities or min(values) < 0 or not 0 < sum(values) < float("inf"):
        raise ValueError(f"weights must be {allowed}, not negative and not all zero; got {values}")
    return [value / sum(values) for value in values]
