from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from medmap_monai.utils.files import atomic_path, write_text
from medmap_monai.utils.output import finished_cases, label_map_path, require_writable


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "volume.nii.gz"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"data")
        assert not target.exists()
    assert target.read_bytes() == b"data"
    assert [p.name for p in target.parent.iterdir()] == ["volume.nii.gz"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask


def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    write_text(target, "old\n")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [target]


def test_line_ends_are_written_as_given(tmp_path: Path) -> None:
    write_text(tmp_path / "a.csv", "x\r\ny\n")
    assert (tmp_path / "a.csv").read_bytes() == b"x\r\ny\n"


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OSError, match=r"output folder .*out is not writable"):
        require_writable(tmp_path / "out")


def test_a_case_is_finished_with_its_label_map_and_its_row(tmp_path: Path) -> None:
    write_text(tmp_path / "predictions.csv", "case_id,status\na,ok\nb,ok\nc,failed\n")
    for case in ("a", "c", "d"):
        label_map_path(tmp_path, case).write_bytes(b"")
    assert finished_cases(tmp_path) == {"a"}
