"""One geometry rule from reading to writing: sform if coded, else qform, else pixdim; nothing is rewritten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from medmap_monai.data.study import ImageSource, Study, StudyError
from medmap_monai.engines.evaluation_samples import label_geometry
from medmap_monai.transforms.load_study import LoadStudy
from medmap_monai.transforms.pipelines import inference_transforms
from medmap_monai.transforms.restore import RestoreToOriginal, SaveLabelMap

SHAPE = (8, 9, 10)
ROUNDED = np.array([[-0.9375, 0, 0, 90], [0, -0.9375, 0, 126], [0, 0, 1.5, -72], [0, 0, 0, 1]])


def _header(kind: type, sform: np.ndarray | None, qform: np.ndarray | None, pixdim: list[float]) -> nib.Nifti1Header:
    header = kind.header_class()
    header.set_data_shape(SHAPE)
    header.set_data_dtype(np.int16)
    header.set_xyzt_units("mm")
    if qform is not None:
        header.set_qform(qform, 1, strip_shears=True)
    if sform is not None:
        header.set_sform(sform, 1)
    header["pixdim"][1:4] = pixdim
    return header


TURN = np.array([[0.8, -0.6, 0, 3.1], [0.6, 0.8, 0, -7.3], [0, 0, 1, 1 / 3], [0, 0, 0, 1.0]])
CASES = {
    "row 1: sform beside a rounded pixdim": (nib.Nifti1Image, ROUNDED, None, [0.9376, 0.9375, 1.5]),
    "row 2: sform against pixdim": (nib.Nifti1Image, np.diag([0.5, 0.5, 3, 1]), None, [1, 1, 1]),
    "sheared sform": (nib.Nifti1Image, TURN + np.diag([0.1, 0.2, 0, 0])[:, [1, 0, 2, 3]], TURN, [1, 1, 1]),
    "qform": (nib.Nifti1Image, None, TURN, [1, 1, 1]),
    "qform with other pixdim": (nib.Nifti1Image, None, TURN, [0.7, 1.3, 2.1]),
    "left-handed qform": (nib.Nifti1Image, None, TURN @ np.diag([-1, 1, 1, 1]), [1, 1, 1]),
    "pixdim alone": (nib.Nifti1Image, None, None, [0.7, 1.3, 2.1]),
    "NIfTI-2": (nib.Nifti2Image, TURN * 1.1, None, [1, 1, 1]),
    "NIfTI-2 qform": (nib.Nifti2Image, None, TURN, [1.1, 1 / 3, 0.3]),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("orientation", [None, "RAS"])
def test_output_has_the_geometry_of_the_source_bit_for_bit(name: str, orientation: str | None, tmp_path: Path) -> None:
    kind, *fields = CASES[name]
    data = np.random.default_rng(0).integers(1, 99, SHAPE).astype(np.int16)
    path = tmp_path / "flair.nii.gz"
    nib.save(kind(data, None, _header(kind, *fields)), path)
    source = nib.load(path)
    study = Study("a", {"flair": ImageSource(path)})
    item = inference_transforms(("flair",), orientation=orientation)({"study": study, "available": None})
    # a prediction that marks one voxel, where the image is brightest: it must come back to that voxel
    image = item["image"]
    brightest = (image == image.max()).to(torch.uint8)
    restored = RestoreToOriginal()(brightest)
    written = nib.load(SaveLabelMap(tmp_path / "out")(restored))
    assert written.affine.tobytes() == source.affine.tobytes()
    for form in ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "pixdim", "quatern_b", "qoffset_x"):
        np.testing.assert_array_equal(written.header[form], source.header[form])
    np.testing.assert_array_equal(np.asarray(written.dataobj), data == data.max())
    edges = np.linalg.norm(source.affine[:3, :3], axis=0)
    np.testing.assert_allclose(label_geometry(restored)[0], edges)


def _entry(row: int, column: int, value: float) -> Callable[[np.ndarray], None]:
    return lambda affine: affine.__setitem__((row, column), value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_entry(0, 0, np.nan), "not finite"),
        (_entry(1, 3, np.inf), "not finite"),
        (_entry(0, 0, 1e30), "voxel edges"),
        (_entry(2, 3, 1e30), "from the origin"),
        (lambda affine: affine.__setitem__(slice(1, 3), [0, 0.9, 1.5, 1]), "in one plane"),
    ],
)
def test_an_invalid_sform_is_an_error_that_names_the_file(
    change: Callable[[np.ndarray], None], message: str, tmp_path: Path
) -> None:
    header = _header(nib.Nifti1Image, ROUNDED, None, [0.9375, 0.9375, 1.5])
    rows = ROUNDED.copy()
    change(rows)
    for axis, row in zip("xyz", rows, strict=False):
        header[f"srow_{axis}"] = row
    path = tmp_path / "flair.nii.gz"
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.int16), None, header), path)
    with pytest.raises(StudyError, match=f"case a: .*flair.nii.gz: has an invalid sform .*{message}"):
        LoadStudy(("flair",))(Study("a", {"flair": ImageSource(path)}))
