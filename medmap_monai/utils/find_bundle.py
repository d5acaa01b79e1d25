"""Bundles by name: those that came with this package, beside folders given as paths."""

from __future__ import annotations

import os
from pathlib import Path

#: the bundle that ``medmap predict`` takes when none is named
DEFAULT_BUNDLE = "brats_starter"


def bundle_places() -> list[Path]:
    """Folders that hold this installation's bundles: of the wheel, or of the checkout that it runs from."""
    package = Path(__file__).resolve().parents[1]
    return [place for place in (package / "bundles", package.parent / "bundles") if place.is_dir()]


def known_bundles() -> dict[str, Path]:
    """Name -> folder of the bundles that came with this package, sorted."""
    found: dict[str, Path] = {}
    for place in bundle_places():
        for folder in place.iterdir():
            if (folder / "configs" / "metadata.json").is_file():
                found.setdefault(folder.name, folder)
    return dict(sorted(found.items()))


def came_with_package(folder: Path) -> bool:
    """Whether a bundle is part of this installation, as trustworthy as the package itself.

    In a checkout that is one whose source stands beside it; a stranger's bundle, installed there, has none.
    """
    path = folder.resolve()
    if known_bundles().get(path.name, Path()).resolve() != path:
        return False
    in_package = path.parent == Path(__file__).resolve().parents[1] / "bundles"
    return in_package or path.with_name(f"{path.name}.json").is_file()


def find_bundle(bundle: str | os.PathLike[str]) -> Path:
    """The folder of a bundle that is given as a path, or as the name of one that came with this package.

    A folder of that path comes first.

    Raises:
        FileNotFoundError: neither; lists the names that there are.
    """
    path = Path(bundle)
    if (path / "configs").is_dir():
        return path
    if path.exists():
        raise FileNotFoundError(f"{path} is not a bundle: it has no folder 'configs'")
    known = known_bundles()
    if len(path.parts) == 1 and path.name in known:
        return known[path.name]
    names = ", ".join(known) or "none"
    raise FileNotFoundError(f"{path} is not a bundle: there is no such folder, and the bundles by name are: {names}")


def default_bundle() -> Path:
    """The folder of :data:`DEFAULT_BUNDLE`, wherever its weights are.

    Raises:
        FileNotFoundError: this installation has none with weights; says how to name another.
    """
    folder = known_bundles().get(DEFAULT_BUNDLE)
    if folder is None or not (folder / "models" / "model.pt").is_file():
        raise FileNotFoundError(
            f"no bundle was given, and this installation has no {DEFAULT_BUNDLE} with weights; "
            "give one with --bundle (medmap info --bundles lists them)"
        )
    return folder
