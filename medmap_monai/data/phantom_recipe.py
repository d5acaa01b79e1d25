"""What a phantom cohort is made of: its parameters, checked, and the cases that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from medmap_monai.data.availability import draw_availability
from medmap_monai.data.edition import Edition
from medmap_monai.data.editions import EDITIONS
from medmap_monai.modalities import BRATS, MYOPS

GENERATOR = "medmap_monai.data.phantom"
GENERATOR_VERSION = "4"
AFFINES = ("straight", "oblique")
_CLASSES = {"brain": 4, "heart": 6}


class MissingFiles(NamedTuple):
    """Which files a cohort lacks.

    absent: modalities by case, as for :func:`medmap_monai.data.phantom.write_cohort`.
    rates: share of cases that lack a modality, by modality.
    """

    absent: Mapping[str, Sequence[str]] | None = None
    rates: Mapping[str, float] | None = None


@dataclass(frozen=True)
class PhantomRecipe:
    """Parameters of a phantom cohort; for their meaning see :func:`medmap_monai.data.phantom.write_cohort`.

    Raises:
        ValueError: an argument out of range, naming what is allowed.
    """

    edition: Edition
    cases: int
    shape: tuple[int, ...]
    seed: int = 0
    first_case: int = 0
    absent: Mapping[str, Sequence[str]] | None = None
    missing_rates: Mapping[str, float] | None = None
    p_no_et: float = 0.0
    affine: str = "straight"

    def __post_init__(self) -> None:
        if self.cases < 1 or self.first_case < 0 or self.seed < 0:
            got = f"{self.cases}, {self.first_case} and {self.seed}"
            raise ValueError(f"cases must be at least 1, first_case and seed at least 0; got {got}")
        if self.affine not in AFFINES:
            raise ValueError(f"affine {self.affine!r} is unknown; allowed are {', '.join(AFFINES)}")
        lacking = [index for index in range(_CLASSES[self.body_part]) if index not in self.edition.disk_values]
        if lacking:
            raise ValueError(f"edition {self.edition} has no label value for the phantom's classes {lacking}")
        _ = self.kept  # complain now, not in the middle of the work

    @property
    def body_part(self) -> str:
        """``brain`` or ``heart``."""
        for part, modalities in (("brain", BRATS), ("heart", MYOPS)):
            if set(self.edition.modalities) == set(modalities) and self.edition.writable:
                return part
        raise ValueError(f"edition {self.edition} has no phantom; allowed are {', '.join(writable_editions())}")

    @cached_property
    def kept(self) -> dict[str, tuple[str, ...]]:
        """Case id -> the modalities that get a file, in the order of the cases."""
        order = self.edition.modalities
        numbers = range(self.first_case, self.first_case + self.cases)
        case_ids = [str(self.edition.case_name).format(self.edition.first_case_number + number) for number in numbers]
        kept = {case_id: tuple(order) for case_id in case_ids}
        if self.missing_rates:
            order.mask(self.missing_rates)  # an error that names what is unknown
            rates = {name: float(self.missing_rates.get(name, 0.0)) for name in order}
            # a small cohort cannot hold every subset without being dominated by the rare ones
            enough = self.cases >= 4 * (2 ** len(order) - 1)
            drawn = draw_availability(self.cases, rates, self.seed, "expected" if enough else "independent")
            kept.update(
                {case_id: order.select(order.mask(names)) for case_id, names in zip(case_ids, drawn, strict=True)}
            )
        for key, names in (self.absent or {}).items():
            case_id = _case_of(key, case_ids)
            kept[case_id] = order.select([not flag for flag in order.mask(names)])
            if not kept[case_id]:
                raise ValueError(f"case {case_id}: every modality is left out; at least one must exist")
        return kept

    @property
    def description(self) -> dict[str, Any]:
        """Everything the cohort depends on, ready for JSON; two cohorts are the same when this is."""
        return {
            "generator": GENERATOR,
            "generator_version": GENERATOR_VERSION,
            "edition": self.edition.name,
            "shape": [int(n) for n in self.shape],
            "seed": int(self.seed),
            "first_case": int(self.first_case),
            "p_no_et": float(self.p_no_et),
            "affine": self.affine,
            "labels": {str(value): index for value, index in self.edition.labels.items()},
            "cases": {case_id: list(names) for case_id, names in self.kept.items()},
        }


def writable_editions() -> list[str]:
    """Names of the editions a phantom cohort can be written in."""
    return [name for name, edition in EDITIONS.items() if edition.writable]


def _case_of(key: str, case_ids: list[str]) -> str:
    if key in case_ids:
        return key
    if key == "last":
        return case_ids[-1]
    if str(key).isdecimal() and 1 <= int(key) <= len(case_ids):
        return case_ids[int(key) - 1]
    raise ValueError(
        f"case {key!r} is unknown; allowed are 1 to {len(case_ids)}, last, {case_ids[0]} to {case_ids[-1]}"
    )
