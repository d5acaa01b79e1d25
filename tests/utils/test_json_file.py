"""Whatever reads JSON of people names the file and never ends in a traceback, however damaged the file is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.data.edition_file import read_edition
from medmap_monai.data.manifest import read_manifest
from medmap_monai.data.splits import read_split
from medmap_monai.engines.results_store import ResultsStore, StaleResultsError
from medmap_monai.metrics.reliability import read_reliability
from medmap_monai.report.runs import RunError, read_run
from medmap_monai.utils.json_file import parse_json, read_json, read_own_record
from medmap_monai.utils.preparation import PREPARED_FILE, preparation_warnings
from medmap_monai.zoo.fetch import read_index_text
from medmap_monai.zoo.index import read_index
from medmap_monai.zoo.safe_weights import UnsafeFileError, refuse_code

DAMAGED = {
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "cut": b'{"a": [1,',
    "bytes": b'{"a": "\xff\xfe"}',
}


REPOSITORY = Path(__file__).resolve().parents[2]


def _results_of(path: Path) -> Any:
    path.rename(path.with_name("settings.json"))
    return ResultsStore(path.parent, {})


def _run_of(path: Path) -> Any:
    path.rename(path.with_name("summary.json"))
    (path.parent / "metrics.csv").write_text("case_id,value\n")
    return read_run(path.parent)


READERS: dict[str, tuple[Callable[[Path], Any], str, type[Exception]]] = {
    "any": (read_json, "file.json", ValueError),
    "manifest": (read_manifest, "file.json", ValueError),
    "split file": (read_split, "file.json", ValueError),
    "edition": (read_edition, "file.json", ValueError),
    "index of a zoo": (lambda path: read_index(read_index_text(path)), "model_info.json", ValueError),
    "report": (_run_of, "summary.json", RunError),
    "reliability": (read_reliability, "file.json", ValueError),
    "results of an evaluation": (_results_of, "settings.json", StaleResultsError),
    "installed file": (refuse_code, "file.json", UnsafeFileError),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("reader", READERS)
def test_damaged_json_is_named(reader: str, damage: str, tmp_path: Path) -> None:
    read, name, kind = READERS[reader]
    path = tmp_path / "file.json"
    path.write_bytes(DAMAGED[damage])
    with pytest.raises(kind) as found:
        read(path)
    assert name in str(found.value)
    assert len(str(found.value)) < 500


def test_a_bundle_with_damaged_metadata_is_named(make_bundle: Callable[..., Path]) -> None:
    bundle = make_bundle()
    for content in (*DAMAGED.values(), b"[]", b"{}", b'{"version": "1"}'):
        (bundle / "configs" / "metadata.json").write_bytes(content)
        result = CliRunner().invoke(app, ["info", "--bundle", str(bundle)])
        assert (result.exit_code, type(result.exception)) == (1, SystemExit)
        assert "metadata.json is not " in "".join(result.output.split("\n"))


def test_a_byte_order_mark_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == parse_json('\ufeff{"a": 1}', "x") == {"a": 1}


@pytest.mark.parametrize("damage", [*DAMAGED.values(), b"[]", None])
def test_a_damaged_record_of_ours_is_none(damage: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / PREPARED_FILE
    if damage is not None:
        path.write_bytes(damage)
    assert read_own_record(path) is None
    told = preparation_warnings([tmp_path / "flair.nii.gz"])
    assert [(str(path) in text, "prepare it again" in text) for text in told] == [(True, True)] * (damage is not None)


def test_a_remedy_ends_the_message(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"summary .*a\.json is not valid JSON.*; evaluate anew$"):
        read_json(tmp_path / "a.json", "summary", "evaluate anew")


def test_json_files_are_read_in_one_way() -> None:
    reads = re.compile(r"json\.load\(|json\.loads\([^\n]*(?:read_text|read_bytes|open)\(")
    files = [file for folder in ("medmap_monai", "pipelines") for file in (REPOSITORY / folder).rglob("*.py")]
    assert len(files) > 100
    assert [str(file) for file in files if reads.search(file.read_text(encoding="utf-8"))] == []
