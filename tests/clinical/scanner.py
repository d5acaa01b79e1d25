"""What scanners and archives write, small: images of one synthetic head on several grids, as NIfTI and as DICOM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from medmap_monai.clinical.volume import LPS_TO_RAS, Volume, write_nifti

#: how the same head lies in each sequence: degrees about the three axes, millimetres
POSES = {"flair": ((3, -2, 2), (3, -6, 9)), "t1ce": ((0, 0, 0), (0, 0, 0)), "t2": ((-1, 2, -2), (-5, 4, -8))}
DESCRIPTIONS = {"flair": "t2_tirm_tra_dark-fluid", "t1ce": "t1_se_tra +KM", "t1": "t1_se_tra", "t2": "t2_tse_tra_512"}
PATIENT, NUMBER = "Mustermann^Erika", "PID-4711"


def load(path: Path) -> Volume:
    image = nib.load(path)
    return Volume(np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=np.float64))


def rigid(degrees: Sequence[float], shift: Sequence[float]) -> np.ndarray:
    """(4, 4) matrix."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def native_head(phantom: Path, modalities: Sequence[str] = ("flair", "t1ce", "t2")) -> dict[str, Volume]:
    """Sequences of the phantom case in ``phantom``, each on a grid of its own, moved as :data:`POSES` says."""
    heads = {}
    folds = gaussian_filter(
        np.random.default_rng(0).normal(size=(32, 32, 32)), 1.5
    )  # the phantom is too smooth a brain
    folds /= folds.std()
    for number, modality in enumerate(modalities):
        small = load(next(phantom.glob(f"*_{modality}.nii.gz")))
        affine = np.diag([3.0, 3.0, 3.0, 1.0])  # 32 voxels of 3 mm: a small head
        affine[:3, 3] = -48
        contrast = {"flair": 0.3, "t1ce": 0.5, "t1": -0.2, "t2": 0.4}[modality]
        head = Volume((small.data * 10 * np.exp(contrast * folds)).astype(np.float32), affine)
        grid = np.diag([2.5, 2.5, 3.5 + number / 2, 1.0])
        shape = (56, 54, int(140 / (3.5 + number / 2)))
        grid[:3, 3] = -np.asarray(shape) * np.diag(grid)[:3] / 2
        move = np.linalg.inv(rigid(*POSES[modality]))  # world of this sequence -> world of the head
        heads[modality] = Volume(np.round(head.on_grid(shape, grid, move)), grid)
    return heads


def write_native(folder: Path, heads: Mapping[str, Volume], names: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for modality, volume in heads.items():
        write_nifti(volume, folder / f"{names[modality]}.nii.gz")


def write_dicom(
    folder: Path,
    volume: Volume,
    description: str,
    study_uid: str,
    series_number: int = 1,
    frame_uid: str | None = None,
    **tags: Any,
) -> list[Path]:
    """A series as an MR scanner writes it: one file per slice, 16 bit, names in no order."""
    folder.mkdir(parents=True, exist_ok=True)
    affine = LPS_TO_RAS @ volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    columns, rows, slices = volume.data.shape
    series_uid, frame_uid = generate_uid(), frame_uid or generate_uid()
    written = []
    for index in range(slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study_uid, series_uid, frame_uid
        ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = PATIENT, NUMBER, "19500101", "F"
        ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20200102", "101112", "A-99", "1"
        ds.ReferringPhysicianName, ds.PositionReferenceIndicator = "Arzt^Anna", ""
        ds.Modality, ds.Manufacturer, ds.SeriesNumber, ds.InstanceNumber = "MR", "Test", series_number, index + 1
        ds.SeriesDescription, ds.ProtocolName = description, "head"
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "SE", "NONE", "", "2D"
        ds.EchoTrainLength = 1
        ds.ImagePositionPatient = [f"{v:.6f}" for v in (affine @ [0, 0, index, 1])[:3]]
        ds.ImageOrientationPatient = [f"{v:.8f}" for v in (affine[:3, :2] / spacing[:2]).T.ravel()]
        ds.PixelSpacing, ds.SliceThickness = [f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"], f"{spacing[2]:.6f}"
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = rows, columns, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.PixelData = np.ascontiguousarray(volume.data[:, :, index].T.astype(np.uint16)).tobytes()
        for name, value in tags.items():
            setattr(ds, name, value)
        path = folder / f"IM{(index * 7) % slices:04d}-{series_number}-{index}.dcm"
        ds.save_as(path, enforce_file_format=True)
        written.append(path)
    return written


def write_dicom_study(folder: Path, heads: Mapping[str, Volume]) -> str:
    """A PACS export: all series of one patient's visit in one folder; returns the StudyInstanceUID."""
    study_uid, frame_uid = generate_uid(), generate_uid()
    for number, (modality, volume) in enumerate(heads.items(), 1):
        write_dicom(folder, volume, DESCRIPTIONS[modality], study_uid, number, frame_uid)
    return study_uid


def all_text(folder: Path) -> bytes:
    """Every byte of every file below ``folder``, unpacked where it is packed."""
    import gzip

    packed = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return b"\n".join(
        path.name.encode() + (gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()) for path in packed
    )
