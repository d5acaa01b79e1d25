"""The built-in data-set editions: one declarative table of file names, label values and regions. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from medmap_monai.data.edition import Edition
from medmap_monai.modalities import BRATS, MYOPS

_BRATS_CLASSES = ("background", "NCR", "ED", "ET")
_BRATS_REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
_NCR_ED_ET = {0: 0, 1: 1, 2: 2, 3: 3}
_DASH_NAMES = {"flair": "-t2f", "t1ce": "-t1c", "t1": "-t1n", "t2": "-t2w"}
_BIDS_CASE = r"sub-[A-Za-z0-9]+(?:_ses-[A-Za-z0-9]+)?"
_BIDS_ENTITY = r"(?:_(?!ce-)[a-z]+-[A-Za-z0-9]+)*"

_BRATS2020 = Edition(
    name="brats2020",
    title="BraTS 2020",
    modalities=BRATS,
    suffixes={"flair": "_flair", "t1ce": "_t1ce", "t1": "_t1", "t2": "_t2"},
    label_suffixes=("_seg",),
    labels={0: 0, 1: 1, 2: 2, 4: 3},
    classes=_BRATS_CLASSES,
    regions=_BRATS_REGIONS,
    case=r"BraTS20_[A-Za-z]+_\d{3}",
    odd_labels=(r".*Segm",),  # case 355 of the published archive has W39_1998.09.19_Segm.nii
    case_name="BraTS20_Training_{:03d}",
    rate_order=("t1", "t1ce", "flair", "t2"),
    skull_stripped=True,
)

_BRATS2023 = replace(
    _BRATS2020,
    name="brats2023",
    title="BraTS 2023 adult glioma",
    suffixes=_DASH_NAMES,
    label_suffixes=("-seg",),
    labels=_NCR_ED_ET,
    case=r"BraTS-GLI-\d{5}-0\d\d",
    patient=r"(BraTS-GLI-\d{5})-\d{3}",
    odd_labels=(),
    case_name="BraTS-GLI-{:05d}-000",
    first_case_number=0,
)

EDITIONS: Mapping[str, Edition] = {
    edition.name: edition
    for edition in (
        replace(
            _BRATS2020,
            name="brats2018",
            title="BraTS 2018 (HGG and LGG folders)",
            case=r"Brats18_.+?",
            odd_labels=(),
            case_name="Brats18_Phantom_{:03d}_1",
            case_folder="HGG/{case}",
        ),
        replace(
            _BRATS2020,
            name="brats2019",
            title="BraTS 2019 (HGG and LGG folders)",
            case=r"BraTS19_.+?",
            odd_labels=(),
            case_name="BraTS19_Phantom_{:03d}_1",
            case_folder="HGG/{case}",
        ),
        _BRATS2020,
        replace(
            _BRATS2020,
            name="brats2021",
            title="BraTS 2021",
            case=r"BraTS2021_\d{5}",
            odd_labels=(),
            case_name="BraTS2021_{:05d}",
            first_case_number=0,
        ),
        _BRATS2023,
        replace(
            _BRATS2023,
            name="brats2024-post",
            title="BraTS 2024 post-treatment glioma; label 4 is the resection cavity, a class of its own",
            labels={**_NCR_ED_ET, 4: 4},
            classes=(*_BRATS_CLASSES, "RC"),
            regions={**_BRATS_REGIONS, "RC": (4,)},
            case=r"BraTS-GLI-\d{5}-1\d\d",
            case_name=None,
        ),
        replace(
            _BRATS2020,
            name="msd_task01",
            title="Medical Segmentation Decathlon, Task01 BrainTumour (one 4-D file per case)",
            suffixes=dict.fromkeys(BRATS, ""),
            label_suffixes=("",),
            labels={0: 0, 1: 2, 2: 1, 3: 3},  # on disk 1 is oedema, 2 non-enhancing core, 3 enhancing core
            case=r"BRATS_\d+",
            odd_labels=(),
            image_folder=r"imagesT[rs]",
            label_folder=r"labelsT[rs]",
            channels={"flair": 0, "t1": 1, "t1ce": 2, "t2": 3},
            case_name=None,
        ),
        Edition(
            name="myops2020",
            title="MyoPS 2020 (cardiac short axis: bSSFP, LGE, T2)",
            modalities=MYOPS,
            suffixes={"bssfp": "_C0", "lge": "_DE", "t2": "_T2"},
            label_suffixes=("_gd",),
            labels={0: 0, 200: 1, 500: 2, 600: 3, 1220: 4, 2221: 5},
            classes=("background", "normal myocardium", "LV blood pool", "RV blood pool", "oedema", "scar"),
            regions={"LVB": (2,), "RVB": (3,), "MYO": (1, 4, 5), "oedema": (4, 5), "scar": (5,)},
            case=r"myops_(?:training|test)_\d+",
            case_name="myops_training_{:03d}",
            first_case_number=101,
            case_folder="",
            rate_order=("bssfp", "lge", "t2"),
            slices=True,
        ),
        replace(
            _BRATS2020,
            name="bids",
            title="BIDS anat folders (FLAIR, T1w, contrast-enhanced ce-*_T1w, T2w)",
            suffixes={
                "flair": rf"{_BIDS_ENTITY}_FLAIR",
                "t1ce": rf"{_BIDS_ENTITY}_ce-[A-Za-z0-9]+{_BIDS_ENTITY}_T1w",
                "t1": rf"{_BIDS_ENTITY}_T1w",
                "t2": rf"{_BIDS_ENTITY}_T2w",
            },
            label_suffixes=(),
            labels=_NCR_ED_ET,  # BIDS names no label file; predictions are written as class indices
            case=_BIDS_CASE,
            patient=r"(sub-[A-Za-z0-9]+)(?:_ses-[A-Za-z0-9]+)?",
            any_case=_BIDS_CASE,
            odd_labels=(),
            image_folder=r"anat",
            skip_folders=("derivatives", "sourcedata", "code"),
            case_name=None,
        ),
        replace(
            _BRATS2023,
            name="brain-metastases",
            title="Brain metastases with the four BraTS modalities; set label values with Edition.with_labels",
            case=r"BraTS-MET-\d{5}-\d{3}",
            patient=r"(BraTS-MET-\d{5})-\d{3}",
            case_name="BraTS-MET-{:05d}-000",
            first_case_number=1,
        ),
        replace(
            _BRATS2020,
            name="generic",
            title="Any case names, usual suffixes (_flair, -t2f, _T1w, _t1gd ...; case/flair.nii.gz), labels 0 to 3",
            suffixes={
                "flair": r"(?i:(?:^|[_. -])(?:t2[_-]?flair|flair|t2f))",
                "t1ce": r"(?i:(?:^|[_. -])(?:t1ce|t1c|t1gd|t1post))",
                "t1": r"(?i:(?:^|[_. -])(?:t1|t1n|t1w))",
                "t2": r"(?i:(?:^|[_. -])(?:t2|t2w))",
            },
            label_suffixes=(r"(?i:(?:^|[_. -])(?:seg|segm|segmentation|label|labels|mask))",),
            labels=_NCR_ED_ET,
            case=None,
            any_case=r".*?",
            odd_labels=(),
            case_name=None,
        ),
    )
}


def get_edition(edition: str | Edition | Mapping[str, Any]) -> Edition:
    """The edition of that name, or of a JSON file (``mine.json``), or that an object in such a file's format describes.

    An ``Edition`` is given back as it is.

    Raises:
        ValueError: unknown name; the message lists the known ones. A description that does not hold together.
        FileNotFoundError: there is no such file.
    """
    from medmap_monai.data.edition_file import edition_from, read_edition  # which needs the table of this module

    if isinstance(edition, Edition):
        return edition
    if isinstance(edition, Mapping):
        return edition_from(edition)
    if str(edition).endswith(".json"):
        return read_edition(edition)
    found = EDITIONS.get(str(edition).lower())
    if found is None:
        known = ", ".join(EDITIONS)
        raise ValueError(f"unknown edition {edition!r}; allowed are {known}, a JSON file, or an Edition object")
    return found
