"""The pages of a zoo: an index that opens offline and a card per bundle, plain HTML that loads nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from medmap_monai.modalities import SUBSET_SEPARATOR
from medmap_monai.report.display import EMPTY, FILLED, modality_label, subset_label
from medmap_monai.utils.files import atomic_path, write_text
from medmap_monai.zoo.archive import unpack_archive
from medmap_monai.zoo.bundle_folder import BundleFolder
from medmap_monai.zoo.bundle_table import BundleRow, bundle_row
from medmap_monai.zoo.index import INDEX_NAME, IndexEntry, read_index
from medmap_monai.zoo.record import PICTURE, WORST_PICTURE, measured
from medmap_monai.zoo.schema_picture import schema_picture
from medmap_monai.zoo.zoo_style import html_page

INDEX_PAGE = "index.html"
CARDS = "cards"
_PICTURES = (".png", ".jpg", ".jpeg", ".gif")
_TRUST = "Configurations of a bundle are code: install only from people you trust. Research use only."


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
        "<p>Each segments a study from any non-empty subset of its modalities. They are MONAI bundles; "
        f"<code>pip install medmap-monai</code> brings the commands.</p><p>{_TRUST}</p>"
        f"<h2>With weights</h2>{''.join(released)}"
    )
    if listed:
        head = "".join(f"<th>{name}</th>" for name in ("bundle", "task", "modalities", "evidence", "licence"))
        body += (
            "<h2>Recipes, to be trained on data of your own</h2>"
            f"<p>They come with the package; there is nothing to download.</p>{_commands(_recipe_commands('NAME'))}"
            f'<div class="wide"><table id="recipes"><tr>{head}</tr>{"".join(listed)}</table></div>'
        )
    write_text(root / INDEX_PAGE, html_page("Bundles", body))
    return root / INDEX_PAGE


def _release(root: Path, entry: IndexEntry, source: str) -> str:
    """Write the card of a package, and return its part of the index."""
    file = root / entry.source.rsplit("/", 1)[-1]
    stem = f"{entry.name}_v{entry.version}"
    with tempfile.TemporaryDirectory() as scratch:
        bundle = BundleFolder(unpack_archive(file, Path(scratch) / "unpacked", entry.name))
        row = bundle_row(bundle.root)
        commands = [
            f"medmap bundle install {entry.name} --from {source}",
            f"medmap predict STUDIES --bundle {entry.name} --output OUT",
            f"medmap evaluate LABELLED_STUDIES --bundle {entry.name} --output EVALUATION",
        ]
        picture = _picture(root, stem, bundle, row)
        _write_card(root, stem, bundle, row, picture.format(""), _download(file, entry, "../"), commands)
    link = f'<a href="{CARDS}/{escape(stem)}.html">{escape(row.name)}</a>'
    return (
        f'<section class="bundle">{picture.format(f"{CARDS}/")}<div><h3>{link} {escape(row.version)}</h3>'
        f'<p>{escape(row.task)}</p><p class="evidence weights">{escape(row.evidence)}</p>'
        f"{_dice(row)}<p>Licence: {escape(row.license)}</p>{_download(file, entry, '')}{_commands(commands)}</div>"
        "</section>"
    )


def _recipe(root: Path, folder: Path) -> str:
    """Write the card of a bundle without weights, and return its row of the index."""
    row, bundle = bundle_row(folder), BundleFolder(folder)
    picture = _picture(root, row.name, bundle, row).format("")
    links = "<p>There is nothing to download: it comes with the package, to be trained first.</p>"
    _write_card(root, row.name, bundle, row, picture, links, _recipe_commands(row.name))
    link = f'<a href="{CARDS}/{escape(row.name)}.html">{escape(row.name)}</a> {escape(row.version)}'
    cells = (link, escape(row.task), escape(_listed(row.modalities)), escape(row.evidence), escape(row.license))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _recipe_commands(name: str) -> list[str]:
    """The bundle's folder comes from a checkout, or from the package, as `medmap info --bundle NAME` tells."""
    return [
        f"python -m monai.bundle run training --config_file {name}/configs/train.json --bundle_root {name} "
        "--dataset_dir DATA",
        f"medmap predict STUDIES --bundle {name} --output OUT",
        f"medmap evaluate LABELLED_STUDIES --bundle {name} --output EVALUATION",
    ]


def _picture(root: Path, stem: str, bundle: BundleFolder, row: BundleRow) -> str:
    """The picture of a bundle, with a place for the folder that leads to it; one of an evaluation comes first."""
    docs = bundle.root / "docs"
    found = sorted(path for path in docs.iterdir() if path.suffix.lower() in _PICTURES)
    chosen = bundle.root / PICTURE if bundle.root / PICTURE in found else next(iter(found), None)
    if chosen is None or not row.weights:
        return f"<figure>{schema_picture([modality_label(m) for m in row.modalities], row.regions)}</figure>"
    text = f"One case, segmented by {row.name} from every subset of its modalities; Dice in %"
    return _figure(root, chosen, f"{stem}{chosen.suffix.lower()}", text, row)


def _figure(root: Path, picture: Path, name: str, text: str, row: BundleRow) -> str:
    """Copy a picture to the cards and show it, with a place for the folder that leads to it."""
    with atomic_path(root / CARDS / name) as temporary:
        shutil.copyfile(picture, temporary)
    said = f"{text} ({row.evaluated_on})" if row.evaluated_on else text
    shown = f'<img src="{{}}{escape(name)}" alt="{escape(text)}">'
    return f"<figure>{shown}<figcaption>{escape(said)}</figcaption></figure>"


def _worst(root: Path, stem: str, bundle: BundleFolder, row: BundleRow) -> str:
    """The worst case of the evaluation, where the bundle holds its picture."""
    picture = bundle.root / WORST_PICTURE
    if not row.complete or not picture.is_file():
        return ""
    text = "The case with the lowest Dice among those that were drawn"
    figure = _figure(root, picture, f"{stem}_worst{picture.suffix}", text, row)
    return f"<h2>Where it fails</h2>{figure.format('')}"


def _write_card(
    root: Path, stem: str, bundle: BundleFolder, row: BundleRow, picture: str, links: str, commands: Sequence[str]
) -> None:
    readme = (bundle.root / "docs" / "README.md").read_text(encoding="utf-8")
    reliability = measured(bundle)
    kind = "weights" if row.weights else "recipe"
    if reliability is not None:
        subsets = _subsets(reliability, row)
    elif row.weights:
        subsets = "<p>These weights have not been evaluated.</p>"
    else:
        subsets = f"<p>Without weights there is nothing to measure: no Dice of its {_count(row)} subsets.</p>"
    body = (
        f'<p><a href="../{INDEX_PAGE}">All bundles</a></p><h1>{escape(row.title)}</h1><p>{escape(row.task)}</p>'
        f'<p class="evidence {kind}">{escape(row.evidence)}</p>{picture}'
        f"<p>{escape(str(bundle.metadata['description']))}</p>"
        f"<h2>Use it</h2>{links}{_commands(commands)}<p>{_TRUST}</p>"
        f"<h2>Expected Dice by what is available</h2>{subsets}"
        f"{_worst(root, stem, bundle, row)}"
        f"<h2>Its own page</h2><pre>{escape(readme)}</pre>"
    )
    write_text(root / CARDS / f"{stem}.html", html_page(row.title, body))


def _subsets(reliability: Mapping[str, Any], row: BundleRow) -> str:
    """Expected Dice of every evaluated subset; a bar behind each number."""
    names = "".join(f"<th>{escape(modality_label(name))}</th>" for name in row.modalities)
    regions = "".join(f"<th>{escape(region)}</th>" for region in row.regions)
    lines = []
    for subset, cells in reliability["subsets"].items():
        seen = subset.split(SUBSET_SEPARATOR)
        dots = "".join(f'<td class="dot">{FILLED if name in seen else EMPTY}</td>' for name in row.modalities)
        values = "".join(_bar(cells.get(region)) for region in row.regions)
        lines.append(f'<tr aria-label="{escape(subset_label(subset))}">{dots}{values}</tr>')
    return (
        f"<p>Mean over {escape(row.evaluated_on)}. {FILLED} the file is there, {EMPTY} it is not.</p>"
        f'<div class="wide"><table id="subsets"><tr>{names}{regions}</tr>{"".join(lines)}</table></div>'
    )


def _bar(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "<td>-</td>"
    mean = float(cell["mean"])
    return f'<td class="bar" style="--share:{100 * min(max(mean, 0.0), 1.0):.0f}%">{mean:.2f}</td>'


def _dice(row: BundleRow) -> str:
    """Expected Dice with everything, and with the worst single modality."""
    if not row.complete:
        return "<p>Not evaluated.</p>"
    complete = ", ".join(f"{escape(region)} {value:.2f}" for region, value in row.complete.items())
    worst = ", ".join(
        f"{escape(region)} {value:.2f} ({escape(modality_label(name))})" for region, (value, name) in row.worst.items()
    )
    return (
        f"<p>Expected Dice, complete: {complete}<br>worst single modality: {worst}<br>"
        f"<small>{escape(row.evaluated_on)}</small></p>"
    )


def _download(file: Path, entry: IndexEntry, up: str) -> str:
    name = escape(file.name)
    return (
        f'<p><a href="{up}{name}" download>Download {name}</a> ({file.stat().st_size / 1e6:.1f} MB) · '
        f'<a href="{up}{name}.sha256">checksum</a><br>'
        f"<small>sha256 <code>{escape(entry.hashes.get('sha256', ''))}</code></small></p>"
    )


def _count(row: BundleRow) -> int:
    return int(2 ** len(row.modalities) - 1)


def _listed(modalities: Sequence[str]) -> str:
    return ", ".join(modality_label(name) for name in modalities)


def _commands(commands: Sequence[str]) -> str:
    return "<pre>" + escape("\n".join(commands)) + "</pre>"
