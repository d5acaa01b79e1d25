"""Names, subsets and masks of imaging modalities: the ground floor, free of torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import overload

SUBSET_SEPARATOR = "+"

# The order in which the published BraTS split files and tables number the subsets (0..14). Keyed by names, so it
# holds for any channel order; every other set of modalities is numbered by size, then by position.
_PUBLISHED_SUBSETS: tuple[frozenset[str], ...] = tuple(
    frozenset(text.split(SUBSET_SEPARATOR))
    for text in (
        "t2",
        "t1ce",
        "t1",
        "flair",
        "t1ce+t2",
        "t1ce+t1",
        "flair+t1",
        "t1+t2",
        "flair+t2",
        "flair+t1ce",
        "flair+t1ce+t1",
        "flair+t1+t2",
        "flair+t1ce+t2",
        "t1ce+t1+t2",
        "flair+t1ce+t1+t2",
    )
)


@dataclass(frozen=True)
class Modalities(Sequence[str]):
    """An ordered set of modality names: the order of channels and masks of one task.

    Args:
        names: unique, non-empty modality names, for example ``("flair", "t1ce", "t1", "t2")``.

    Raises:
        ValueError: when a name is empty, repeated or holds the separator ``+``, or when there is none.

    Example:
        >>> brats = Modalities(("flair", "t1ce", "t1", "t2"))
        >>> brats.mask(["t1", "flair"])
        (True, False, True, False)
        >>> brats.subset_name((True, False, True, False))
        'flair+t1'
        >>> len(brats.subsets())
        15
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.names, str):
            raise ValueError(f"modalities must be a list of names, got the string {self.names!r}")
        object.__setattr__(self, "names", tuple(self.names))
        if not self.names:
            raise ValueError("at least one modality is needed, got none")
        bad = [n for n in self.names if not isinstance(n, str) or not n or SUBSET_SEPARATOR in n]
        if bad:
            raise ValueError(f"modality names must be non-empty strings without {SUBSET_SEPARATOR!r}, got {bad}")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"modality names must be unique, got {list(self.names)}")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self.names[index]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def mask(self, present: Iterable[str]) -> tuple[bool, ...]:
        """The mask (one bool per modality, in this order) of a collection of names; unknown names raise ValueError."""
        if isinstance(present, str):
            present = present.split(SUBSET_SEPARATOR)
        wanted = set(present)
        unknown = sorted(wanted - set(self.names))
        if unknown:
            raise ValueError(f"unknown modalities {unknown}; allowed are {list(self.names)}")
        return tuple(name in wanted for name in self.names)

    def select(self, mask: Sequence[bool] | Iterable[bool]) -> tuple[str, ...]:
        """The names that a mask of ``len(self)`` entries allows."""
        flags = tuple(bool(flag) for flag in mask)
        if len(flags) != len(self.names):
            raise ValueError(
                f"mask has {len(flags)} entries, {len(self.names)} modalities are configured: {self.names}"
            )
        return tuple(name for name, flag in zip(self.names, flags, strict=True) if flag)

    def subset_name(self, mask: Sequence[bool] | Iterable[bool]) -> str:
        """``flair+t1`` for a mask; the empty subset has no name and raises ValueError."""
        chosen = self.select(mask)
        if not chosen:
            raise ValueError("the empty subset has no name: at least one modality must be present")
        return SUBSET_SEPARATOR.join(chosen)

    def subsets(self) -> list[tuple[str, ...]]:
        """All 2^M - 1 non-empty subsets, indexed by subset id (the published ids for the four BraTS modalities)."""
        if frozenset(self.names) == _PUBLISHED_SUBSETS[-1]:
            return [tuple(name for name in self.names if name in subset) for subset in _PUBLISHED_SUBSETS]
        return [subset for size in range(1, len(self) + 1) for subset in combinations(self.names, size)]

    def subset_masks(self) -> list[tuple[bool, ...]]:
        """The masks of :meth:`subsets`, in the same order."""
        return [self.mask(subset) for subset in self.subsets()]

    def subset_id(self, mask: Sequence[bool] | Iterable[bool]) -> int:
        """The published id of a non-empty subset."""
        chosen = self.select(mask)
        if not chosen:
            raise ValueError("the empty subset has no id: at least one modality must be present")
        return self.subsets().index(chosen)


BRATS = Modalities(("flair", "t1ce", "t1", "t2"))
MYOPS = Modalities(("bssfp", "lge", "t2"))
