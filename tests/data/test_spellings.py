"""How people spell modalities."""

from __future__ import annotations

import pytest

from medmap_monai.data.spellings import WORDS, spelt

BRAIN = ("flair", "t1ce", "t1", "t2")

NAMES = {
    "pat01_T1": ("t1", "pat01"),
    "pat01_t1gd": ("t1ce", "pat01"),
    "T1_post": ("t1ce", ""),
    "pat01_T1_post": ("t1ce", "pat01"),
    "pat01_post_T1": ("t1ce", "pat01"),
    "pat01_t1_ce": ("t1ce", "pat01"),
    "pat01-t1c": ("t1ce", "pat01"),
    "pat01_fla": ("flair", "pat01"),
    "pat01_T2_FLAIR": ("flair", "pat01"),
    "FLAIR_T2_pat01": ("flair", "pat01"),
    "T2-FLAIR": ("flair", ""),
    "pat01_T1_AX_POST_GAD": ("t1ce", "pat01"),
    "ax_t1_fs_post": ("t1ce", "ax"),
    "T1w+C": ("t1ce", ""),
    "gd_T1": ("t1ce", ""),
    "T1 post contrast": ("t1ce", ""),
    "pat01_T1_pre": ("t1", "pat01"),
    "pat01_t1_pre_gad": ("t1", "pat01"),
    "pat01_t1_without_contrast": ("t1", "pat01"),
    "post_op_T1": ("t1", "post_op"),
    "T1_post_treatment": ("t1", "post_treatment"),
    "t1-weighted": ("t1", ""),
    "pat01_T1C-": ("t1", "pat01"),
    "pat01_T1_C-_ax": ("t1", "pat01_ax"),
    "pat01_T1_Gd-": ("t1", "pat01"),
    "pat01_T1C+": ("t1ce", "pat01"),
    "pat01_T1_sans_gado": ("t1", "pat01"),
    "pat01_T1_ohne_KM": ("t1", "pat01"),
    "pat01_T1_mit_KM": ("t1ce", "pat01"),
    "pat01_T1_with_contrast": ("t1ce", "pat01"),
    "sub-01_T1": ("t1", "sub-01"),
    "sub_01_T1w": ("t1", "sub_01"),
    "mprage": ("t1", ""),
    "pat01_T2W": ("t2", "pat01"),
    "T2star": (None, "T2star"),
    "BRATS_T2x": (None, "BRATS_T2x"),
    "scan": (None, "scan"),
    "DTI_FA": (None, "DTI_FA"),
}


@pytest.mark.parametrize("stem", NAMES)
def test_a_name_says_one_modality_or_none(stem: str) -> None:
    modality, rest = NAMES[stem]
    found = spelt(stem, BRAIN)
    assert found.modalities == ((modality,) if modality else ())
    assert not found.label
    assert found.rest == rest


@pytest.mark.parametrize(
    ("stem", "both"),
    [
        ("T2_to_T1ce", {"t2", "t1ce"}),
        ("pat_T1_FLAIR", {"t1", "flair"}),
        ("T1_series5_POST", {"t1", "t1ce"}),
        ("flair_reg_t1", {"flair", "t1"}),
    ],
)
def test_a_name_with_two_readings_has_both(stem: str, both: set[str]) -> None:
    assert set(spelt(stem, BRAIN).modalities) == both


@pytest.mark.parametrize("stem", ["p_seg", "seg", "p_Label", "p-tumor-mask", "p_GT"])
def test_labels(stem: str) -> None:
    assert spelt(stem, BRAIN).label


@pytest.mark.parametrize("stem", ["p_t1_mask", "p_brain_mask", "p_flair_seg", "brainmask"])
def test_masks_of_something_else_are_neither_image_nor_label(stem: str) -> None:
    found = spelt(stem, BRAIN)
    assert not found.label
    assert not found.modalities


@pytest.mark.parametrize(
    "stem", ["p_T1_sub", "p_subtraction_T1", "p_T1_Gd_sub", "p_T2_star", "p_T2_GRE", "p_T1_map", "T2_ADC", "T1_MIP"]
)
def test_what_is_computed_or_weighted_otherwise_passes_for_no_sequence(stem: str) -> None:
    found = spelt(stem, BRAIN)
    assert not found.modalities
    assert "no plain" in found.why_not


def test_words_belong_to_the_modalities_of_the_edition() -> None:
    assert spelt("p_C0", ("bssfp", "lge", "t2")).modalities == ("bssfp",)
    assert spelt("casa_de_t1", BRAIN).modalities == ("t1",)
    assert spelt("p_adc", ("adc", "t1")).modalities == ("adc",)
    assert spelt("p_t1ce", ("adc", "t1")).modalities == ("t1ce",)  # never read as the t1 that the edition has


def test_no_word_means_two_modalities_of_one_family() -> None:
    brain = [word for name in BRAIN for word in WORDS[name]]
    assert len(brain) == len(set(brain))
