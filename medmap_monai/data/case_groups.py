"""Files that were read one by one, put together as cases: by their names, or by their folder where names disagree."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medmap_monai.data.reading import NameReading, folder_name, relative_name

_Stems = dict[str, list[NameReading]]


@dataclass
class CaseFiles:
    """The files of one case, and what is wrong with their names."""

    case_id: str
    images: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    labels: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)  # NIfTI files whose names say nothing
    faults: list[str] = field(default_factory=list)
    folders: set[Path] = field(default_factory=set)

    def add(self, reading: NameReading, several: bool) -> None:
        """Take an image in; ``several`` modalities of one file are its channels, otherwise two readings."""
        self.folders.add(reading.path.parent)
        if len(reading.modalities) > 1 and not several:
            self.faults.append(
                f"{reading.path.name} can be read as {' or '.join(reading.modalities)}: rename it, list the files in a "
                "manifest, or name them one by one (medmap predict --flair FILE ...)"
            )
            self.others.append(reading.path)
            return
        for modality in reading.modalities:
            self.images[modality].append(reading.path)


def group_cases(images: Iterable[NameReading], root: Path, several: bool) -> dict[str, CaseFiles]:
    """Cases by id.

    An id that is certain (one the edition issues, or the name of the folder) decides. Otherwise the files of one
    folder are one case when their names agree, or when the folder can only be one patient's; many when the same
    modality occurs under several names; an error where both can be.

    Args:
        images: readings that say a modality.
        root: the folder that was read.
        several: whether one file holds several modalities as channels.
    """
    cases: dict[str, CaseFiles] = {}
    loose: dict[Path, _Stems] = defaultdict(lambda: defaultdict(list))
    for reading in images:
        if reading.certain:
            cases.setdefault(reading.case, CaseFiles(reading.case)).add(reading, several)
        else:
            loose[reading.path.parent][reading.case].append(reading)
    named: list[tuple[str, Path, list[NameReading]]] = []  # the name is an id, as far as this folder tells
    foldered: list[tuple[Path, list[NameReading], str]] = []  # the folder is the case
    for folder, stems in loose.items():
        sure = [case for case in cases.values() if folder in case.folders]
        if len(sure) == 1 and (sure[0].case_id == folder.name or set(stems) == {""}):
            for reading in _flat(stems):  # in the folder of a case whose other files carry its id
                sure[0].add(reading, several)
            continue
        how, why = _is_one_patient(stems, folder)
        if how == "names":
            named += [(stem, folder, readings) for stem, readings in stems.items()]
        else:
            foldered.append((folder, _flat(stems), why))
    _add_named(cases, named, foldered, several)
    _add_foldered(cases, foldered, root, several)
    return cases


def _flat(stems: Mapping[str, list[NameReading]]) -> list[NameReading]:
    return [reading for readings in stems.values() for reading in readings]


def _is_one_patient(stems: Mapping[str, list[NameReading]], folder: Path) -> tuple[str, str]:
    """``names`` (every name is a case), or ``folder`` (one case); and what is wrong where neither is sure."""
    if len(stems) == 1:
        return ("names", "") if next(iter(stems)) else ("folder", "")
    held = {stem: {m for reading in readings for m in reading.modalities} for stem, readings in stems.items()}
    alike = len({re.sub(r"\d+", "0", stem) for stem in stems}) == 1
    names = [modality for modalities in held.values() for modality in modalities]
    repeated = len(names) > len(set(names))
    several = any(len(modalities) > 1 for modalities in held.values())
    shortest = min(stems, key=len)
    if not alike and all(_extends(stem, shortest) for stem in stems):
        return "folder", ""
    if repeated and (several or alike):
        return "names", ""
    if not repeated and not several and not alike:
        return "folder", ""
    shown = "; ".join(f"{stem or '(no name)'}: {' '.join(sorted(held[stem]))}" for stem in sorted(stems)[:6])
    return "folder", (
        f"the names in this folder disagree, so it is not clear whether they are one patient or several ({shown}); "
        "put every patient into a folder of its own with names that agree, or list the files in a manifest"
    )


def _extends(stem: str, start: str) -> bool:
    """Whether ``stem`` is ``start`` with further words behind it (not numbers, which count patients or visits)."""
    rest = stem[len(start) :]
    return stem == start or (
        stem.startswith(start) and re.match(r"[_. -]+[A-Za-z]" if start else r"[A-Za-z]", rest) is not None
    )


def _add_named(
    cases: dict[str, CaseFiles],
    named: list[tuple[str, Path, list[NameReading]]],
    foldered: list[tuple[Path, list[NameReading], str]],
    several: bool,
) -> None:
    """Cases by their names; a name that is the same in the folders of several patients ("scan") is none."""
    by_name: dict[str, list[tuple[Path, list[NameReading]]]] = defaultdict(list)
    for stem, folder, readings in named:
        by_name[stem].append((folder, readings))
    alone = {folder: sum(other == folder for _, other, _ in named) == 1 for _, folder, _ in named}
    for stem, places in by_name.items():
        held = [{m for reading in readings for m in reading.modalities} for _, readings in places]
        overlap = sum(map(len, held)) > len(set().union(*held))
        is_id = any(folder.name == stem for folder, _ in places) or (not overlap and re.search(r"\d", stem) is not None)
        if len(places) > 1 and not is_id and all(alone[folder] for folder, _ in places):
            foldered += [(folder, readings, "") for folder, readings in places]
            continue
        case = cases.setdefault(stem, CaseFiles(stem))
        for _, readings in places:
            for reading in readings:
                case.add(reading, several)


def _add_foldered(
    cases: dict[str, CaseFiles], foldered: list[tuple[Path, list[NameReading], str]], root: Path, several: bool
) -> None:
    """Cases that are named after their folder, or after its whole path where folders share a name."""
    names = [folder_name(folder) for folder, _, _ in foldered]
    for folder, readings, why in foldered:
        name = folder_name(folder)
        name = name if names.count(name) == 1 and name not in cases else relative_name(folder, root)
        case = cases.setdefault(name, CaseFiles(name))
        case.faults += [why] if why else []
        for reading in readings:
            case.add(reading, several)
