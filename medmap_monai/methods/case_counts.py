"""How many training cases have each modality, and the weights that compensate for missing ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medmap_monai.modalities import Modalities
from medmap_monai.transforms.imbalanced_dropout import ImbalancedModalityDropout


class CaseCounts:
    """Number of training cases in all, and of those that have each modality.

    Args:
        modalities: names in channel order.
        total: number of training cases N.
        per_modality: number of cases N_m with each modality: a mapping by name, or a list in channel order.

    Raises:
        ValueError: when names or numbers do not fit together.

    Example:
        >>> CaseCounts(("flair", "t2"), 10, {"t2": 5, "flair": 8}).missing_rate_weights()
        [1.25, 2.0]
    """

    def __init__(self, modalities: Sequence[str], total: int, per_modality: Mapping[str, int] | Sequence[int]) -> None:
        self.modalities = Modalities(tuple(modalities))
        if isinstance(per_modality, Mapping):
            if set(per_modality) != set(self.modalities):
                raise ValueError(f"case counts must name exactly {list(self.modalities)}, got {list(per_modality)}")
            per_modality = [per_modality[name] for name in self.modalities]
        if len(per_modality) != len(self.modalities):
            raise ValueError(f"{len(self.modalities)} modalities need as many case counts, got {list(per_modality)}")
        if not all(0 <= count <= total for count in per_modality):
            raise ValueError(f"case counts must lie in 0..{total}, the number of cases; got {list(per_modality)}")
        self.total = int(total)
        self.per_modality = tuple(int(count) for count in per_modality)

    def missing_rate_weights(self) -> list[float]:
        """``N / N_m`` per modality: what its losses are multiplied with, so that a rare modality counts as much.

        A modality without any case gets 1, as no sample ever uses it; so does every modality of an empty cohort.
        """
        return [self.total / count if count else 1.0 for count in self.per_modality]


def count_cases(
    records: Iterable[Mapping[str, Any]], modalities: Sequence[str], mode: str = "idt", **dropout: Any
) -> CaseCounts:
    """Count over the training records, before anything is loaded.

    Args:
        records: items of :func:`medmap_monai.data.cohort.cohort_records`: ``case_id``, ``study``, and ``available``,
            the names that the split grants, or None.
        modalities: names in channel order.
        mode: ``pdt``: what exists counts, whatever a split grants, as the transforms of that mode have it.
        dropout: ``subsets``, ``rates`` and ``seed`` of :class:`ImbalancedModalityDropout`, where the transforms and
            not the split decide what a case keeps.

    Raises:
        StudyError: for a case with none of the modalities.
    """
    dropper = ImbalancedModalityDropout(modalities, **dropout)
    total = 0
    counts = [0] * len(dropper.modalities)
    for record in records:
        present = [name in record["study"].images for name in dropper.modalities]
        available = None if mode == "pdt" else record.get("available")
        if available is not None:
            available = [name for name in available if name in dropper.modalities]
        mask = dropper.mask(record["case_id"], present, available)
        total += 1
        counts = [count + flag for count, flag in zip(counts, mask, strict=True)]
    return CaseCounts(tuple(dropper.modalities), total, counts)
