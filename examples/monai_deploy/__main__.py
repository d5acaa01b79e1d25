"""A MONAI Deploy application: a DICOM (or native NIfTI) folder in, label maps, DICOM SEG and a page per study out.

    python examples/monai_deploy --input export --output out --model bundles/brats_starter

Two operators: prepare (sort, recognise, register, skull-strip), then segment, which brings every result back to the
original images while the class scores are at hand. Both are plain functions of medmap-monai on files.
Research use only.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application, Fragment, Operator, OperatorSpec

from medmap_monai.clinical.native_results import NativeResults
from medmap_monai.clinical.prepare_folder import PreparedStudy, prepare_folder
from medmap_monai.clinical.prepare_study import PrepareOptions
from medmap_monai.engines.run_bundle import run_inference
from medmap_monai.engines.studies_failed import StudiesFailedError

SETTINGS = Path(__file__).with_name("app.yaml")
STUDIES = "studies"


class PrepareOperator(Operator):
    """Emits ``studies``: every study below ``folder``, prepared in ``prepared``; those that failed say why."""

    def __init__(self, fragment: Fragment, *args: Any, folder: Path, prepared: Path, **kwargs: Any) -> None:
        self.folder, self.prepared = folder, prepared
        self.options = PrepareOptions(**{name: kwargs.pop(name) for name in ("skull_strip", "ignore_unclear")})
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.output(STUDIES)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        def progress(study: str, step: str) -> None:
            print(f"{study}: {step} ...", file=sys.stderr, flush=True)

        op_output.emit(prepare_folder(self.folder, self.prepared, self.options, progress=progress), STUDIES)


class SegmentOperator(Operator):
    """Receives ``studies``; writes everything below ``output``. ``failures`` holds what could not be done."""

    def __init__(
        self, fragment: Fragment, *args: Any, bundle: Path, prepared: Path, output: Path, **kwargs: Any
    ) -> None:
        self.bundle, self.prepared, self.output = bundle, prepared, output
        self.failures: list[str] = []
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input(STUDIES)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        studies: list[PreparedStudy] = op_input.receive(STUDIES)
        self.failures = [study.error for study in studies if study.error]
        if len(self.failures) == len(studies):
            return
        native = NativeResults(studies, self.output)
        native.forget_incomplete()
        try:
            run_inference(self.prepared, self.bundle, self.output, attach=native.attach)
        except StudiesFailedError as error:
            self.failures += error.failures.values()
        self.failures += native.problems.values()


class SegmentStudies(Application):
    """prepare -> segment.

    Args:
        context: paths of input, output and model, from the command line or from MONAI Deploy's environment.
        prepared: folder of what lies between the two.
    """

    def __init__(self, context: AppContext, prepared: Path) -> None:
        self.paths, self.prepared = context, prepared
        self.segment: SegmentOperator | None = None
        super().__init__()
        self.config(os.environ.get("HOLOSCAN_CONFIG_PATH", str(SETTINGS)))

    def compose(self) -> None:
        folder, output = Path(self.paths.input_path), Path(self.paths.output_path)
        prepare = PrepareOperator(
            self,
            CountCondition(self, 1),
            name="prepare",
            folder=folder,
            prepared=self.prepared,
            **self.kwargs("prepare"),
        )
        self.segment = SegmentOperator(
            self, name="segment", bundle=find_bundle(Path(self.paths.model_path)), prepared=self.prepared, output=output
        )
        self.add_flow(prepare, self.segment, {(STUDIES, STUDIES)})


def find_bundle(models: Path) -> Path:
    """The bundle's folder: ``models`` itself, or the only one in it, as the packager lays models out.

    Raises:
        FileNotFoundError: none, or more than one.
    """
    found = [path for path in (models, *sorted(models.glob("*"))) if (path / "configs" / "inference.json").is_file()]
    if len(found) != 1:
        raise FileNotFoundError(f"{models} holds {len(found)} bundles (configs/inference.json), one is needed")
    return found[0]


def main() -> None:
    """Run; the exit code is 1 when a study could not be done. The others are finished."""
    context = Application.init_app_context(sys.argv)
    with TemporaryDirectory(prefix="medmap-", dir=context.workdir or None) as folder:
        app = SegmentStudies(context, Path(folder))
        app.run()
        if app.segment is None or app.segment.failures:
            told = "\n".join(app.segment.failures if app.segment else ["the application did not run"])
            raise SystemExit(f"error: studies failed or are incomplete:\n{told}")


if __name__ == "__main__":
    main()
