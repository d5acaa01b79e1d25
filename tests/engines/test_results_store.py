from __future__ import annotations

import pytest

from medmap_monai.engines.results_store import ResultsStore, StaleResultsError
from medmap_monai.metrics.region_scores import RegionScore


def _rows(value):
    return [(0, "t2", 1, RegionScore("WT", "dice", value, "1", "none"))]


def test_merge_does_not_depend_on_the_order_of_work(tmp_path):
    texts = []
    for folder, order in (("one", ("b/1", "a")), ("two", ("a", "b/1"))):
        store = ResultsStore(tmp_path / folder, {"protocol": "clinical"})
        for case in order:
            store.write_case(case, "t2+flair", _rows(0.25))
        store.write_failure("c", "c_t2.nii.gz", "cannot\n be read")
        assert store.merge(["c", "b/1", "a"]) == ["c"]
        texts.append([(store.folder / name).read_bytes() for name in ("metrics.csv", "failures.csv")])
    assert texts[0] == texts[1]
    assert texts[0][0].decode().splitlines() == [
        "case_id,present,subset_id,subset,modalities,region,metric,value,unit,empty,fold",
        "a,t2+flair,0,t2,1,WT,dice,0.250000,1,none,unknown",
        "b/1,t2+flair,0,t2,1,WT,dice,0.250000,1,none,unknown",
    ]
    assert texts[0][1].decode().splitlines() == ["case_id,file,reason", "c,c_t2.nii.gz,cannot be read"]


def test_a_case_that_works_on_the_second_try_is_no_failure(tmp_path):
    store = ResultsStore(tmp_path, {})
    store.write_failure("a", "", "no label")
    assert store.failed("a")
    store.write_case("a", "t2", _rows(1.0))
    assert store.finished("a")
    assert not store.failed("a")
    assert store.merge(["a"]) == []


def test_the_fold_of_a_finished_case_is_told_anew_and_nothing_else_changes(tmp_path):
    store = ResultsStore(tmp_path, {"a": 1})
    store.write_case("=1+1", "t1", [(2, "t1", 1, RegionScore("WT", "dice", 0.5, "1", "none"))], "unknown")
    before = store.case_path("=1+1").read_text()
    store.tell_fold("=1+1", "unseen")
    assert store.case_path("=1+1").read_text() == before.replace(",unknown", ",unseen")
    store.tell_fold("absent", "unseen")
    assert not store.case_path("absent").exists()


def test_results_of_other_settings_are_refused(tmp_path):
    ResultsStore(tmp_path, {"protocol": "clinical", "checkpoint": {"sha256": "aa"}})
    ResultsStore(tmp_path, {"protocol": "clinical", "checkpoint": {"sha256": "aa"}})
    with pytest.raises(StaleResultsError, match=r"checkpoint.sha256 was \"aa\", is now \"bb\""):
        ResultsStore(tmp_path, {"protocol": "clinical", "checkpoint": {"sha256": "bb"}})
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(StaleResultsError, match=r"settings\.json is not valid JSON.*; choose another output folder"):
        ResultsStore(tmp_path, {})


def test_merge_names_what_is_missing(tmp_path):
    store = ResultsStore(tmp_path, {})
    store.write_case("a", "t2", _rows(1.0))
    with pytest.raises(ValueError, match="'b'"):
        store.merge(["a", "b"])
    store.case_path("a").write_text("something else\n")
    with pytest.raises(StaleResultsError, match="columns"):
        store.merge(["a"])
