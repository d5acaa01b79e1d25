"""Finding studies: every edition's layout, detection, and the errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmap_monai.data.detection import detect_edition
from medmap_monai.data.editions import EDITIONS, get_edition
from medmap_monai.data.studies import find_studies, scan_studies
from medmap_monai.data.study import StudyError


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


# edition, files, expected {case: ({modality: file}, label file)}
LAYOUTS = {
    "brats2018": (
        [
            "HGG/Brats18_2013_2_1/Brats18_2013_2_1_flair.nii.gz",
            "HGG/Brats18_2013_2_1/Brats18_2013_2_1_seg.nii.gz",
            "LGG/Brats18_TCIA_3_1/Brats18_TCIA_3_1_t1ce.nii.gz",
        ],
        {"Brats18_2013_2_1": (["flair"], True), "Brats18_TCIA_3_1": (["t1ce"], False)},
    ),
    "brats2019": (
        ["HGG/BraTS19_CBICA_AAB_1/BraTS19_CBICA_AAB_1_t1.nii.gz"],
        {"BraTS19_CBICA_AAB_1": (["t1"], False)},
    ),
    "brats2020": (
        [
            "BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz",
            "BraTS20_Training_001/BraTS20_Training_001_t1.nii.gz",
            "BraTS20_Training_001/BraTS20_Training_001_t1ce.nii.gz",
            "BraTS20_Training_001/BraTS20_Training_001_t2.nii.gz",
            "BraTS20_Training_001/BraTS20_Training_001_seg.nii.gz",
            "BraTS20_Training_355/BraTS20_Training_355_t2.nii",
            "BraTS20_Training_355/W39_1998.09.19_Segm.nii",
            "._BraTS20_Training_001_flair.nii.gz",
            "name_mapping.csv",
        ],
        {
            "BraTS20_Training_001": (["flair", "t1ce", "t1", "t2"], True),
            "BraTS20_Training_355": (["t2"], True),
        },
    ),
    "brats2021": (["BraTS2021_00000/BraTS2021_00000_t1ce.nii.gz"], {"BraTS2021_00000": (["t1ce"], False)}),
    "brats2023": (
        [
            "BraTS-GLI-00000-000/BraTS-GLI-00000-000-t2f.nii.gz",
            "BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1c.nii.gz",
            "BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz",
            "BraTS-GLI-00000-000/BraTS-GLI-00000-000-t2w.nii.gz",
            "BraTS-GLI-00000-000/BraTS-GLI-00000-000-seg.nii.gz",
        ],
        {"BraTS-GLI-00000-000": (["flair", "t1ce", "t1", "t2"], True)},
    ),
    "brats2024-post": (
        ["BraTS-GLI-02405-100/BraTS-GLI-02405-100-t2w.nii.gz", "BraTS-GLI-02405-100/BraTS-GLI-02405-100-seg.nii.gz"],
        {"BraTS-GLI-02405-100": (["t2"], True)},
    ),
    "msd_task01": (
        ["imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz", "imagesTs/BRATS_485.nii.gz", "dataset.json"],
        {
            "BRATS_001": (["flair", "t1ce", "t1", "t2"], True),
            "BRATS_485": (["flair", "t1ce", "t1", "t2"], False),
        },
    ),
    "myops2020": (
        [
            "train25/myops_training_101_C0.nii.gz",
            "train25/myops_training_101_DE.nii.gz",
            "train25/myops_training_101_T2.nii.gz",
            "train25_myops_gd/myops_training_101_gd.nii.gz",
            "train25/myops_training_102_DE.nii.gz",
        ],
        {"myops_training_101": (["bssfp", "lge", "t2"], True), "myops_training_102": (["lge"], False)},
    ),
    "bids": (
        [
            "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz",
            "sub-01/ses-1/anat/sub-01_ses-1_acq-3D_T1w.nii.gz",
            "sub-01/ses-1/anat/sub-01_ses-1_acq-3D_ce-gadolinium_T1w.nii.gz",
            "sub-01/ses-2/anat/sub-01_ses-2_T2w.nii.gz",
            "sub-01/ses-2/func/sub-01_ses-2_task-rest_bold.nii.gz",
            "sub-02/anat/sub-02_T2w.nii.gz",
            "derivatives/x/sub-02/anat/sub-02_T2w.nii.gz",
        ],
        {
            "sub-01_ses-1": (["flair", "t1ce", "t1"], False),
            "sub-01_ses-2": (["t2"], False),
            "sub-02": (["t2"], False),
        },
    ),
    "brain-metastases": (
        ["BraTS-MET-00001-000/BraTS-MET-00001-000-t1c.nii.gz"],
        {"BraTS-MET-00001-000": (["t1ce"], False)},
    ),
    "generic": (
        [
            "a/patient_1_FLAIR.nii.gz",
            "a/patient_1_T1w.nii.gz",
            "a/patient_1_seg.nii.gz",
            "patient 2/t1gd.nii",
            "patient 2/T2-FLAIR.nii",
            "patient 2/t2.nii",
        ],
        {"patient_1": (["flair", "t1"], True), "patient 2": (["flair", "t1ce", "t2"], False)},
    ),
}


def test_every_edition_has_a_layout_test() -> None:
    assert set(LAYOUTS) == set(EDITIONS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_detected_and_read(name: str, tmp_path: Path) -> None:
    files, expected = LAYOUTS[name]
    _touch(tmp_path, *files)
    assert detect_edition(tmp_path).name == name
    for studies in (find_studies(tmp_path), find_studies(str(tmp_path), name)):
        assert [study.case_id for study in studies] == sorted(expected)
        for study in studies:
            modalities, has_label = expected[study.case_id]
            assert list(study.images) == modalities
            assert (study.label is not None) == has_label
            assert study.edition == name
            assert all(source.path.is_file() for source in study.images.values())


def test_channels_of_a_4d_file(tmp_path: Path) -> None:
    _touch(tmp_path, "imagesTr/BRATS_001.nii.gz")
    (study,) = find_studies(tmp_path / "imagesTr")
    assert {name: source.channel for name, source in study.images.items()} == {"flair": 0, "t1": 1, "t1ce": 2, "t2": 3}


def test_folder_of_one_study(tmp_path: Path) -> None:
    case = tmp_path / "BraTS20_Training_007"
    _touch(case, "BraTS20_Training_007_flair.nii.gz", "BraTS20_Training_007_t2.nii.gz")
    (study,) = find_studies(case)
    assert study.case_id == "BraTS20_Training_007"
    assert list(study.images) == ["flair", "t2"]


def test_relative_and_linked_folders_keep_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path / "store", "x/flair.nii.gz")
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "patient_9").symlink_to(tmp_path / "store" / "x")
    monkeypatch.chdir(tmp_path / "cohort")
    assert [study.case_id for study in find_studies(".")] == ["patient_9"]
    monkeypatch.chdir(tmp_path / "cohort" / "patient_9")
    assert len(find_studies(".")) == 1


def test_edition_object_of_a_user(tmp_path: Path) -> None:
    _touch(tmp_path, "p1_flair.nii.gz", "p1_seg.nii.gz")
    mine = get_edition("brats2020").with_labels({0: 0, 7: 3})
    (study,) = find_studies(tmp_path, mine)
    assert get_edition(study.edition) is mine
    assert f"{study.edition}" == "brats2020"


def test_results_inside_the_cohort_are_no_studies(tmp_path: Path) -> None:
    _touch(tmp_path, "p_1/p_1_flair.nii.gz", "p_2/p_2_flair.nii.gz", "out/p_1.nii.gz", "out/p_2.nii.gz", "logs/x.txt")
    assert [study.case_id for study in find_studies(tmp_path)] == ["p_1", "p_2"]


def test_dangling_link_is_not_absent(tmp_path: Path) -> None:
    _touch(tmp_path, "p_1/p_1_flair.nii.gz")
    (tmp_path / "p_1" / "p_1_t1.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    assert list(find_studies(tmp_path)[0].images) == ["flair", "t1"]


@pytest.mark.parametrize(
    ("files", "case_id", "parts"),
    [
        (
            [
                "BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz",
                "BraTS20_Training_001/BraTS20_Training_001_flair.nii",
            ],
            "BraTS20_Training_001",
            ["2 files for flair", "_flair.nii.gz", "_flair.nii"],
        ),
        (
            ["BraTS20_Training_001/BraTS20_Training_001_t1.nii", "b/BraTS20_Training_001_t1.nii"],
            "BraTS20_Training_001",
            ["2 files for t1", "/b/"],
        ),
        (
            ["BraTS20_Training_001/BraTS20_Training_001_seg.nii.gz"],
            "BraTS20_Training_001",
            ["no modality", "_seg.nii.gz", "_flair"],
        ),
        (
            ["BraTS20_Training_001/BraTS20_Training_001_dwi.nii.gz"],
            "BraTS20_Training_001",
            ["no modality", "_dwi.nii.gz"],
        ),
        (["BraTS20_Training_001/notes.txt"], "BraTS20_Training_001", ["no modality", "no NIfTI file"]),
        (["p_001/p_001_dwi.nii.gz"], "p_001", ["no modality", "p_001_dwi.nii.gz"]),
        (["p_001/notes.txt"], "p_001", ["no modality", "no NIfTI file"]),
        (["odd/scan.nii.gz"], "odd", ["no modality", "scan.nii.gz"]),
        (["p_001/t1.nii", "p_001/p_001_T1w.nii"], "p_001", ["2 files for t1"]),
    ],
)
def test_one_bad_case_does_not_lose_the_others(
    files: list[str], case_id: str, parts: list[str], tmp_path: Path
) -> None:
    good = "p_900" if not case_id.startswith("BraTS20") else "BraTS20_Training_900"
    _touch(tmp_path, f"{good}/{good}_flair.nii.gz", *files)
    scan = scan_studies(tmp_path)
    assert [study.case_id for study in scan.studies] == [good]
    (error,) = scan.errors
    assert error.case_id == case_id
    for part in (case_id, *parts):
        assert part in str(error)
    with pytest.raises(StudyError, match=r"no modality|2 files"):
        find_studies(tmp_path)


def test_all_bad_cases_are_named_at_once(tmp_path: Path) -> None:
    _touch(tmp_path, "BraTS20_Training_001/x.txt", "BraTS20_Training_002/x.txt")
    with pytest.raises(StudyError, match=r"Training_001.*1 more.*Training_002"):
        find_studies(tmp_path)


def test_absent_folder_and_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_studies(tmp_path / "nowhere")
    _touch(tmp_path, "file")
    with pytest.raises(NotADirectoryError, match="file"):
        find_studies(tmp_path / "file")


def test_nothing_found_says_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no study in .*no \.nii or \.nii\.gz file.*brats2020.*manifest"):
        find_studies(tmp_path)
    _touch(tmp_path, *(f"scan{i}.nii.gz" for i in range(9)))
    with pytest.raises(ValueError, match=r"9 NIfTI files: scan0\.nii\.gz.*and 4 more"):
        find_studies(tmp_path)
    with pytest.raises(ValueError, match=r"no study of edition brats2023.*<case>-t2f.*scan0"):
        find_studies(tmp_path, "brats2023")


def test_ambiguous_edition_names_both(tmp_path: Path) -> None:
    _touch(tmp_path, "BraTS2021_00001_t1.nii.gz", "BraTS-GLI-00001-000-t1n.nii.gz")
    with pytest.raises(ValueError, match=r"more than one edition.*brats2021: 1 case.*BraTS2021_00001.*brats2023"):
        find_studies(tmp_path)
    assert [study.case_id for study in find_studies(tmp_path, "brats2021")] == ["BraTS2021_00001"]


def test_unknown_edition_lists_the_allowed_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'brats1999'.*brats2018.*myops2020.*generic"):
        find_studies(tmp_path, "brats1999")
