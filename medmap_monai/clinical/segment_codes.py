"""What the classes of label maps are called in SNOMED CT, for DICOM SEG."""

from __future__ import annotations

from typing import NamedTuple


class Code(NamedTuple):
    """A SNOMED CT concept: ``value`` and its ``meaning``."""

    value: str
    meaning: str


class SegmentCode(NamedTuple):
    """How a class is described: ``label`` for people, ``property_type`` for machines, ``colour`` (RGB) in viewers."""

    label: str
    property_type: Code
    colour: tuple[int, int, int]


ABNORMAL = Code("49755003", "Morphologically Abnormal Structure")
BRAIN = Code("12738006", "Brain")

#: class name of an edition -> its code. SNOMED CT has no concept of contrast enhancement: the label says it.
SEGMENT_CODES: dict[str, SegmentCode] = {
    "NCR": SegmentCode("Necrotic or non-enhancing tumour core", Code("6574001", "Necrosis"), (86, 180, 233)),
    "ED": SegmentCode("Peritumoural oedema", Code("79654002", "Edema"), (240, 228, 66)),
    "ET": SegmentCode("Enhancing tumour", Code("108369006", "Neoplasm"), (213, 94, 0)),
    "RC": SegmentCode("Resection cavity", Code("52988006", "Lesion"), (204, 121, 167)),
}
_OTHER_COLOURS = ((0, 158, 115), (0, 114, 178), (230, 159, 0))


def segment_code(name: str, index: int) -> SegmentCode:
    """The code of class ``name``; a class that the table does not know is a lesion under its own name."""
    return SEGMENT_CODES.get(
        name, SegmentCode(name, Code("52988006", "Lesion"), _OTHER_COLOURS[index % len(_OTHER_COLOURS)])
    )
