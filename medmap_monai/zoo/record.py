"""What an evaluation found, kept in the bundle: the quality to expect of its weights, and a picture."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medmap_monai.metrics.reliability import RELIABILITY_FILE, read_reliability, write_reliability
from medmap_monai.utils.files import atomic_path, file_sha256
from medmap_monai.utils.json_file import read_json
from medmap_monai.zoo.bundle_folder import BundleFolder

#: below the bundle: one case of the evaluation, segmented from every subset
PICTURE = Path("docs") / "subsets.png"
#: the case with the lowest Dice, drawn the same way
WORST_PICTURE = Path("docs") / "worst.png"


def record_evaluation(bundle: BundleFolder, summary: str | os.PathLike[str]) -> list[Path]:
    """Write ``models/reliability.json`` and, where label maps were kept, pictures of two cases into a bundle.

    ``docs/subsets.png`` is the kept case with the median Dice, ``docs/worst.png`` the one with the lowest where more
    than one was kept. They need the extra ``report``; without it there is none.

    Args:
        bundle: with its weights.
        summary: ``summary.json`` of an evaluation of these very weights, in its folder.

    Returns:
        the files.

    Raises:
        FileNotFoundError: no weights, or no summary.
        ValueError: the evaluation is of other weights, or holds no Dice.
    """
    file = Path(summary)
    content = read_json(file, "summary", "medmap evaluate writes it anew")
    require_same_weights(content, file_sha256(bundle.weights_file))
    expected = bundle.root / "models" / RELIABILITY_FILE
    write_reliability(content, expected)
    pictures = {bundle.root / PICTURE: False, bundle.root / WORST_PICTURE: True}
    for picture in pictures:
        picture.unlink(missing_ok=True)  # one of an earlier evaluation
    return [expected, *(picture for picture, worst in pictures.items() if _draw(file.parent, picture, worst))]


def measured(bundle: BundleFolder) -> Mapping[str, Any] | None:
    """The bundle's ``reliability.json`` if it was measured with the weights that are there, otherwise None.

    Raises:
        ValueError: the file cannot be read.
    """
    file = bundle.root / "models" / RELIABILITY_FILE
    if not file.is_file() or not bundle.weights_file.is_file():
        return None
    content = read_reliability(file)
    belongs = (content.get("checkpoint") or {}).get("sha256")
    return content if belongs in (None, file_sha256(bundle.weights_file)) else None


def summary_of(reliability: Mapping[str, Any]) -> dict[str, Any]:
    """What a release tells of an evaluation, in the form of ``summary.json``, from a ``reliability.json``."""
    table: Mapping[str, Mapping[str, Any]] = reliability["subsets"]
    cells = [(subset, region, cell) for subset, row in table.items() for region, cell in row.items()]
    values: dict[str, list[float]] = {}
    for _, region, cell in cells:
        values.setdefault(region, []).append(float(cell["mean"]))
    metric = reliability["metric"]
    return {
        "checkpoint": reliability["checkpoint"],
        "modalities": reliability["modalities"],
        "data": reliability["data"],
        "synthetic": reliability["synthetic"],
        "protocol": reliability["protocol"],
        "n_cases": reliability["cases"],
        "scores": [
            {"metric": metric, "subset": subset, "region": region, "mean": cell["mean"], "n": cell["n"]}
            for subset, region, cell in cells
        ],
        "averages": [
            {"metric": metric, "region": region, "mean": sum(means) / len(means)} for region, means in values.items()
        ],
    }


def require_same_weights(summary: Mapping[str, Any], weights_sha256: str) -> None:
    """ValueError unless the summary is of the weights with this SHA-256."""
    evaluated = str(summary["checkpoint"]["sha256"])
    if evaluated != weights_sha256:
        raise ValueError(
            f"the summary belongs to other weights: it evaluated a checkpoint with sha256 {evaluated[:12]}..., "
            f"the bundle's weights have {weights_sha256[:12]}..."
        )


def _draw(evaluation: Path, picture: Path, worst: bool) -> bool:
    """Draw one of the kept cases; False where no label map was kept, or matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return False
    from medmap_monai.report.figure_style import save_figure
    from medmap_monai.report.kept_case import kept_case, kept_case_figure
    from medmap_monai.report.runs import RunError, read_run

    try:
        run = read_run(evaluation)
    except RunError:  # a summary alone
        return False
    maps = kept_case(run, worst)
    if maps is None:
        return False
    with tempfile.TemporaryDirectory() as scratch:
        drawn = save_figure(kept_case_figure(run, maps), scratch, picture.stem, "").png
        with atomic_path(picture) as temporary:
            shutil.copyfile(drawn, temporary)
    return True
