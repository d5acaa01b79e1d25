"""The pages of a zoo: an index that opens offline and a card per bundle, plain HTML that loads nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from medmap_monai.metrics.reliability import RELIABILITY_FILE, read_reliability
from medmap_monai.utils.files import atomic_path, write_text
from medmap_monai.zoo.archive import unpack_archive
from medmap_monai.zoo.bundle_folder import BundleFolder
from medmap_monai.zoo.bundle_table import BundleRow, bundle_row
from medmap_monai.zoo.index import INDEX_NAME, IndexEntry, read_index

INDEX_PAGE = "index.html"
CARDS = "cards"
_PICTURES = (".png", ".jpg", ".jpeg", ".gif")
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
table{border-collapse:collapse;margin:1rem 0}td,th{border-bottom:1px solid #d0d7de;padding:.3rem .7rem;text-align:left;
vertical-align:top}pre{background:#f6f8fa;padding:.7rem;overflow-x:auto}code{font-size:.9em;overflow-wrap:anywhere}
.wide{overflow-x:auto}.evidence{font-weight:600}img{max-width:100%}
"""


def write_pages(
    folder: str | os.PathLike[str],
    recipes: Sequence[str | os.PathLike[str]] = (),
    base_url: str | None = None,
) -> Path:
    """Write ``index.html`` and ``cards/`` for the packages of a zoo that :func:`write_index` has indexed.

    Args:
        folder: with ``model_info.json`` and the packages.
        recipes: folders of bundles without weights, listed as such.
        base_url: where the folder will be served, for the commands that the pages show.

    Returns:
        the index page.

    Raises:
        FileNotFoundError, ValueError: no index there, or a package or recipe that cannot be read.
    """
    root = Path(folder)
    entries = read_index((root / INDEX_NAME).read_text(encoding="utf-8"))
    source = base_url or "FOLDER_OR_URL_OF_THIS_PAGE"
    released = [_release(root, entry, source) for entry in entries]
    names = {entry.name for entry in entries}
    listed = [_recipe(root, Path(recipe)) for recipe in recipes if Path(recipe).name not in names]
    body = (
        "<h1>Segmentation with missing modalities: bundles</h1>"
        "<p>Configurations of a bundle are code: install only from people you trust. Research use only.</p>"
        f"<h2>With weights</h2>{_table(released)}"
    )
    if listed:
        body += f"<h2>Recipes, to be trained on data of your own</h2>{_table(listed)}"
    write_text(root / INDEX_PAGE, _page("Bundles", body))
    return root / INDEX_PAGE


def _release(root: Path, entry: IndexEntry, source: str) -> str:
    """Write the card of a package, and return its row of the index."""
    file = root / entry.source.rsplit("/", 1)[-1]
    stem = f"{entry.name}_v{entry.version}"
    with tempfile.TemporaryDirectory() as scratch:
        bundle = unpack_archive(file, Path(scratch) / "unpacked", entry.name)
        row = bundle_row(bundle)
        commands = [
            f"medmap bundle install {entry.name} --from {source}",
            f"medmap predict STUDIES --bundle {entry.name} --output OUT",
            f"medmap evaluate LABELLED_STUDIES --bundle {entry.name} --output EVALUATION",
        ]
        digest = entry.hashes.get("sha256", "")
        links = (
            f'<p><a href="../{escape(file.name)}" download>Download {escape(file.name)}</a> '
            f"({file.stat().st_size / 1e6:.1f} MB), sha256 <code>{escape(digest)}</code></p>"
        )
        _write_card(root, stem, bundle, row, links, commands)
    cells = (
        f'<a href="{CARDS}/{escape(stem)}.html">{escape(row.name)}</a> {escape(row.version)}',
        *_cells(row),
        f'<a href="{escape(file.name)}" download>zip</a> · <a href="{escape(file.name)}.sha256">sha256</a><br>'
        f"<code>{escape(digest)}</code>",
        _commands(commands),
    )
    return _row(cells)


def _recipe(root: Path, folder: Path) -> str:
    """Write the card of a bundle without weights, and return its row of the index."""
    row = bundle_row(folder)
    commands = [
        f"python -m monai.bundle run training --config_file {row.name}/configs/train.json --bundle_root {row.name} "
        "--dataset_dir DATA",
        f"medmap predict STUDIES --bundle {row.name} --output OUT",
        f"medmap evaluate LABELLED_STUDIES --bundle {row.name} --output EVALUATION",
    ]
    _write_card(root, row.name, folder, row, "<p>There is nothing to download: train it first.</p>", commands)
    link = f'<a href="{CARDS}/{escape(row.name)}.html">{escape(row.name)}</a> {escape(row.version)}'
    return _row((link, *_cells(row), "no weights", _commands(commands)))


def _write_card(root: Path, stem: str, folder: Path, row: BundleRow, links: str, commands: Sequence[str]) -> None:
    bundle = BundleFolder(folder)
    readme = (bundle.root / "docs" / "README.md").read_text(encoding="utf-8")
    picture = next((p for p in sorted((bundle.root / "docs").iterdir()) if p.suffix.lower() in _PICTURES), None)
    shown = ""
    if picture is not None:
        target = root / CARDS / f"{stem}{picture.suffix.lower()}"
        with atomic_path(target) as temporary:
            shutil.copyfile(picture, temporary)
        shown = f'<p><img src="{escape(target.name)}" alt="What {escape(row.name)} gives"></p>'
    file = bundle.root / "models" / RELIABILITY_FILE
    subsets = _subsets(read_reliability(file), row) if row.weights and file.is_file() else ""
    body = (
        f'<p><a href="../{INDEX_PAGE}">All bundles</a></p><h1>{escape(row.title)}</h1><p>{escape(row.task)}</p>'
        f'<p class="evidence">{escape(row.evidence)}</p>{shown}<p>{escape(str(bundle.metadata["description"]))}</p>'
        f"{links}{_commands(commands)}{subsets}<h2>Its own page</h2><pre>{escape(readme)}</pre>"
    )
    write_text(root / CARDS / f"{stem}.html", _page(row.title, body))


def _subsets(reliability: Mapping[str, Any], row: BundleRow) -> str:
    """Expected Dice of every evaluated subset."""
    head = "".join(f"<th>{escape(region)}</th>" for region in row.regions)
    lines = []
    for subset, cells in reliability["subsets"].items():
        values = "".join(f"<td>{cells[r]['mean']:.3f}</td>" if r in cells else "<td>-</td>" for r in row.regions)
        lines.append(f"<tr><td>{escape(subset.replace('+', ' + '))}</td>{values}</tr>")
    return (
        f"<h2>Expected Dice by what is available</h2><p>{escape(row.evaluated_on)}</p>"
        f'<table id="subsets"><tr><th>available</th>{head}</tr>{"".join(lines)}</table>'
    )


def _cells(row: BundleRow) -> tuple[str, ...]:
    complete = ", ".join(f"{region} {value:.2f}" for region, value in row.complete.items())
    worst = ", ".join(f"{region} {value:.2f} ({name})" for region, (value, name) in row.worst.items())
    dice = f"{complete}<br>worst single: {escape(worst)}<br>{escape(row.evaluated_on)}" if complete else "not evaluated"
    modalities = " ".join(row.modalities)
    return escape(row.task), escape(modalities), escape(row.evidence), dice, escape(row.license)


def _row(cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _table(rows: Sequence[str]) -> str:
    names = ("bundle", "task", "modalities", "evidence", "expected Dice, complete", "licence", "download", "use")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _commands(commands: Sequence[str]) -> str:
    return "<pre>" + escape("\n".join(commands)) + "</pre>"


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )
