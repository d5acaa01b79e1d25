"""``report.html`` of one study: what a radiologist needs to judge a segmentation, in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmap_monai import __version__
from medmap_monai.clinical.extras import need
from medmap_monai.clinical.segment_codes import segment_code
from medmap_monai.clinical.volume import Volume
from medmap_monai.utils.connected_parts import connected_parts
from medmap_monai.utils.files import write_text
from medmap_monai.utils.preparation import TOLD_BY_PREPARATION

PAGE_NAME = "report.html"


def write_study_page(
    path: Path,
    title: str,
    record: Mapping[str, Any],
    images: Mapping[str, Volume],
    labels: Volume,
    prepared: Mapping[str, Any] | None = None,
    originals: Mapping[str, Volume] | None = None,
    native_labels: Mapping[str, Volume] | None = None,
    files: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Path:
    """Write the page.

    Args:
        path: the HTML file; it holds everything, pictures too.
        title: name of the study.
        record: what ``medmap predict`` writes beside its label map.
        images: modality -> image on the grid of ``labels``; those that were used.
        labels: class indices.
        prepared: content of ``prepared.json``, where the study was prepared.
        originals, native_labels: modality -> original image, and class indices on its grid.
        files: results that lie beside the page, relative to it.
        notes: further remarks.

    Raises:
        ExtraNeededError: jinja2 or matplotlib is not installed.
    """
    jinja2 = need("jinja2", "report", "the page of a study")
    need("matplotlib.figure", "report", "the page of a study")
    from medmap_monai.clinical.study_figures import display_name, native_figure, planes_figure

    classes = list(record["classes"])
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("medmap_monai.clinical"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    expected = record.get("expected") or {}
    told_before = {f"{TOLD_BY_PREPARATION}{text}" for text in (prepared or {}).get("warnings", ())}
    context = {
        "title": title,
        "version": __version__,
        "record": record,
        "classes": [_class(name, index, record) for index, name in enumerate(classes) if index],
        "whole": round(sum(float(v["ml"]) for v in record.get("volumes", {}).values()), 1),
        "pieces": _pieces(labels),
        "expected": expected,
        "sequences": [_sequence(name, record, prepared) for name in _all_names(record)],
        "name_of": display_name,
        "prepared": prepared,
        "warnings": [
            *record.get("plausibility", ()),
            *expected.get("warnings", ()),
            *(prepared or {}).get("warnings", ()),
        ],
        "notes": [
            *(text for text in record.get("notes", ()) if text not in told_before),
            *(prepared or {}).get("notes", ()),
            *notes,
        ],
        "planes": planes_figure(images, labels, classes),
        "native": native_figure(originals, native_labels, classes) if originals and native_labels else "",
        "files": list(files),
        "empty": not bool((labels.data > 0).any()),
    }
    write_text(path, environment.get_template("study.html").render(context))
    return path


def _class(name: str, index: int, record: Mapping[str, Any]) -> dict[str, Any]:
    code = segment_code(name, index)
    volume = record.get("volumes", {}).get(name, {})
    return {"name": name, "label": code.label, "colour": "#{:02x}{:02x}{:02x}".format(*code.colour), **volume}


def _pieces(labels: Volume) -> str:
    """How many separate pieces are segmented, and the ml of the largest: small ones far away are often false."""
    _, sizes = connected_parts(labels.data > 0)
    if len(sizes) < 2:
        return ""
    largest = float(sizes.max()) * labels.voxel_ml
    return f"in {len(sizes)} separate pieces, the largest {largest:.1f} ml"


def _all_names(record: Mapping[str, Any]) -> list[str]:
    return [name for names in record["modalities"].values() for name in names]


def _sequence(name: str, record: Mapping[str, Any], prepared: Mapping[str, Any] | None) -> dict[str, Any]:
    kind = next(kind for kind, names in record["modalities"].items() if name in names)
    entry = ((prepared or {}).get("sequences") or {}).get(name)
    place = ""
    if entry and entry["registration"]:
        found = entry["registration"]
        place = (
            f"moved {found['shift_mm']:.1f} mm, turned {found['rotation_degrees']:.1f}\N{DEGREE SIGN}, "
            f"sharpness {found['sharpness']:.2f}"
        )
    elif entry:
        place = "unchanged" if (prepared or {}).get("passed_through") else "the others follow it"
    return {
        "name": name,
        "state": kind,
        "source": entry["source"]["label"] if entry else "",
        "recognised": entry["recognised"] if entry else "",
        "spacing": " \N{MULTIPLICATION SIGN} ".join(f"{s:.2g}" for s in entry["original"]["spacing_mm"])
        if entry
        else "",
        "place": place,
    }
