"""Files with mutated headers: each is refused by name, or read as nibabel reads it and written back in place."""

from __future__ import annotations

import gzip
import warnings
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np

from medmap_monai.data.study import ImageSource, Study, StudyError
from medmap_monai.transforms.load_study import LoadStudy
from medmap_monai.transforms.pipelines import inference_transforms
from medmap_monai.transforms.restore import RestoreToOriginal, SaveLabelMap
from tests.transforms.make_study import brain


def mutated_header(content: bytearray, rng: np.random.Generator) -> None:
    """Change one to four bytes of the header of a NIfTI file in place."""
    for place in rng.integers(0, 348, rng.integers(1, 5)):
        content[place] = int(rng.integers(0, 256))


def mutated_headers(folder: Path, count: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """Outcomes of ``count`` mutated headers (``refused``, ``read``; all else is wrong), and what went wrong."""
    rng = np.random.default_rng(seed)
    path = folder / "flair.nii.gz"
    nib.save(nib.Nifti1Image(np.rint(brain((12, 14, 10), rng)).astype(np.int16), np.diag([0.9, 1.1, 2.0, 1])), path)
    whole = gzip.decompress(path.read_bytes())
    study = Study("a", {"flair": ImageSource(path)})
    load = LoadStudy(("flair",))
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    for number in range(count):
        content = bytearray(whole)
        mutated_header(content, rng)
        path.write_bytes(gzip.compress(bytes(content), compresslevel=1))
        try:
            load(study)
        except StudyError as error:
            named = str(path) in str(error) or "no modality shows anything" in str(error)
            outcomes["refused" if named else "file not named"] += 1
            wrong += [] if named else [f"{number}: {error}"]
            continue
        except Exception as error:
            outcomes["traceback"] += 1
            wrong.append(f"{number}: {type(error).__name__}: {error}")
            continue
        fault = _difference(study, folder)
        outcomes[fault or "read"] += 1
        wrong += [f"{number}: {fault}"] if fault else []
    return outcomes, wrong


def _difference(study: Study, folder: Path) -> str:
    """Whether what was read and what is written differ from what nibabel makes of the file."""
    source = nib.load(study.images["flair"].path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        item = inference_transforms(("flair",))({"study": study, "available": None})
        label = RestoreToOriginal()((item["image"] != 0).to(item["image"].dtype))
        written = nib.load(SaveLabelMap(folder / "out", "generic")(label))
        stored = np.asanyarray(source.dataobj, dtype=np.float32).reshape(item["image"].shape[1:])
    if written.affine.tobytes() != source.affine.tobytes():
        return "affine differs"
    background = stored[0, 0, 0]
    return "" if np.array_equal(np.asarray(written.dataobj) != 0, stored != background) else "values differ"
