"""Train, validation and test folds by patient, with a seed and strata."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from medmap_monai.utils.counted import counted


def assign_folds(
    cases: Sequence[str],
    val: float = 0,
    test: float = 0,
    train: float | None = None,
    seed: int = 0,
    strata: Mapping[str, str] | None = None,
    patients: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Fold (``train``, ``val`` or ``test``) of each case, in the order of ``cases``.

    A case's place is decided by a hash of seed and case id, so the outcome depends neither on the order of the list
    nor on the platform, and hardly changes when cases are added. With strata, every fold holds each stratum in its
    proportion, as near as whole cases allow; the sizes stay exact.

    All cases of a patient lie in one fold. A fold is then filled with the next patients that fit, so it may stay
    smaller than asked for by less than the cases of a patient. Where every patient has one case the outcome is the
    same as without ``patients``.

    Args:
        cases: case ids, each once.
        val, test: number of cases (1 or more) or fraction (below 1); a positive fraction gives at least one case.
        train: the same; default: all that is left. With a smaller number, the rest of the cases is in no fold.
        seed: another seed gives another partition.
        strata: case id -> stratum (grade, site, scanner ...); a patient's is that of the first case.
        patients: case id -> patient; a case that is not named is a patient of its own.

    Raises:
        ValueError: repeated cases, sizes that exceed the number of cases, or a case without stratum.

    Example:
        >>> sorted(assign_folds(["a", "b", "c", "d"], val=1, test=0.25).values())
        ['test', 'train', 'train', 'val']
    """
    if len(set(cases)) != len(cases):
        raise ValueError(f"cases must be unique, got {len(cases)} names of {counted(len(set(cases)), 'case')}")
    sizes = {"test": _size("test", test, len(cases)), "val": _size("val", val, len(cases))}
    left = len(cases) - sum(sizes.values())
    sizes["train"] = max(0, left) if train is None else _size("train", train, len(cases))
    if sizes["train"] > left:
        wanted = ", ".join(f"{fold} {size}" for fold, size in sizes.items())
        raise ValueError(f"{wanted} cases are asked for, {counted(len(cases), 'case exists', 'cases exist')}")
    lacking = next((case for case in cases if strata is not None and case not in strata), None)
    if lacking is not None:
        raise ValueError(f"case {lacking} has no stratum")
    of_patient: dict[str, list[str]] = defaultdict(list)
    for case in sorted(cases):
        of_patient[(patients or {}).get(case, case)].append(case)
    members = {group[0]: group for group in of_patient.values()}  # a patient goes by its first case
    waiting = _order([case for case in cases if case in members], seed, strata)
    chosen: dict[str, str] = {}
    for fold, size in sizes.items():
        everything = fold == "train" and train is None
        taken = _fitting({first: len(members[first]) for first in waiting}, len(cases) if everything else size)
        waiting = [first for first in waiting if first not in taken]
        chosen |= {case: fold for first in taken for case in members[first]}
    return {case: chosen[case] for case in cases if case in chosen}


def _fitting(counts: Mapping[str, int], size: int) -> list[str]:
    """Patients (by their first case, in order) whose cases fill ``size``; one at least, where any are asked for."""
    taken: list[str] = []
    total = 0
    for first, count in counts.items():
        if total + count <= size:
            taken.append(first)
            total += count
    return taken or (list(counts)[:1] if size > 0 else [])


def _size(fold: str, size: float, cases: int) -> int:
    if size < 0 or (size > 1 and size != int(size)):
        raise ValueError(f"size of fold {fold} must be a whole number or a fraction below 1, got {size}")
    if size >= 1:
        return int(size)
    return max(1, math.floor(size * cases + 0.5)) if size > 0 else 0


def _order(cases: Sequence[str], seed: int, strata: Mapping[str, str] | None) -> list[str]:
    """The cases in hash order; strata are interleaved evenly, so that every run of it holds them in proportion."""
    groups: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        groups["" if strata is None else strata[case]].append(case)
    digests = {case: hashlib.sha256(f"{seed}\0{case}".encode()).hexdigest() for case in cases}
    place: dict[str, float] = {}
    for members in groups.values():
        for rank, case in enumerate(sorted(members, key=digests.__getitem__)):
            place[case] = (rank + 0.5) / len(members)
    return sorted(cases, key=lambda case: (place[case], digests[case]))
