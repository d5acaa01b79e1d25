"""Synthetic studies as a cohort on disk: NIfTI files in a data set's layout, which every command accepts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medmap_monai.data.edition import Edition
from medmap_monai.data.editions import get_edition
from medmap_monai.data.phantom_files import case_files
from medmap_monai.data.phantom_recipe import PhantomRecipe
from medmap_monai.data.seeded_dataset import item_seed
from medmap_monai.synthesis.anatomy import label_map_files, load_anatomy
from medmap_monai.synthesis.mni import mni_anatomy
from medmap_monai.synthesis.priors import load_priors
from medmap_monai.synthesis.records import BUILT_IN_ANATOMY
from medmap_monai.synthesis.study import SyntheticStudy, synthesize_study
from medmap_monai.utils.json_file import read_own_record
from medmap_monai.utils.synthetic import MARKER_FILE, write_synthetic_marker

GENERATOR = "medmap_monai.synthesis"
GENERATOR_VERSION = "1"
_WINDOW = (168.0, 208.0, 168.0)  # mm; holds every adult brain
_SCALE = 600  # brightness 1 on disk, as whole numbers


def write_synthetic_cohort(
    folder: str | os.PathLike[str],
    anatomy: str | os.PathLike[str] = BUILT_IN_ANATOMY,
    cases: int = 10,
    spacing: float = 1.0,
    edition: str | Edition = "brats2020",
    priors: str | os.PathLike[str] | Mapping[str, Any] = "default",
    seed: int = 0,
    first_case: int = 0,
    absent: Mapping[str, Sequence[str]] | None = None,
    missing_rates: Mapping[str, float] | None = None,
    anatomies: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a cohort of synthetic brain tumour studies; the folder appears only when it is complete.

    Args:
        folder: must not exist, or be empty.
        anatomy: folder of brain label maps (or one file), or ``mni152`` (extra ``synthesis``).
        cases: number of studies; label maps take turns.
        spacing: voxel size in mm.
        edition: layout and label values; an edition that ``medmap phantom`` can write for the brain.
        priors: see :func:`~medmap_monai.synthesis.priors.load_priors`; ``shifted`` for test sets.
        seed: study k depends on ``seed``, k and its label map alone.
        first_case: index of the first study; continues the names too.
        absent, missing_rates: files to leave out, as for ``medmap phantom``.
        anatomies: first and last label map to use, counted from 1; None takes all.
        progress: called with (studies done, studies).

    Raises:
        ValueError: an argument out of range.
        FileExistsError: the folder exists and is not empty.
        FileNotFoundError: no label maps.
    """
    chosen = get_edition(edition)
    if not 0.3 <= spacing <= 6:
        raise ValueError(f"spacing must lie between 0.3 and 6 mm, got {spacing:g}")
    shape = tuple(int(np.ceil(size / spacing / 8) * 8) for size in _WINDOW)
    recipe = PhantomRecipe(chosen, cases, shape, seed, first_case, absent, missing_rates)
    if recipe.body_part != "brain":
        raise ValueError(
            f"edition {chosen} is no brain tumour data set; there is no anatomy of the heart to build from"
        )
    table = load_priors(priors)
    target = Path(os.path.abspath(folder))
    if target.exists() and any(target.iterdir()):
        raise FileExistsError(f"{target} exists and is not empty; a synthetic cohort needs a folder of its own")
    files = _label_maps(anatomy, anatomies)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", suffix=f"-{target.name}", dir=target.parent))
    kinds = {}
    details = _details(chosen, table["name"], anatomy, cases, spacing, seed, first_case, anatomies)
    try:
        for done, (number, case_id) in enumerate(enumerate(recipe.kept, start=first_case), start=1):
            file = files[number % len(files)]
            brain = mni_anatomy(spacing) if file is None else load_anatomy(file, spacing)
            state = np.random.RandomState(item_seed(seed, 0, number))
            study = synthesize_study(brain, chosen.modalities.names, shape, spacing, table, state)
            kinds[case_id] = {"anatomy": brain.name, "kind": study.kind}
            _write_study(temporary, recipe, case_id, study, spacing)
            if progress is not None:
                progress(done, cases)
        name = f"Synthetic brain tumours (priors {table['name']})"
        write_synthetic_marker(temporary, name, {**details, "studies": kinds})
        umask = os.umask(0)  # mkdtemp makes private folders; give this one ordinary permissions
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def ensure_synthetic_cohort(
    folder: str | os.PathLike[str],
    anatomy: str | os.PathLike[str] = BUILT_IN_ANATOMY,
    cases: int = 10,
    spacing: float = 1.0,
    edition: str | Edition = "brats2020",
    priors: str | os.PathLike[str] = "default",
    seed: int = 0,
    first_case: int = 0,
    anatomies: tuple[int, int] | None = None,
) -> Path:
    """The folder of such a cohort, written first if it is not there. Arguments as :func:`write_synthetic_cohort`.

    Raises:
        ValueError: the folder holds something else, or a cohort with other parameters.
    """
    target = Path(folder)
    if not target.exists() or not any(target.iterdir()):
        try:
            return write_synthetic_cohort(
                target, anatomy, cases, spacing, edition, priors, seed, first_case, anatomies=anatomies
            )
        except OSError:
            if not target.exists():
                raise  # otherwise another process was faster
    found = read_own_record(target / MARKER_FILE) or {}
    wanted = _details(
        get_edition(edition), load_priors(priors)["name"], anatomy, cases, spacing, seed, first_case, anatomies
    )
    other = [key for key, value in wanted.items() if found.get(key) != value]
    if other:
        raise ValueError(f"{target} holds something else (differs in {', '.join(other)}); delete it or choose another")
    return target


def _details(
    edition: Edition,
    priors: str,
    anatomy: str | os.PathLike[str],
    cases: int,
    spacing: float,
    seed: int,
    first_case: int,
    anatomies: tuple[int, int] | None,
) -> dict[str, Any]:
    return {
        "notice": "SYNTHETIC. Computed from label maps of brains; no patient with a tumour was imaged.",
        "generator": GENERATOR,
        "generator_version": GENERATOR_VERSION,
        "edition": str(edition),
        "priors": priors,
        "anatomy": Path(anatomy).name,
        **({} if anatomies is None else {"anatomies": f"{anatomies[0]}-{anatomies[1]}"}),
        "cases": cases,
        "spacing": spacing,
        "seed": seed,
        "first_case": first_case,
    }


def _label_maps(anatomy: str | os.PathLike[str], anatomies: tuple[int, int] | None) -> Sequence[Path | None]:
    """Files to take turns with; None stands for the built-in anatomy."""
    if str(anatomy) == BUILT_IN_ANATOMY:
        return [None]
    files = label_map_files(anatomy)
    if anatomies is None:
        return files
    first, last = anatomies
    if not 1 <= first <= last <= len(files):
        raise ValueError(f"label maps {first} to {last} were asked for; {anatomy} holds {len(files)}")
    return files[first - 1 : last]


def _write_study(root: Path, recipe: PhantomRecipe, case_id: str, study: SyntheticStudy, spacing: float) -> None:
    """Files on an LPS grid, as BraTS has them."""
    lookup = np.array(
        [recipe.edition.disk_values.get(index, 0) for index in range(max(recipe.edition.disk_values) + 1)]
    )
    names = recipe.edition.modalities.names
    matrix = np.diag([-spacing, -spacing, spacing, 1.0])
    matrix[1, 3] = (recipe.shape[1] - 1) * spacing
    for path, modality in case_files(root, recipe, case_id):
        path.parent.mkdir(parents=True, exist_ok=True)
        if modality is None:
            values = lookup[study.label[0].numpy()].astype(np.uint8 if lookup.max() < 256 else np.int16)
        else:
            image = study.image[names.index(modality)].numpy()
            whole = np.rint(image * _SCALE)
            values = np.where(image > 0, np.maximum(whole, 1), whole).astype(np.int16)  # 0 means outside
        volume = nib.Nifti1Image(np.ascontiguousarray(values[::-1, ::-1]), matrix)
        volume.set_sform(matrix, 1)
        volume.set_qform(matrix, 1)
        volume.header.set_xyzt_units("mm", "sec")
        volume.header["descrip"] = b"SYNTHETIC STUDY (medmap-monai)"
        nib.save(volume, path)
