"""Checks of a bundle's files: layout, licence, documentation, sizes, metadata, paths, logging."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from jsonschema import Draft201909Validator
from packaging.version import InvalidVersion, Version

from medmap_monai.utils.counted import counted
from medmap_monai.utils.json_file import parse_json
from medmap_monai.zoo.bundle_folder import BundleFolder, load_json
from medmap_monai.zoo.export import FORMATS
from medmap_monai.zoo.outcome import fail, skip

#: the zoo's limit for one file of its repository; weights travel in the package instead
SIZE_LIMIT = 25 * 1024 * 1024
_REQUIRED = ("LICENSE", "configs/metadata.json", "configs/logging.conf", "docs/README.md")
_TEXT = {".json", ".yaml", ".yml", ".md", ".txt", ".conf", ".py", ".cfg", ".toml", ""}
_HOME = re.compile(r"/(home|users|root)/|[a-z]:\\+users\\", re.IGNORECASE)
_ABSOLUTE = re.compile(r"(/|[A-Za-z]:[\\/])[^/\\]")
# MONAI splits "name_vVERSION" at "_v" followed by anything
_NAME = re.compile(r"(?!.*_v)[A-Za-z0-9][A-Za-z0-9_-]*")


def layout(bundle: BundleFolder) -> str:
    """Files that every bundle has, and a name from which versions can be told apart."""
    missing = [name for name in _REQUIRED if not (bundle.root / name).is_file()]
    missing += ["configs/inference.json"] if bundle.config_file("inference") is None else []
    if missing:
        fail(f"missing: {', '.join(missing)}")
    if not _NAME.fullmatch(bundle.name):
        fail(f"name {bundle.name!r}: allowed are letters, digits, '_' and '-', without '_v', which begins the version")
    return "weights: models/model.pt" if bundle.weights_file.is_file() else "no models/model.pt"


def license_text(bundle: BundleFolder) -> str:
    """LICENSE is the text of a licence, not a placeholder."""
    text = (bundle.root / "LICENSE").read_text(encoding="utf-8", errors="replace")
    if len(text) < 200 or "Select a license" in text:
        fail("LICENSE is a placeholder")
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def readme(bundle: BundleFolder) -> str:
    """docs/README.md says something, and the configuration files that it names exist."""
    text = (bundle.root / "docs" / "README.md").read_text(encoding="utf-8")
    if len(text.split()) < 30:
        fail("docs/README.md says next to nothing")
    named = sorted(set(re.findall(r"configs/[\w.-]+\.(?:json|ya?ml|conf)", text)))
    gone = [name for name in named if not (bundle.root / name).is_file()]
    if gone:
        fail(f"docs/README.md names {', '.join(gone)}, which do not exist")
    return f"{len(text.split())} words, names {counted(len(named), 'configuration')}"


def file_sizes(bundle: BundleFolder) -> str:
    """No file over the zoo's limit, unless it is listed in large_files; what large_files lists is well-formed."""
    listed = bundle.large_files()
    bad = [path for path in listed if Path(path).is_absolute() or ".." in Path(path).parts]
    bad += [path for path, entry in listed.items() if not entry.get("url")]
    if bad:
        fail(f"large_files: paths must be relative and have a url: {', '.join(sorted(set(bad)))}")
    sizes = {str(path.relative_to(bundle.root)): path.stat().st_size for path in bundle.released_files()}
    big = [name for name, size in sizes.items() if size > SIZE_LIMIT and name not in listed]
    if big:
        fail(f"over {SIZE_LIMIT >> 20} MB and not in large_files: {', '.join(big)}")
    return f"{counted(len(sizes), 'file')}, {sum(sizes.values()) / 1e3:.0f} kB without weights"


def metadata_schema(bundle: BundleFolder) -> str:
    """metadata.json fits MONAI's schema and what the zoo and this package read beyond it."""
    schema = parse_json(files("medmap_monai.zoo").joinpath("metadata_schema.json").read_bytes(), "metadata schema")
    problems = [
        f"{'/'.join(map(str, error.absolute_path)) or 'metadata'}: {error.message}"
        for error in Draft201909Validator(schema).iter_errors(bundle.metadata)
    ]
    if problems:
        fail("; ".join(sorted(problems)[:5]))
    formats = bundle.metadata["network_data_format"]
    for side, name in (("inputs", "image"), ("outputs", "pred")):
        if not isinstance(formats[side].get(name), dict):
            fail(f"network_data_format/{side} has no {name!r}")
    unknown = sorted(set(bundle.metadata.get("unsupported_exports", {})) - set(FORMATS))
    if unknown:
        fail(f"unsupported_exports names {unknown}; allowed are {list(FORMATS)}")
    return f"{len(bundle.metadata)} entries"


def version_changelog(bundle: BundleFolder) -> str:
    """The version can be compared with others and is the newest of the changelog."""
    version, changelog = str(bundle.metadata["version"]), bundle.metadata.get("changelog")
    if not isinstance(changelog, dict) or not changelog:
        fail("metadata has no changelog")
    try:
        newest = max((str(v) for v in changelog), key=Version)
        Version(version)
    except InvalidVersion as error:
        fail(f"{error}; versions look like 0.1.0")
    if version not in changelog:
        fail(f"version {version} is not in the changelog {sorted(changelog)}")
    if newest != version:
        fail(f"version is {version}, the changelog goes up to {newest}")
    return version


def no_personal_paths(bundle: BundleFolder) -> str:
    """No home folder in any text of the bundle, no absolute path as a configuration value."""
    found = []
    texts = [path for path in bundle.released_files() if path.suffix in _TEXT]
    for path in texts:
        name = path.relative_to(bundle.root)
        hit = _HOME.search(path.read_text(encoding="utf-8", errors="replace"))
        if hit:
            found.append(f"{name}: {hit[0]}")
        if path.suffix == ".json" and name.parts[0] == "configs":
            found += [f"{name}: {value}" for value in _strings(load_json(path)) if _ABSOLUTE.match(value)]
    if found:
        fail("; ".join(found[:5]))
    return counted(len(texts), "file")


def logging_conf(bundle: BundleFolder) -> str:
    """MONAI accepts logging.conf, which it refuses to run when a field could execute code."""
    from monai.bundle import workflows

    validate = getattr(workflows, "_reject_executable_logging_config", None)  # applying it would change this process
    if validate is None:
        skip("this MONAI does not validate logging.conf")
    validate(str(bundle.root / "configs" / "logging.conf"))
    return "accepted by MONAI"


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return []
