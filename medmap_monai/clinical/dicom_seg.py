"""A label map as a DICOM Segmentation object that refers to the slices it was drawn on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medmap_monai import __version__
from medmap_monai.clinical.extras import need
from medmap_monai.clinical.segment_codes import ABNORMAL, BRAIN, segment_code
from medmap_monai.clinical.source import DICOM, SourceImage
from medmap_monai.clinical.volume import Volume
from medmap_monai.utils.files import atomic_path

_SERIES_NUMBER = 9000  # far from a scanner's own numbers


def write_dicom_seg(
    labels: Volume,
    image: SourceImage,
    path: Path,
    classes: Sequence[str],
    model: str,
    model_version: str,
    number: int = 0,
) -> Path:
    """Write ``labels`` as a binary DICOM SEG in the study of the series that ``image`` is.

    Patient and study are copied from the source images, as the standard asks; series description and content label
    begin with RESEARCH. Only slices with something on them are stored.

    Args:
        labels: class indices on the grid of ``image``.
        image: a DICOM series.
        path: the file.
        classes: name of every class, background first.
        model, model_version: what made the segmentation.
        number: added to the series number, for several in one study.

    Raises:
        ValueError: nothing is segmented, or ``labels`` are not on the grid of ``image``.
        ExtraNeededError: highdicom is not installed.
    """
    hd = need("highdicom", "dicom", "writing DICOM SEG")
    pydicom = need("pydicom", "dicom", "writing DICOM SEG")
    assert image.kind == DICOM
    sources = [pydicom.dcmread(file, force=True) for file in image.files]  # some exports have no preamble
    frames = np.ascontiguousarray(labels.data.T)  # (slices, rows, columns)
    slices = int(sources[0].get("NumberOfFrames", 1)) if len(sources) == 1 else len(sources)
    expected = (slices, int(sources[0].Rows), int(sources[0].Columns))
    if frames.shape != expected:
        raise ValueError(f"label map of {image.label} has {frames.shape} slices, rows, columns; the series {expected}")
    present = [index for index in range(1, len(classes)) if (frames == index).any()]
    if not present:
        raise ValueError(f"nothing is segmented on {image.label}: an empty DICOM SEG says nothing")
    masks = np.stack([frames == index for index in present], axis=-1).astype(np.uint8)
    algorithm = hd.AlgorithmIdentificationSequence(
        name=model[:64], version=model_version[:64], family=pydicom.sr.codedict.codes.DCM.ArtificialIntelligence
    )
    series_of = str(sources[0].get("SeriesDescription", "") or image.label)
    seg = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=masks,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(hd, place + 1, classes[i], i, algorithm) for place, i in enumerate(present)],
        series_instance_uid=hd.UID(),
        series_number=_SERIES_NUMBER + number,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="medmap-monai",
        manufacturer_model_name=model[:64],
        software_versions=__version__,
        device_serial_number="0",
        content_label="RESEARCH",
        content_description="RESEARCH ONLY, not for diagnosis",
        series_description=f"RESEARCH {model} on {series_of}"[:64],
        omit_empty_frames=True,
    )
    with atomic_path(path) as temporary:
        seg.save_as(temporary)
    return path


def _segment(hd: Any, number: int, name: str, index: int, algorithm: Any) -> Any:
    code = segment_code(name, index)
    coded = {what: hd.sr.CodedConcept(c.value, "SCT", c.meaning) for what, c in _codes(code.property_type).items()}
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=code.label,
        segmented_property_category=coded["category"],
        segmented_property_type=coded["type"],
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=hd.UID(),
        tracking_id=f"RESEARCH {name}",
        anatomic_regions=[coded["region"]],
    )
    description.RecommendedDisplayCIELabValue = list(hd.color.CIELabColor.from_rgb(*code.colour).value)
    return description


def _codes(property_type: Any) -> dict[str, Any]:
    return {"category": ABNORMAL, "type": property_type, "region": BRAIN}
