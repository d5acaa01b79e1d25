"""One reading of every NIfTI file in a folder: which modality or label of which case, or why it is not used."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from medmap_monai.data.edition import Edition
from medmap_monai.data.editions import EDITIONS
from medmap_monai.data.file_names import FileNames, nifti_stem
from medmap_monai.data.spellings import spelt
from medmap_monai.utils.output import is_results_folder

_COMMON_FOLDERS = frozenset(
    ("anat", "data", "images", "mr", "mri", "native", "nifti", "nii", "original", "raw", "scans")
)


@dataclass(frozen=True)
class FileReading:
    """How one NIfTI file was read.

    path: the file.
    case_id: the case it belongs to; empty where that is not known.
    role: modality, modalities joined by ``+`` (a 4-D file), ``label``, or empty where it is not used.
    reason: why it is not used.
    """

    path: Path
    case_id: str
    role: str
    reason: str = ""

    @property
    def used(self) -> bool:
        """Whether the file is part of a study."""
        return bool(self.role)

    def __str__(self) -> str:
        return f"{self.path}: {self.role + ' of ' + self.case_id if self.used else 'not used, ' + self.reason}"


@dataclass(frozen=True)
class NameReading:
    """What the name of one file says.

    modalities: those it holds; more than one that are not channels of one file: it can be read in two ways.
    label: whether it is a label.
    case: what the name says of the case; empty where it says nothing.
    certain: ``case`` is an id that the edition issues, or the name of the file's own folder.
    reason: why the name cannot be used.
    """

    path: Path
    modalities: tuple[str, ...] = ()
    label: bool = False
    case: str = ""
    certain: bool = False
    reason: str = ""


class NameReader:
    """Reads file names as an edition spells them, and as people do (:mod:`medmap_monai.data.spellings`).

    Args:
        edition: the edition. Its own spelling comes first; editions that go by folders (BIDS, MSD) know no other.
        root: the folder that is read.
    """

    def __init__(self, edition: Edition, root: Path) -> None:
        self.edition = edition
        self.root = root
        self._strict = FileNames(edition, strict=True) if edition.case is not None else None
        self._any = FileNames(edition, strict=False)
        self._by_folder = edition.image_folder is not None or edition.channels is not None
        # an edition of somebody's own may spell modalities as nobody else does
        self._own_spelling = all(edition.suffixes != known.suffixes for known in EDITIONS.values())
        others = [other for other in EDITIONS.values() if other.case is not None and other.suffixes != edition.suffixes]
        self._others = [] if edition.name == "generic" else [(other, FileNames(other, strict=True)) for other in others]
        self._results: dict[Path, bool] = {}

    def __call__(self, path: Path) -> NameReading:
        """What the name of ``path`` says."""
        folder = self._forbidden_folder(path)
        if folder:
            return NameReading(path, reason=folder)
        exact = self._exact(path, self._strict, certain=True)
        if exact is None and (self._by_folder or self._own_spelling):
            exact = self._exact(path, self._any, certain=False)
        if exact is not None:
            return exact
        if self._by_folder:
            return NameReading(path, reason=f"its name or folder is none of {self.edition.title}")
        for other, names in self._others:
            if names.image(path) or names.label(path):
                return NameReading(path, reason=f"it belongs to a case of edition {other}")
        return self._spelt(path)

    def _forbidden_folder(self, path: Path) -> str:
        parts = path.relative_to(self.root).parts[:-1]
        skipped = set(parts) & set(self.edition.skip_folders)
        if skipped:
            return f"edition {self.edition} does not look into folders named {min(skipped)}"
        for parent in [path.parent, *path.parent.parents]:
            if parent not in self._results:
                self._results[parent] = is_results_folder(parent)
            if self._results[parent]:
                return f"{parent.name or parent} is a folder of results"
            if parent == self.root:
                break
        return ""

    def _exact(self, path: Path, names: FileNames | None, certain: bool) -> NameReading | None:
        if names is None:
            return None
        image = names.image(path)
        if image:
            return NameReading(path, image[1], case=image[0], certain=certain)
        label = names.label(path)
        return NameReading(path, label=True, case=label, certain=certain) if label else None

    def _spelt(self, path: Path) -> NameReading:
        stem = nifti_stem(path) or ""
        prefix = self._case_prefix(path, stem)
        found = spelt(stem[len(prefix) :], self.edition.modalities)
        if prefix and not (found.modalities or found.label or found.why_not):
            prefix, found = "", spelt(stem, self.edition.modalities)
        case = prefix or found.rest
        certain = bool(prefix)
        if found.why_not:
            return NameReading(path, case=case, certain=certain, reason=found.why_not)
        if not found.modalities and not found.label:
            return NameReading(path, case=case, certain=certain, reason="its name says no modality")
        unknown = [name for name in found.modalities if name not in self.edition.modalities]
        if unknown:
            reason = f"{'+'.join(unknown)} is no modality of edition {self.edition}"
            return NameReading(path, case=case, certain=certain, reason=reason)
        return NameReading(path, found.modalities, found.label, case, certain)

    def _case_prefix(self, path: Path, stem: str) -> str:
        """The part of the name that is a case id for certain: one the edition issues, or the folder's own name."""
        folder = path.parent.name
        if folder and stem.lower().startswith(folder.lower()) and _ends(stem, len(folder)):
            return folder
        if self.edition.case is not None:
            for end in range(len(stem), 0, -1):
                if _ends(stem, end) and re.fullmatch(self.edition.case, stem[:end], re.IGNORECASE):
                    rest = spelt(stem[end:], self.edition.modalities)
                    if rest.modalities or rest.label:
                        return stem[:end]
        return ""


def _ends(stem: str, end: int) -> bool:
    return end == len(stem) or not stem[end].isalnum()


def folder_name(folder: Path) -> str:
    """What to call the case that a folder is; a folder such as ``native`` says nothing without the one above it."""
    says_nothing = folder.name.lower() in _COMMON_FOLDERS and folder.parent.name
    return f"{folder.parent.name}_{folder.name}" if says_nothing else folder.name


def relative_name(path: Path, root: Path) -> str:
    """``path`` below ``root`` as one word that can name a case."""
    parts = Path(os.path.relpath(path, root)).parts
    return root.name if parts == (".",) or not parts else "_".join(parts)
