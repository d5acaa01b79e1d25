"""What each modality contributes, from the scores of all subsets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from math import factorial

from medmap_monai.modalities import SUBSET_SEPARATOR, Modalities


def shapley_values(scores: Mapping[str, float], modalities: Modalities, empty_score: float = 0.0) -> dict[str, float]:
    """Exact Shapley value of each modality: its mean marginal gain over all orders in which modalities can arrive.

    Shapley, "A value for n-person games" (1953). The values add up to ``score(all) - empty_score``.

    Args:
        scores: score of each of the 2^M - 1 subsets by name (``flair+t1``, names in any order).
        modalities: the modalities of the task.
        empty_score: score without any modality.

    Returns:
        modality -> value, in the unit of the scores.

    Raises:
        ValueError: when a subset is missing or a name is unknown.
    """
    table = _by_subset(scores, modalities)
    wanted = {frozenset(subset) for subset in modalities.subsets()}
    missing = [SUBSET_SEPARATOR.join(m for m in modalities if m in s) for s in wanted - set(table)]
    if missing:
        raise ValueError(f"Shapley values need the score of every subset; missing are {sorted(missing)}")
    table[frozenset()] = empty_score
    count = len(modalities)
    values = {}
    for modality in modalities:
        others = [m for m in modalities if m != modality]
        total = 0.0
        for size in range(count):
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            total += weight * sum(
                table[frozenset(before) | {modality}] - table[frozenset(before)]
                for before in combinations(others, size)
            )
        values[modality] = total
    return values


def expected_gain(scores: Mapping[str, float], modalities: Modalities, have: str | Iterable[str]) -> dict[str, float]:
    """What acquiring each missing modality is expected to bring to one who has ``have``.

    Args:
        scores: score of each subset by name.
        modalities: the modalities of the task.
        have: the modalities at hand, a list of names or a subset name; must not be empty.

    Returns:
        missing modality -> score with it minus score without it, best first; empty when nothing is missing.

    Raises:
        ValueError: when ``have`` is empty, a name is unknown or a needed subset has no score.
    """
    table = _by_subset(scores, modalities)
    mask = modalities.mask(have)
    now = frozenset(modalities.select(mask))
    modalities.subset_name(mask)  # raises for the empty subset
    gains = {}
    for modality in modalities:
        if modality in now:
            continue
        for subset in (now, now | {modality}):
            if subset not in table:
                name = SUBSET_SEPARATOR.join(m for m in modalities if m in subset)
                raise ValueError(f"no score for subset {name}")
        gains[modality] = table[now | {modality}] - table[now]
    return dict(sorted(gains.items(), key=lambda item: (-item[1], modalities.names.index(item[0]))))


def _by_subset(scores: Mapping[str, float], modalities: Modalities) -> dict[frozenset[str], float]:
    return {frozenset(modalities.select(modalities.mask(name))): float(value) for name, value in scores.items()}
