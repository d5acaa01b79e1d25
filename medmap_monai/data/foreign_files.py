"""What a file or a folder is when it is no study: DICOM, archives, other image formats; and what to do with it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

_KINDS = {
    "DICOM": (".dcm", ".ima", ".dicom"),
    "another image format": (".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".hdr", ".img", ".mnc", ".npy", ".npz"),
    "an archive": (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar"),
}
_SNIFFED = 200  # files without an ending that are opened to see whether they are DICOM


def what_file_is(path: Path) -> str:
    """What a single file is and what to do with it, to follow "PATH is"."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return (
            "one NIfTI image; give the folder of its study, or say which modality it is: "
            f"medmap predict --flair {path.name} (any modality of the bundle)"
        )
    if _kind(path) == "DICOM":
        return (
            f"a DICOM file; make a study of its series first: "
            f"medmap prepare {path.parent.name or path.parent} --output PREPARED"
        )
    if _kind(path) == "an archive":
        return "an archive; unpack it and give the folder"
    if _kind(path) is not None:
        return "an image in another format than NIfTI; convert it to .nii.gz"
    return "a file, a folder of studies or a manifest (.csv, .json) is needed"


def foreign_files(root: Path) -> Counter[str]:
    """How many files of which other kind lie below ``root``."""
    found: Counter[str] = Counter()
    sniffed = 0
    for parent, folders, names in os.walk(root):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        for name in names:
            path = Path(parent, name)
            kind = _by_ending(path)
            if kind is None and not path.suffix[1:].isalpha() and sniffed < _SNIFFED:
                sniffed += 1  # files of a scanner have no ending, or numbers
                kind = "DICOM" if _is_dicom(path) else None
            if kind is not None:
                found[kind] += 1
    return found


def foreign_hint(root: Path) -> str:
    """What to do with a folder that holds files of other kinds; empty where it does not."""
    found = foreign_files(root)
    hints = {
        "DICOM": f"this is a folder of DICOM files: medmap prepare {root} --output PREPARED makes studies of them",
        "another image format": "images are in another format: convert them to .nii.gz",
        "an archive": "there are archives: unpack them",
    }
    return "; ".join(f"{hints[kind]} ({count} file{'s' * (count > 1)})" for kind, count in found.most_common())


def _kind(path: Path) -> str | None:
    return _by_ending(path) or ("DICOM" if _is_dicom(path) else None)


def _by_ending(path: Path) -> str | None:
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return None
    return next((kind for kind, endings in _KINDS.items() if name.endswith(endings)), None)


def _is_dicom(path: Path) -> bool:
    """Whether the file has DICOM's mark behind its preamble."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
