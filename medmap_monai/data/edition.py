"""How one data set names its files and its label values. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from medmap_monai.modalities import Modalities


@dataclass(frozen=True)
class Edition:
    """How one data set names its files and its label values.

    Everything is keyed by modality *name*. A data set of your own is a JSON file
    (:mod:`medmap_monai.data.edition_file`) or one more object of this class, accepted wherever the name of a built-in
    edition is (``dataclasses.replace(get_edition("brats2023"), name="mine", ...)``).

    Args:
        name: short name, as on the command line.
        title: one line for people.
        modalities: the modalities in the default channel order.
        suffixes: per modality, a regular expression of what follows the case id in the file's name (before
            ``.nii`` or ``.nii.gz``); most are plain text such as ``_flair``.
        label_suffixes: the same for the label file; the first is the one to write.
        labels: label value on disk -> class index. Any other value in a label file is an error. Two values may share
            a class; predictions are written with the first.
        classes: name of each class; the index is the class.
        regions: evaluated regions, each a union of classes.
        case: regular expression of the case ids this edition issues; it is what detection goes by. None: never
            detected by case id.
        any_case: the case ids accepted once the edition is known (detected or given).
        odd_labels: whole file names (regular expressions) of label files that do not start with the case id; such a
            file belongs to the one case of its folder.
        image_folder: when set, the folder of an image must match it (regular expression).
        label_folder: the same for a label.
        skip_folders: folders that are never searched.
        channels: for editions with one 4-D file for all modalities: modality -> index along the last axis.
        case_name: pattern for the ids of synthetic cases, formatted with the case number.
        first_case_number: number of the first synthetic case.
        case_folder: where a case's files lie below the cohort's folder (formatted with ``case``; empty: all in one).
        patient: regular expression of a case id whose first group is the patient, for data sets with several time
            points of one patient; None: every case is a patient of its own.
        rate_order: order in which combination names such as ``2468`` list the modalities' missing rates.
        skull_stripped: True where images are brains with nothing around them, so that a head with its skull is a fault.
        slices: True when the through-plane spacing is so coarse that networks work on 2-D slices.
    """

    name: str
    title: str
    modalities: Modalities
    suffixes: Mapping[str, str]
    label_suffixes: tuple[str, ...]
    labels: Mapping[int, int]
    classes: tuple[str, ...]
    regions: Mapping[str, tuple[int, ...]]
    case: str | None = None
    any_case: str = r".+?"
    odd_labels: tuple[str, ...] = ()
    image_folder: str | None = None
    label_folder: str | None = None
    skip_folders: tuple[str, ...] = ()
    channels: Mapping[str, int] | None = None
    case_name: str | None = None
    first_case_number: int = 1
    case_folder: str = "{case}"
    patient: str | None = None
    rate_order: tuple[str, ...] = ()
    slices: bool = False
    skull_stripped: bool = False

    def __post_init__(self) -> None:
        if set(self.suffixes) != set(self.modalities):
            raise ValueError(
                f"edition {self.name}: suffixes are given for {sorted(self.suffixes)}, "
                f"modalities are {list(self.modalities)}"
            )
        if not set(self.labels.values()) <= set(range(len(self.classes))):
            raise ValueError(f"edition {self.name}: labels {dict(self.labels)} name classes beyond {self.classes}")
        if self.rate_order and set(self.rate_order) != set(self.modalities):
            raise ValueError(f"edition {self.name}: rate_order {self.rate_order} is not an order of {self.modalities}")

    def __str__(self) -> str:
        return self.name

    @property
    def spatial_dims(self) -> int:
        """2 where networks work on slices, 3 otherwise; studies on disk are always volumes."""
        return 2 if self.slices else 3

    @cached_property
    def disk_values(self) -> dict[int, int]:
        """Class index -> label value on disk; where two values share a class, the first one of ``labels``."""
        return {index: value for value, index in reversed(list(self.labels.items()))}

    @property
    def writable(self) -> bool:
        """Whether file names can be made (not only recognised), which the phantom cohort needs."""
        names = [*self.suffixes.values(), *self.label_suffixes[:1]]
        plain = not any(re.search(r"[\\(\[|?*+]", name) for name in names)
        return self.case_name is not None and self.channels is None and plain

    def with_labels(
        self,
        labels: Mapping[int, int],
        classes: tuple[str, ...] | None = None,
        regions: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Edition:
        """A copy with other label values, for data sets whose annotation differs from the built-in table.

        Example:
            >>> get_edition("brain-metastases").with_labels({0: 0, 1: 3}).labels
            {0: 0, 1: 3}
        """
        return replace(
            self,
            labels=dict(labels),
            classes=self.classes if classes is None else tuple(classes),
            regions=self.regions if regions is None else dict(regions),
        )
