from __future__ import annotations

import csv
import inspect
import json
import multiprocessing
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from medmap_monai.data.evaluation_records import EvaluationRecords
from medmap_monai.data.training_cases import TrainingCases, write_training_cases
from medmap_monai.engines.case_maps import read_case_maps
from medmap_monai.engines.evaluation_samples import EvaluationSamples
from medmap_monai.engines.evaluation_work import EvaluationWork
from medmap_monai.engines.results_store import METRICS_COLUMNS, StaleResultsError, read_metrics
from medmap_monai.engines.subset_evaluator import EvaluationIncompleteError, SubsetEvaluator
from medmap_monai.inferers.modality_sliding_window import ModalitySlidingWindowInferer
from medmap_monai.inferers.subset_sweep import SubsetSweepInferer
from medmap_monai.metrics.reliability import expected_quality, read_reliability
from medmap_monai.metrics.scoring import Scoring
from medmap_monai.modalities import BRATS
from medmap_monai.networks.unet import ModalityUNet
from medmap_monai.transforms.pipelines import eval_transforms

SHAPE = (16, 18, 14)
RESULTS = ("metrics.csv", "summary.json", "failures.csv", "reliability.json")


def write_study(folder: Path, number: int, modalities=tuple(BRATS), label: bool = True, spacing=(1.0, 1.0, 2.0)) -> str:
    """A BraTS 2020 study of noise with a box of tumour in it."""
    rng = np.random.default_rng(number)
    case = f"BraTS20_Training_{number:03d}"
    (folder / case).mkdir(parents=True)
    affine = np.diag([*spacing, 1.0])
    truth = np.zeros(SHAPE, dtype=np.uint8)
    truth[4:11, 5:12, 3:9] = 2
    truth[6:9, 7:10, 4:8] = 4
    truth[7, 8, 5:7] = 1
    for name in modalities:
        image = rng.normal(100, 10, SHAPE) + 40 * (truth > 0)
        image[:2] = 0
        nib.save(nib.Nifti1Image(image.astype(np.float32), affine), folder / case / f"{case}_{name}.nii.gz")
    if label:
        nib.save(nib.Nifti1Image(truth, affine), folder / case / f"{case}_seg.nii.gz")
    return case


def make_evaluator(cohort: Path, output: Path, seed: int = 0, **kwargs) -> SubsetEvaluator:
    torch.manual_seed(seed)
    network = ModalityUNet(3, in_channels=4, out_channels=4, channels=(4, 8), deep_supervision=0)
    options = {
        "device": "cpu",
        "network": network,
        "data": EvaluationRecords(cohort, "brats2020"),
        "transform": eval_transforms(tuple(BRATS)),
        "inferer": SubsetSweepInferer((16, 16, 16), sw_batch_size=4),
        "modalities": tuple(BRATS),
        "output_dir": output,
        "bootstrap": {"resamples": 50},
        "progress": False,
        **kwargs,
    }
    groups = {"dataset": EvaluationSamples, "scoring": Scoring, "work": EvaluationWork}
    for name, group in groups.items():
        mine = set(inspect.signature(group).parameters) & set(options)
        options[name] = group(**{key: options.pop(key) for key in mine})
    return SubsetEvaluator(**options)


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    for number in (1, 2, 3):
        write_study(folder, number)
    write_study(folder, 4, modalities=("flair", "t2"))
    return folder


@pytest.fixture(scope="module")
def finished(cohort, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("finished")
    make_evaluator(cohort, output).run()
    return output


def test_one_row_per_case_subset_region_and_metric(finished):
    table = pd.read_csv(finished / "metrics.csv", keep_default_na=False)
    assert len(table) == (3 * 15 + 3) * 4 * 2
    assert not table.duplicated(["case_id", "subset", "region", "metric"]).any()
    assert list(table["region"].unique()) == ["WT", "TC", "ET", "ETpp"]
    partial = table[table["case_id"] == "BraTS20_Training_004"]
    assert list(partial["subset"].unique()) == ["t2", "flair", "flair+t2"]  # in the published order
    assert list(partial["subset_id"].unique()) == [0, 3, 8]
    assert set(partial["present"]) == {"flair+t2"}
    assert set(table["unit"]) == {"1", "mm"}
    assert table["value"].between(0, 400).all()


def test_summary_says_what_the_numbers_are(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["protocol"] == "clinical"
    assert (summary["n_cases"], summary["n_failed"], summary["failed"]) == (4, 0, [])
    assert len(summary["checkpoint"]["sha256"]) == 64
    assert set(summary["versions"]) >= {"medmap_monai", "torch", "monai"}
    assert summary["regions"]["ETpp"] == {"classes": [3], "minimum_voxels": 500}
    assert {s["n"] for s in summary["scores"] if s["subset"] == "flair+t2"} == {4}
    assert {s["n"] for s in summary["scores"] if s["subset"] == "t1ce"} == {3}
    assert set(summary["contribution"]["dice"]["WT"]) == set(BRATS)
    assert "second" not in json.dumps(summary)  # nothing that differs from run to run


def test_scores_are_those_of_a_forward_pass(cohort, finished):
    evaluator = make_evaluator(cohort, finished)
    record = evaluator.dataset.data()[0]
    sample = evaluator.dataset.transform(dict(record))
    mask = torch.tensor([BRATS.mask("t1ce+t2")])
    evaluator.network.eval()
    with torch.no_grad():
        logits = ModalitySlidingWindowInferer((16, 16, 16))(sample["image"][None], evaluator.network, mask)
    found, truth = logits.argmax(1)[0] > 0, sample["label"][0] > 0
    dice = float(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    table = pd.read_csv(finished / "metrics.csv")
    row = table.query("case_id == @record['case_id'] and subset == 't1ce+t2' and region == 'WT' and metric == 'dice'")
    assert float(row["value"].iloc[0]) == pytest.approx(dice, abs=2e-3)


def test_one_empty_mask_uses_the_diagonal_of_the_file_in_mm(cohort, tmp_path):
    evaluator = make_evaluator(cohort, tmp_path, subsets=["t1"], minimum_voxels={"ET": 10**6})
    evaluator.run()
    table = pd.read_csv(tmp_path / "metrics.csv").query("region == 'ETpp'")
    diagonal = np.sqrt((np.array(SHAPE) ** 2 * np.array([1, 1, 4])).sum())
    assert set(table["empty"]) == {"prediction"}
    assert table.query("metric == 'hd95'")["value"].tolist() == pytest.approx([diagonal] * 3, abs=1e-6)
    assert table.query("metric == 'dice'")["value"].tolist() == [0.0] * 3
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["n_cases"], summary["n_without_asked_subset"]) == (3, 1)  # the fourth has no T1, and is no failure


def test_excluded_cases_are_counted_and_not_averaged(cohort, tmp_path):
    evaluator = make_evaluator(
        cohort, tmp_path, subsets=["t1"], minimum_voxels={"ET": 10**6}, edge_cases={"hd95_empty": "nan"}
    )
    summary = evaluator.run()
    (entry,) = [s for s in summary["scores"] if (s["region"], s["metric"]) == ("ETpp", "hd95")]
    assert (entry["n"], entry["excluded"], entry["mean"], entry["ci"]) == (0, 3, None, None)
    assert entry["empty"] == {"both": 0, "prediction": 3, "reference": 0}
    assert "nan" in (tmp_path / "metrics.csv").read_text()


class _Killed(BaseException):
    pass


def test_killed_and_restarted_gives_the_same_bytes(cohort, finished, tmp_path):
    killed = make_evaluator(cohort, tmp_path)
    calls = []

    def preprocessing(record):
        calls.append(record["case_id"])
        if len(calls) == 3:
            raise _Killed
        return eval_transforms(tuple(BRATS))(record)

    killed.dataset.transform = preprocessing
    with pytest.raises(_Killed):
        killed.run()
    assert not (tmp_path / "metrics.csv").exists()
    assert len(list((tmp_path / "cases").glob("*.csv"))) == 2
    again = make_evaluator(cohort, tmp_path)
    done_again = []
    again.dataset.transform = lambda record: (
        done_again.append(record["case_id"]) or eval_transforms(tuple(BRATS))(record)
    )
    again.run()
    assert done_again == ["BraTS20_Training_003", "BraTS20_Training_004"]
    assert results(tmp_path) == results(finished)


@pytest.mark.parametrize("shards", [2, 3])
def test_shards_merge_to_the_same_bytes(cohort, finished, tmp_path, shards):
    for shard in reversed(range(shards)):
        assert not (tmp_path / "metrics.csv").exists()
        summary = make_evaluator(cohort, tmp_path, num_shards=shards, shard=shard).run()
        assert (summary is None) == (shard > 0)
    assert results(tmp_path) == results(finished)


def test_ranks_of_torchrun_are_shards(cohort, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    assert make_evaluator(cohort, tmp_path).run() is None
    assert [p.name for p in (tmp_path / "cases").iterdir()] == ["BraTS20_Training_003.csv"]
    with pytest.raises(ValueError, match="BraTS20_Training_001"):
        make_evaluator(cohort, tmp_path, merge_only=True).run()


def test_a_bad_study_is_a_row_of_failures_and_the_others_are_complete(tmp_path):
    cohort, output = tmp_path / "cohort", tmp_path / "output"
    good = write_study(cohort, 1)
    broken, unlabelled = write_study(cohort, 2), write_study(cohort, 3, label=False)
    (cohort / broken / f"{broken}_t2.nii.gz").write_bytes(b"not an image")
    with pytest.raises(EvaluationIncompleteError, match="2 of 3 cases"):
        make_evaluator(cohort, output).run()
    with (output / "failures.csv").open() as file:
        failures = {row["case_id"]: row for row in csv.DictReader(file)}
    assert set(failures) == {broken, unlabelled}
    assert failures[broken]["file"].endswith("_t2.nii.gz")
    assert "cannot be read" in failures[broken]["reason"]
    assert "label" in failures[unlabelled]["reason"]
    assert set(pd.read_csv(output / "metrics.csv")["case_id"]) == {good}
    assert json.loads((output / "summary.json").read_text())["failed"] == [broken, unlabelled]
    (cohort / broken / f"{broken}_t2.nii.gz").unlink()  # absent is fine, and the case is tried again
    with pytest.raises(EvaluationIncompleteError, match="1 of 3"):
        make_evaluator(cohort, output).run()
    assert set(pd.read_csv(output / "metrics.csv")["case_id"]) == {good, broken}


def test_results_of_other_weights_are_refused(cohort, finished):
    with pytest.raises(StaleResultsError, match=r"checkpoint\.sha256"):
        make_evaluator(cohort, finished, seed=1).run()
    with pytest.raises(StaleResultsError, match="protocol was"):
        make_evaluator(cohort, finished, protocol="legacy").run()


def test_checkpoint_is_loaded_and_named(cohort, tmp_path):
    torch.manual_seed(5)
    trained = ModalityUNet(3, in_channels=4, out_channels=4, channels=(4, 8), deep_supervision=0)
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    evaluator = make_evaluator(cohort, tmp_path / "out", subsets=["t2"], checkpoint=tmp_path / "model.pt")
    summary = evaluator.run() if len(evaluator.dataset.data()) == 4 else None
    assert summary["checkpoint"]["file"] == "model.pt"
    for ours, theirs in zip(evaluator.network.parameters(), trained.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        make_evaluator(cohort, tmp_path / "other", checkpoint=tmp_path / "absent.pt").run()


def test_label_maps_are_kept_for_the_report(finished):
    assert [p.name for p in (finished / "maps").iterdir()] == ["BraTS20_Training_001.npz"]
    maps = read_case_maps(finished / "maps" / "BraTS20_Training_001.npz")
    assert list(maps.predictions)[-1] == "flair+t1ce+t1+t2"
    assert len(maps.predictions) == 15
    assert maps.image.shape == (4, *maps.reference.shape)
    assert maps.spacing == (1.0, 1.0, 2.0)
    assert maps.classes[3] == "ET"
    assert maps.reference.sum() == 2 * (7 * 7 * 6 - 3 * 3 * 4) + 3 * (3 * 3 * 4 - 2) + 2
    assert maps.image.max() == 255


def test_reliability_is_readable_for_predictions(finished):
    quality = expected_quality(read_reliability(finished / "reliability.json"), "flair+t2")
    assert quality.values["WT"].n == 4
    assert list(quality.values) == ["WT", "TC", "ET"]  # predictions are written without ETpp's post-processing
    assert quality.source.startswith("4 cases")


def test_the_pages_about_results_say_what_the_code_does(finished, tmp_path, monkeypatch, capsys):
    docs = Path(__file__).parents[2] / "docs"
    reference = (docs / "reference" / "results.md").read_text(encoding="utf-8")
    columns = reference.split("## metrics.csv")[1].split("## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", columns, flags=re.MULTILINE) == list(METRICS_COLUMNS)
    keys = reference.split("## summary.json")[1].split("## ")[0]
    documented = {
        name for line in re.findall(r"^\| (`.*?) \|", keys, re.MULTILINE) for name in re.findall(r"`(\w+)`", line)
    }
    assert documented == set(json.loads((finished / "summary.json").read_text()))
    (snippet,) = re.findall(
        r"```python\n(.*?)```", (docs / "how-to" / "evaluate.md").read_text(encoding="utf-8"), re.DOTALL
    )
    (tmp_path / "evaluation").symlink_to(finished)
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "evaluate.md", "exec"), {})
    assert capsys.readouterr().out.startswith("WT ")


def test_synthetic_data_say_so_themselves(cohort, tmp_path):
    write_study(tmp_path / "phantom", 1)
    (tmp_path / "phantom" / "dataset.json").write_text(json.dumps({"name": "Phantom of a test", "synthetic": True}))
    study = next(iter(EvaluationRecords(tmp_path / "phantom")()))["study"]
    files = {m: str(source.path) for m, source in study.images.items()}
    manifest = tmp_path / "list.json"
    manifest.write_text(json.dumps([{"case_id": "one", **files, "label": str(study.label)}]))
    for source in (tmp_path / "phantom", manifest):
        data = EvaluationRecords(source, "brats2020")
        output = tmp_path / f"out_{source.stem}"
        summary = make_evaluator(cohort, output, data=data, subsets=["t1"], synthetic=False).run()
        assert (summary["data"], summary["synthetic"]) == ("Phantom of a test", True)
    data = EvaluationRecords(cohort)
    assert data.describe(data()) == {}
    summary = make_evaluator(cohort, tmp_path / "real", data=data, subsets=["t1"], synthetic=True).run()
    assert summary["synthetic"] is False  # whatever a configuration made for phantoms says


def test_instantiation_needs_no_data_and_bad_arguments_are_named(tmp_path):
    evaluator = make_evaluator(tmp_path / "absent", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match="absent"):
        evaluator.run()
    for kwargs, message in (
        ({"protocol": "published"}, "clinical"),
        ({"subsets": ["flair+ct"]}, "ct"),
        ({"edge_cases": {"hd95_empty": "big"}}, "diagonal"),
        ({"num_shards": 2, "shard": 2}, "shard"),
        ({"data": []}, "no case"),
        ({"data": [{"case_id": "a"}, {"case_id": "a"}]}, "unique"),
        ({"data": [{"case_id": "a"}]}, "edition"),
    ):
        with pytest.raises(ValueError, match=message):
            make_evaluator(tmp_path / "absent", tmp_path / "out", **kwargs).run()


def test_training_cases_are_left_out_or_told(cohort, tmp_path, caplog):
    torch.manual_seed(5)
    network = ModalityUNet(3, in_channels=4, out_channels=4, channels=(4, 8), deep_supervision=0)
    weights = tmp_path / "model.pt"
    torch.save(network.state_dict(), weights)
    names = [f"BraTS20_Training_00{number}" for number in (1, 2, 3, 4)]
    write_training_cases(weights, TrainingCases({name: name for name in names[:2]}, {names[2]: names[2]}))
    options = {"checkpoint": weights, "subsets": ["t2"], "keep_maps": 0}
    summary = make_evaluator(cohort, tmp_path / "unseen", **options).run()
    assert (summary["folds"], summary["n_cases"], summary["data"]) == ({"unseen": 1}, 1, "")
    assert "weights were trained on" not in caplog.text
    assert "training case" not in caplog.text
    assert "3 of 4 cases are left out: the weights have seen them in training or validation" in caplog.text
    data = EvaluationRecords(cohort, "brats2020", fold="all")
    summary = make_evaluator(cohort, tmp_path / "all", data=data, **options).run()
    told = "2 of 4 cases are training cases and 1 of 4 cases is a validation case"
    assert summary["folds"] == {"train": 2, "unseen": 1, "val": 1}
    assert summary["data"] == f"({told})"
    assert told in read_reliability(tmp_path / "all/reliability.json")["data"]
    assert told in caplog.text
    table = pd.read_csv(tmp_path / "all/metrics.csv").drop_duplicates("case_id")
    assert table["fold"].tolist() == ["train", "train", "val", "unseen"]
    weights.with_name("model_cases.json").unlink()
    summary = make_evaluator(cohort, tmp_path / "unknown", **options).run()
    assert (summary["folds"], summary["n_cases"]) == ({"unknown": 4}, 4)
    write_training_cases(weights, TrainingCases({"another": "another"}, {}))
    summary = make_evaluator(cohort, tmp_path / "unknown", **options).run()  # finished cases are kept, not their fold
    assert summary["folds"] == {"unseen": 4}
    assert set(read_metrics(tmp_path / "unknown/metrics.csv")["fold"]) == {"unseen"}
    assert "not known which cases the weights were trained on" in caplog.text


def test_a_case_whose_files_have_changed_is_evaluated_again(tmp_path, caplog):
    cohort, output = tmp_path / "cohort", tmp_path / "out"
    first, second = write_study(cohort, 1), write_study(cohort, 2)
    options = {"subsets": ["t2"], "keep_maps": 0}
    make_evaluator(cohort, output, **options).run()
    before = {case: (output / f"cases/{case}.csv").stat().st_mtime_ns for case in (first, second)}
    label = cohort / second / f"{second}_seg.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(nib.load(label).dataobj)[::-1], nib.load(label).affine), label)
    make_evaluator(cohort, output, **options).run()
    assert (output / f"cases/{first}.csv").stat().st_mtime_ns == before[first]
    assert (output / f"cases/{second}.csv").stat().st_mtime_ns > before[second]
    assert f"1 case is evaluated again, as files have changed, or what the split grants: {second}" in caplog.text


def test_a_case_of_which_a_split_grants_something_else_is_evaluated_again(tmp_path):
    cohort, output, split = tmp_path / "cohort", tmp_path / "out", tmp_path / "split.csv"
    first, second = write_study(cohort, 1), write_study(cohort, 2)
    split.write_text(f"case_id,fold,available\n{first},test,flair+t2\n{second},test,\n")
    everything = EvaluationRecords(cohort, "brats2020")
    granted = EvaluationRecords(cohort, "brats2020", split_file=split)

    def subsets(data: EvaluationRecords) -> dict[str, int]:
        make_evaluator(cohort, output, data=data, keep_maps=0).run()
        return read_metrics(output / "metrics.csv").groupby("case_id")["subset"].nunique().to_dict()

    assert subsets(everything) == {first: 15, second: 15}
    kept = (output / f"cases/{second}.csv").stat().st_mtime_ns
    assert subsets(granted) == {first: 3, second: 15}
    assert subsets(everything) == {first: 15, second: 15}
    assert (output / f"cases/{second}.csv").stat().st_mtime_ns == kept  # the same is granted of it


def test_what_is_no_number_or_cannot_be_written_is_that_cases_failure(cohort, tmp_path, monkeypatch):
    evaluator = make_evaluator(cohort, tmp_path / "nan", subsets=["t2"], keep_maps=0)
    for parameter in evaluator.network.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(EvaluationIncompleteError, match=r"4 of 4 cases.*NaN or Inf"):
        evaluator.run()

    def full(maps, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("medmap_monai.engines.subset_evaluator.write_case_maps", full)
    with pytest.raises(EvaluationIncompleteError, match=r"1 of 4 cases.*No space left"):
        make_evaluator(cohort, tmp_path / "full", subsets=["t2"], keep_maps=1).run()


def test_case_ids_cannot_become_formulas(tmp_path):
    write_study(tmp_path / "cohort", 1)
    study = EvaluationRecords(tmp_path / "cohort", "brats2020")()[0]["study"]
    data = [{"case_id": "=1+1", "study": replace(study, case_id="=1+1"), "available": None}]
    make_evaluator(tmp_path, tmp_path / "out", data=data, subsets=["t2"], keep_maps=0).run()
    lines = (tmp_path / "out/metrics.csv").read_text().splitlines()
    assert all(line.startswith("'=1+1,") for line in lines[1:])
    assert set(read_metrics(tmp_path / "out/metrics.csv")["case_id"]) == {"=1+1"}


def test_scores_of_other_processes_are_the_same_files(cohort, finished, tmp_path):
    make_evaluator(cohort, tmp_path, metric_workers=1).run()
    assert results(tmp_path) == results(finished)


def test_two_processes_evaluate_into_one_folder(cohort, finished, tmp_path):
    """Without shards, as by mistake: each may do every case, and nothing is lost or mixed."""
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=lambda: make_evaluator(cohort, tmp_path).run()) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    assert results(tmp_path) == results(finished)
    assert list(tmp_path.rglob(".tmp-*")) == []


def test_mixed_precision_runs_in_the_chosen_type(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("medmap_monai.engines.subset_evaluator.half_precision", lambda device: torch.float16)
    seen = []
    for amp in (True, False):
        evaluator = make_evaluator(cohort, tmp_path / str(amp), subsets=["t2"], keep_maps=0, amp=amp)
        for module in evaluator.network.modules():
            module.register_forward_pre_hook(
                lambda *_: seen.append(torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"))
            )
        with suppress(EvaluationIncompleteError):  # what float16 computes on a CPU is not the question
            evaluator.run()
    assert set(seen) == {torch.float16, False}
