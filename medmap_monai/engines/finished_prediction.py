"""Whether the result of a study that lies in the output folder is the one that this run would give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medmap_monai.data.editions import get_edition
from medmap_monai.data.study import Study
from medmap_monai.data.study_dataset import study_files
from medmap_monai.engines.prediction_facts import PredictionFacts
from medmap_monai.transforms.nifti_provenance import read_provenance
from medmap_monai.utils.output import label_map_path


def why_again(
    folder: Path, study: Study, before: Mapping[str, Any], facts: PredictionFacts, modalities: Iterable[str]
) -> str | None:
    """Why the result on disk is not that of this run; None where it is.

    Args:
        folder: output folder.
        study: what would be segmented.
        before: record of the result on disk.
        facts: what this run is made of.
        modalities: names that the network takes.
    """
    path = label_map_path(folder, study.case_id)
    if not path.is_file():
        return "label map gone"
    try:
        inputs = files_of(modalities, study_files(study, before.get("inputs")))
    except OSError:
        return "input not readable"  # told when it is read
    if before.get("fingerprint") != facts.fingerprint(inputs):
        return facts.what_changed(before, inputs)
    values = {str(index): value for index, value in get_edition(study.edition).disk_values.items()}
    if before.get("label_values") not in (None, values):
        return "written with other label values"
    written = read_provenance(path)  # a map that was corrected by hand carries none, and is left alone
    if written is not None and written.get("fingerprint") != before.get("fingerprint"):
        return "label map of another run"
    return None


def files_of(modalities: Iterable[str], files: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``files`` (by modality, and the label) that a network of ``modalities`` reads."""
    wanted = set(modalities)
    return {name: file for name, file in files.items() if name in wanted}
