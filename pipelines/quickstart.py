"""The whole product on synthetic data: the shipped weights on a study, then train, predict, evaluate, report.

Every step is a command that a user can type; this script prints each one and runs it.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from medmap_monai.recipes.commands import run_command

REPOSITORY = Path(__file__).resolve().parents[1]

# what each task shows: its bundle, its phantom cohorts, and the sequences of the study that the clinic sends
TASKS: dict[str, dict[str, str]] = {
    "brats": {
        "bundle": "brats_unet_dropout",
        "edition": "brats2020",
        "shape": "32 32 32",
        "train": "60",
        "test": "16",
        "kept": "flair+t1ce",
        "starter_keeps": "flair+t2",
    },
    "myops": {
        "bundle": "myops_dmafnet",
        "edition": "myops2020",
        "shape": "64 64 8",
        "train": "25",
        "test": "10",
        "kept": "bssfp+t2",
    },
}


def segment_with_starter(output: Path, task: dict[str, str]) -> None:
    """A study of full size without two of its files, segmented with the weights that come with the package."""
    patient = output / "patient"
    if not patient.is_dir():
        synth = ["medmap", "synth", "mni152", "-o", str(patient), "--cases", "1", "--seed", "3"]
        synth += ["--only", f"last={task['starter_keeps']}"]
        run_command("a synthetic study of full size (anatomy of MNI152), two of four files left out", synth)
    predict = ["medmap", "predict", str(patient), "--prepare", "--output", str(output / "starter")]
    run_command("segment it with the weights that come with the package, with a page to look at", predict)


def main() -> None:
    """Run the steps; each leaves its result in the output folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(TASKS), default="brats")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for everything (default: demo)")
    parser.add_argument("--train-cases", type=int, help="phantom cases to train and validate on")
    parser.add_argument("--test-cases", type=int, help="held-out phantom cases")
    parser.add_argument("--epochs", type=int, help="epochs (default: those of the bundle's phantom overlay)")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    task = TASKS[arguments.task]
    bundle = output / task["bundle"]
    if not bundle.is_dir():
        # a copy, so that the demo's small network never ends up in the repository's bundle
        shutil.copytree(
            REPOSITORY / "bundles" / task["bundle"], bundle, ignore=shutil.ignore_patterns("*.pt", "phantom", "runs")
        )

    if "starter_keeps" in task:
        segment_with_starter(output, task)

    shape = ["--shape", *task["shape"].split()]
    # two studies per case: the test cohort is complete, the clinic's study has only two of its four files
    cohorts = {
        "phantom/train": ["--cases", str(arguments.train_cases or task["train"]), "--seed", "0"],
        "phantom/test": ["--cases", str(arguments.test_cases or task["test"]), "--seed", "1000", "--first-case", "400"],
        "clinic": ["--cases", "1", "--seed", "2000", "--first-case", "800", "--only", f"last={task['kept']}"],
    }
    for name, options in cohorts.items():
        run_command(
            f"phantom cohort (synthetic): {name}",
            ["medmap", "phantom", "--edition", task["edition"], *options, *shape, str(output / name)],
        )
    overlays = "['configs/train.json','configs/phantom.json']"
    training = ["python", "-m", "monai.bundle", "run", "training", "--config_file", overlays]
    training += ["--dataset_dir", str(output / "phantom/train")]
    training += ["--epochs", str(arguments.epochs)] if arguments.epochs else []
    run_command("train the bundle with its phantom overlay", training, cwd=bundle)
    bundle_options = ["--bundle", str(bundle), "--overlay", "phantom"]
    run_command(
        f"segment a study of which only {task['kept']} exist",
        ["medmap", "predict", str(output / "clinic"), *bundle_options, "--output", str(output / "predictions")],
    )
    evaluation = output / "evaluation"
    run_command(
        "evaluate every subset of modalities on the held-out cases",
        ["medmap", "evaluate", str(output / "phantom/test"), *bundle_options, "--output", str(evaluation)],
    )
    # the same study again, now that an evaluation tells what to expect from its two sequences
    again = ["medmap", "predict", str(output / "clinic"), *bundle_options, "--output", str(output / "predictions")]
    again += ["--overwrite", "--reliability", str(evaluation / "reliability.json")]
    run_command("segment that study again, with the expected quality of its subset", again)
    features = ["medmap", "features", str(output / "phantom/test"), *bundle_options]
    run_command(
        "encoder features, for the picture of the modality gap",
        [*features, "--output", str(evaluation / "features.npz")],
    )
    report = ["medmap", "report", str(evaluation), "--logs", str(bundle / "runs"), "-o", str(output / "report.html")]
    run_command("report", report)

    print("\nPhantom (synthetic) results; they say nothing about patients.")
    if "starter_keeps" in task:
        for page in (output / "starter").glob("*/report.html"):
            print(f"  {'with starter':16} {os.path.relpath(page)}")
    for what, path in {
        "weights": bundle / "models" / "model.pt",
        "training curves": bundle / "runs" / "training.csv",
        "segmentation": output / "predictions",
        "metrics": evaluation / "metrics.csv",
        "summary": evaluation / "summary.json",
        "report": output / "report.html",
    }.items():
        print(f"  {what:16} {os.path.relpath(path)}")


if __name__ == "__main__":
    main()
