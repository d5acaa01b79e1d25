# ruff: noqa: RUF001  (letters of other alphabets are the point)
"""Descriptions as scanners and hospitals write them -> the sequence, or a refusal."""

from __future__ import annotations

import pytest

from medmap_monai.clinical.recognise import Recognition, SequenceFacts, recognise

# SeriesDescription or file name -> modality; "-": left out; "?": needs the user's word
SPELLINGS = {
    # Siemens
    "t2_tirm_tra_dark-fluid": "flair",
    "t2_tirm_tra_dark-fluid_320": "flair",
    "t2_spc_da-fl_sag_p2_iso": "flair",
    "t2_space_dark-fluid_sag_p3_iso": "flair",
    "t2_flair_tra_p2": "flair",
    "t2_blade_tra_dark-fluid_fs": "flair",
    "t1_mprage_sag_p2_iso": "t1",
    "t1_mprage_sag_p2_iso_KM": "t1ce",
    "t1_mpr_tra_iso nach KM": "t1ce",
    "t1_mprage_tra_p2_iso_1.0_nativ": "t1",
    "t1_se_tra": "t1",
    "t1_se_tra +KM": "t1ce",
    "t1_fl2d_tra_p2_KM": "t1ce",
    "t1_vibe_fs_tra_post": "t1ce",
    "t1_tse_dark-fluid_tra": "t1",
    "t2_tse_tra_512": "t2",
    "t2_tse_tra_p2_320": "t2",
    "t2_blade_tra": "t2",
    "t2_space_sag_p2_iso": "t2",
    "tse2d1_11_t2": "t2",
    "AAHead_Scout": "-",
    "localizer": "-",
    "ep2d_diff_3scan_trace_p2_ADC": "-",
    "ep2d_diff_b1000": "-",
    "t2_fl2d_tra_hemo": "-",
    "SWI_Images": "-",
    "Mag_Images SWI": "-",
    "ep2d_perf_p2": "-",
    "tof_fl3d_tra_p2_multi-slab": "-",
    "t2_stir_cor": "-",
    # GE
    "Ax T2 FLAIR": "flair",
    "AX FLAIR +C": "flair",
    "Sag CUBE T2 FLAIR": "flair",
    "Sag 3D FLAIR": "flair",
    "Ax T1 FLAIR": "t1",
    "AX T1 FLAIR POST": "t1ce",
    "Ax T1 SE": "t1",
    "AX T1 +C": "t1ce",
    "Ax T1 C+": "t1ce",
    "AXIAL T1 POST GAD": "t1ce",
    "+C Ax T1 FSPGR": "t1ce",
    "AX BRAVO": "t1",
    "3D BRAVO POST": "t1ce",
    "SAG FSPGR 3D PRE": "t1",
    "Ax T2 FRFSE": "t2",
    "AX T2 PROPELLER": "t2",
    "AX FRFSE-XL": "t2",
    "3-PL LOC": "-",
    "3Plane Loc SSFSE": "-",
    "Ax DWI b=1000": "-",
    "Ax SWAN": "-",
    "Ax T2* GRE": "-",
    "AX T2 STAR": "-",
    "Apparent Diffusion Coefficient (mm2/s)": "-",
    "ASL Perfusion (Transit delay)": "-",
    # Philips
    "sT1W_3D_TFE": "t1",
    "sT1W_3D_TFE_GD": "t1ce",
    "T1W_SE_TRA": "t1",
    "T1W/SE/TRA +GD": "t1ce",
    "eT2W_TSE": "t2",
    "T2W_TSE_TRA": "t2",
    "T2W_FLAIR_TRA": "flair",
    "FLAIR_longTR": "flair",
    "3D_Brain_VIEW_FLAIR_SHC": "flair",
    "WIP T1W_3D_FFE post Gd": "t1ce",
    "T2W_FFE": "-",
    "Survey": "-",
    "DWI_SSh": "-",
    "VEN_BOLD": "-",
    # Canon, Hitachi, Fujifilm
    "FLAIR AX 5mm": "flair",
    "FSE T2 AX": "t2",
    "SE T1 AX GD": "t1ce",
    # languages
    "T1 axial sans injection": "t1",
    "T1 AX APRES GADO": "t1ce",
    "T1 3D après injection": "t1ce",
    "T1 axial sin contraste": "t1",
    "T1 axial con contraste": "t1ce",
    "T1 ASSIALE SENZA MDC": "t1",
    "T1 assiale con mdc": "t1ce",
    "T1 tra ohne KM": "t1",
    "T1 TRA MIT KM": "t1ce",
    "T1 tra bez kontrastu": "t1",
    "T1 TRA PO KM": "t1ce",
    "T1 ax met contrast": "t1ce",
    "T1 ax zonder contrast": "t1",
    "Т2 тра": "t2",  # the letter is Cyrillic
    "T1 ax с контрастом": "t1ce",
    "T1 ax без контраста": "t1",
    "T1WI 增强": "t1ce",
    "T1WI 平扫": "t1",
    "T2WI 横断": "t2",
    "造影 T1 Ax": "t1ce",
    "単純 T1 Ax": "t1",
    "定位像": "-",
    "T1 s/contraste": "t1",
    "T1 S/GD": "t1",
    "T1 c/contraste": "t1ce",
    "T1 pre contraste": "t1",
    "T1 tra o. KM": "t1",
    # without, within and around contrast
    "T1C-": "t1",
    "AX T1 C-": "t1",
    "T1W CE-": "t1",
    "T1C+": "t1ce",
    "T1 non-gad": "t1",
    "POST OP BRAIN T1 AX": "t1",
    "T1 post-surgery +C": "t1ce",
    "T1 POST": "t1ce",
    "AX T1 W/O": "t1",
    "AX T1 WO CONTRAST": "t1",
    "AX T1 WITH CONTRAST": "t1ce",
    "T1 non-contrast": "t1",
    "AX T1 PRE-GAD": "t1",
    "MPRAGE": "t1",
    "T1 pre and post contrast": "?",
    "T1 T2 AX": "?",
    "PD AX": "-",
    "AX PD/T2 FSE": "-",
    "MIP T1 post": "-",
    "SUB T1 POST-PRE": "-",
    "C-SPINE T2 SAG": "-",
    "Series 7": "?",
    "AX SE": "?",
    "": "?",
}
# file names, without folder
FILES = {
    "MRHR_FLAIR_AX_OtherEXampleTCIA_TCGA-FG-6692_Si_TCGA-FG-6692_MRHR_FLAIR_AX_SE_IR_5_tir2d1_21_fla": "flair",
    "MRHR_T1_AX_POST_GAD_OtherEXampleTCIA_TCGA-FG-6692_Si_TCGA-FG-6692_MRHR_T1_AX_POST_GAD_SE_13_se2d1r_t1c": "t1ce",
    "MRHR_T2_AX_OtherEXampleTCIA_TCGA-FG-6692_Si_TCGA-FG-6692_MRHR_T2_AX_SE_2_tse2d1_11_t2": "t2",
    "T1_AX_OtherEXampleTCIA_TCGA-FG-6692_Si_TCGA-FG-6692_T1_AX_SE_10_se2d1_t1": "t1",
    "BraTS20_Training_001_t1ce": "t1ce",
    "BraTS20_Training_001_flair": "flair",
    "BraTS-GLI-00001-000-t1n": "t1",
    "BraTS-GLI-00001-000-t1c": "t1ce",
    "BraTS-GLI-00001-000-t2f": "flair",
    "BraTS-GLI-00001-000-t2w": "t2",
    "sub-01_ses-02_T1w": "t1",
    "sub-01_ce-gadolinium_T1w": "t1ce",
    "sub-01_FLAIR": "flair",
    "pat01_t1gd": "t1ce",
    "pat01_T1_post": "t1ce",
    "pat01_post_T1": "t1ce",
    "pat01_t1_ce": "t1ce",
    "pat01_T1": "t1",
    "pat01_fla": "flair",
    "t1post": "t1ce",
    "T2": "t2",
    "patient1_T2": "t2",
    "subject1_t2w": "t2",
    "pat2_T1": "t1",
    "visit1": "?",
    "patient2": "?",
    "BraTS20_Training_001_seg": "-",
    "brain_mask": "-",
}


def got(recognition: Recognition) -> str:
    return "-" if recognition.left_out else recognition.modality or "?"


@pytest.mark.parametrize(("text", "expected"), SPELLINGS.items())
def test_descriptions_of_scanners(text: str, expected: str) -> None:
    found = recognise(SequenceFacts(name="IM0001", description=text))
    assert got(found) == expected, found.reason
    assert found.reason


@pytest.mark.parametrize(("name", "expected"), FILES.items())
def test_file_names(name: str, expected: str) -> None:
    found = recognise(SequenceFacts(name=name))
    assert got(found) == expected, found.reason


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (SequenceFacts(description="AX SE", echo_time=12, repetition_time=550), "t1"),
        (SequenceFacts(description="AX SE", echo_time=12, repetition_time=550, contrast_agent="GADAVIST"), "t1ce"),
        (SequenceFacts(description="AX SE", echo_time=12, repetition_time=550, contrast_agent="None"), "t1"),
        (SequenceFacts(description="AX TSE", echo_time=95, repetition_time=4500), "t2"),
        (SequenceFacts(description="AX", echo_time=120, repetition_time=9000, inversion_time=2500), "flair"),
        (SequenceFacts(description="AX", echo_time=15, repetition_time=2800), "?"),  # proton density
        (SequenceFacts(description="COR", echo_time=60, repetition_time=4500, inversion_time=150), "?"),  # STIR
        (SequenceFacts(description="3D", echo_time=3, repetition_time=2100, inversion_time=900), "t1"),
        (SequenceFacts(description="Head", protocol="t1_mprage_sag", contrast_agent="10 ml Dotarem"), "t1ce"),
        (SequenceFacts(description="T1 PRE", contrast_agent="Gadovist"), "?"),  # text and header disagree
        (SequenceFacts(description="T2 AX", echo_time=12, repetition_time=550), "?"),
        (SequenceFacts(description="T1 AX", echo_time=100, repetition_time=5000), "?"),
        (SequenceFacts(description="T2 AX", echo_time=120, repetition_time=9000, inversion_time=2500), "?"),
        (SequenceFacts(description="tirm cor", echo_time=60, repetition_time=4500, inversion_time=150), "?"),
        (SequenceFacts(description="T2 FLAIR", contrast_agent="Gadovist", echo_time=120), "flair"),
        (SequenceFacts(description="T1 FLAIR", echo_time=100, repetition_time=9000, inversion_time=2500), "flair"),
        (SequenceFacts(description="T2 AX", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")), "-"),
        (SequenceFacts(description="T1 AX", image_type=("ORIGINAL", "PRIMARY", "P", "ND")), "-"),
        (SequenceFacts(description="T1 AX", image_type=("ORIGINAL", "PRIMARY", "M", "ND")), "t1"),
        (SequenceFacts(description="T1 AX", protocol="BRAIN W/WO CONTRAST DWI"), "t1"),  # the exam's protocol
        (SequenceFacts(description="3D", protocol="T1 SAG POST GAD"), "t1ce"),
        (SequenceFacts(description="T1 3D MPR tra", image_type=("DERIVED", "SECONDARY", "MPR")), "t1"),
    ],
)
def test_timing_and_header_decide_or_contradict(facts: SequenceFacts, expected: str) -> None:
    found = recognise(facts)
    assert got(found) == expected, found.reason
