"""The table by which an MR series is recognised: words of its description, and the scanner's timing."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One line of the table.

    what: what the words mean, for the reason that is shown to people.
    pattern: regular expression on the normalised text (lower case, no accents, one space between words; ``+``, ``*``
        and ``/`` are kept).
    """

    what: str
    pattern: str

    def find(self, text: str) -> str | None:
        """The words that match, or None."""
        found = re.search(self.pattern, text)
        return found.group(0).strip() if found else None


_START, _END = r"(?<![a-z0-9])", r"(?![a-z0-9])"
#: words that stand before a weighting without a space: "AxT1", "3DT2", Philips' "sT1W" and "eT2W"
_STUCK = r"(?:ax|axial|tra|sag|cor|obl|3d|2d|wip|s|e|w|fs|se|tse|fse)*"


def _words(*alternatives: str) -> str:
    """Whole words; alternatives are separated by ``|``."""
    return _START + "(?:" + "|".join(alternatives) + ")" + _END


# Series that are no input of a segmentation, whatever else their name says. Checked first.
LEFT_OUT: tuple[Rule, ...] = (
    Rule(
        "localiser",
        _words(
            "(?:3 ?(?:pl|plane|plan|p) )?(?:loc|locali[sz][a-z]*|lokali[sz][a-z]*)|scout[a-z]*|survey|coil survey",
            "aahead[a-z]*|aascout|topogram[a-z]*|pilot|plan scan|reperage|centratura|calibration|asset cal",
            "ref(?:erence)? scan|smart ?brain|shim(?:ming)?",
        ),
    ),
    Rule("localiser", "定位|ロケータ|位置決め|локалайзер"),
    Rule(
        "diffusion",
        _words(
            "e?dwi[a-z]*|diff[a-z0-9]*|adc|e?dti|dki|hardi|trace[a-z]*|tensor|fa map|colou?r fa|resolve|apparent",
            "b ?(?:0|50|400|500|800|1000|1500|2000)[a-z]*",
        )
        + "|^fa$|диффуз|扩散|拡散|弥散",
    ),
    Rule(
        "perfusion",
        _words(
            "perf[a-z0-9]*|pwi|dsc|dce|r?cbf|r?cbv|r?mtt|ttp|tmax|aif|p?ca?sl|asl|ktrans|dynamic|dyn|twist",
            "time resolved",
        )
        + "|перфуз|灌注",
    ),
    Rule(
        "susceptibility or T2*",
        _START
        + r"(?:swi[a-z0-9]*|swan[a-z0-9]*|suscept[a-z]*|qsm|h[a]?emo[a-z]*|venobold|ven bold|medic|merge|t2s(?![a-z])"
        r"|t2w? ?(?:\*|star[a-z]*)|(?:gre|ffe|fl2d|fl3d) (?:t2 )?(?:hemo|heme|star)|t2w? (?:ffe|gre|fl2d|fl3d|hemo))",
    ),
    Rule(
        "angiography",
        _words(
            "mra|mrv|[a-z0-9]*tof[a-z0-9]*|angio[a-z]*|venogra[a-z]*|phase contrast|pc ?(?:a|v|3d|2d)|pca",
            "inhance|cow|qflow",
        ),
    ),
    Rule("spectroscopy", _words("mrs|mrsi|spectro[a-z]*|s?press(?: [0-9]+)?|svs|csi|steam|megapress")),
    Rule(
        "functional or field map", _words("f ?mri|bold|resting(?: state)?|rs ?fmri|b1(?: map)?|b0 map|field ?map[a-z]*")
    ),
    Rule(
        "computed map", _words("t1 ?map[a-z]*|t2 ?map[a-z]*|pd ?map|r2(?:star)? map|relaxometry|(?:mp2rage )?inv ?[12]")
    ),
    Rule(
        "projection, subtraction or screen copy",
        _words(
            "mip|m ?i ?p|minip|sub|subtr[a-z]*|screen ?save[a-z]*|screen ?shot[a-z]*|snapshot|report|key ?images?|dose"
        ),
    ),
    Rule("mask or label map", _words("seg|segm|segmentation|labels?|mask|rois?|fused|fusion")),
    Rule("proton density", _START + _STUCK + r"(?:pd|dp|proton ?dens[a-z]*|densite proton[a-z]*)(?:w|fs)?" + _END),
    Rule("fat-suppressed inversion recovery (STIR)", _words("e?stir[a-z]*")),
    Rule("double inversion recovery", _words("dir|double ir|double inversion")),
    Rule("steady state", _words("[a-z0-9]*ciss[a-z0-9]*|fiesta[a-z]*|[a-z]*drive|b ?ffe|true ?fisp|trufi|balanced")),
    Rule(
        "another body region",
        _words(
            "[cltw]s? ?spine|spine|cervical|lumbar|thorax|thoracic|lws|[hbl]ws|csp|lsp|rachis|colonna|orbit[a-z]*",
            "neck|tmj|iac|iam|cai|kia|felsenbein|pituitary|sella|hypophyse|ipofisi|knee",
        ),
    ),
)

# Fluid-attenuated inversion recovery. Before T2, whose words it usually carries too.
FLAIR: tuple[Rule, ...] = (
    Rule("FLAIR", _START + r"[a-z0-9]*(?:flair|flare)[a-z0-9]*"),
    Rule(
        "FLAIR",
        _words("dark ?fluid|da ?fl|fla|t2f|t2fla|tirm|tir2d[a-z0-9]*|t2 ir|ir t2|space ?ir|spc ?ir|spcir[a-z0-9]*"),
    ),
)

# Inversion recovery of T1 contrast carries the word FLAIR on GE scanners.
T1_FLAIR = Rule("T1 FLAIR", _START + _STUCK + r"t1 ?w? ?(?:[a-z]{2,3} ){0,2}(?:flair|ir|tirm|dark)")

T1: tuple[Rule, ...] = (
    Rule("T1", _START + _STUCK + r"t ?1(?![0-9])"),
    Rule(
        "T1",
        _words(
            "[a-z0-9]*mp ?rage[a-z0-9]*|mpr|bravo|f?spgr|ir ?f?spgr|efgre(?:3d)?|3d ?tfe|tfe|tfl(?:3d)?|fl3d|vibe|lava",
            "thrive|quick ?3d|mdeft|3d ?ffe",
        ),
    ),
)

T2: tuple[Rule, ...] = (
    Rule("T2", _START + _STUCK + r"t ?2(?![0-9])"),
    Rule("T2", _words("frfse(?:xl)?|haste|ssfse|propeller|blade|multivane|cube")),
)

# Words for and against contrast agent, in the languages of the description.
_PREPOSITION = "(?:avec|con|mit|nach|with|after|post|apres|dopo|despues de|po|s|z|med|met|com|pos|efter|na)"
#: after which "post" speaks of the patient's treatment, not of contrast agent
_TREATMENT = (
    "(?:op|operat[a-z]*|surg[a-z]*|resect[a-z]*|biops[a-z]*|rt|rad[a-z]*|chemo[a-z]*|tx|treat[a-z]*|therap[a-z]*)"
)
_AGENT = (
    "(?:gd|gado[a-z]*|gad|contrast[a-z]*|kontrast[a-z]*|km|mdc|mezzo|injection|inj|injecte?|iv|civ|dotarem|magnevist"
    "|multihance|omniscan|prohance|gadavist|clariscan)"
)
WITHOUT_CONTRAST: tuple[Rule, ...] = (
    Rule(
        "without contrast agent",
        _words(
            "pre(?! ?scan)(?: ?(?:gd|gad[a-z]*|contrast[a-z]*|km|c|iv|op))?|nativ[a-z]*|basale?|plain|unenhanced",
            "non ?(?:contrast[a-z]*|enhanced|ce|gd|gad[a-z]*)|w/o(?: c)?|o ?km|o ?kontrast[a-z]*",
            "s/ ?(?:c|gd|gad[a-z]*|contrast[a-z]*|civ|iv)|s contraste",
            "(?:without|w ?/ ?o|wo|no|sans|sin|sem|senza|ohne|zonder|bez|uden|utan|avant|before|vor) " + _AGENT,
        ),
    ),
    Rule("without contrast agent", r"без контраст\w*|平扫|単純|造影前|нативн\w*|до контраст\w*"),
)
WITH_CONTRAST: tuple[Rule, ...] = (
    Rule("with contrast agent", r"\+ ?(?:c|gd|gad[a-z]*|km|k|contrast|iv|mdc)" + _END),
    Rule("with contrast agent", _START + r"(?:c|gd|km|k|ce) ?\+"),
    Rule("with contrast agent", _START + _STUCK + r"t1w?(?:ce|c|gd|gad[a-z]*|post|km|k)" + _END),
    Rule(
        "with contrast agent",
        _words(
            "post(?! ?" + _TREATMENT + _END + ")|postcon[a-z]*|postgad[a-z]*|postgd|post ?c|apres|enhanced|ce",
            "contrast[a-z]*|kontrast[a-z]*|gd|gad",
            "gado[a-z]*|gd ?dtpa|kmg?|mdc|inj|injecte?e?|injection|civ|dotarem|magnevist|multihance|omniscan|prohance",
            "gadavist|clariscan",
        ),
    ),
    Rule("with contrast agent", _words(_PREPOSITION + " " + _AGENT)),
    Rule("with contrast agent", r"контраст\w*|增强|強化|增強|造影"),
)


@dataclass(frozen=True)
class Timing:
    """Where the timing of a weighting lies (ms); ``inversion`` None: there is none.

    Limits are wide on purpose: they name what a text leaves open, at 1 to 3 T.
    """

    modality: str
    what: str
    echo: tuple[float, float]
    repetition: tuple[float, float]
    inversion: tuple[float, float] | None = None


#: what timing alone can tell, for descriptions such as "AX SE"
TIMINGS: tuple[Timing, ...] = (
    Timing("flair", "long inversion and echo time", (60, 700), (4000, 20000), (1600, 3200)),
    Timing("t1", "short echo and repetition time", (1, 30), (200, 1100)),
    Timing("t1", "short echo time and inversion of T1 contrast", (1, 30), (4, 3500), (300, 1300)),
    Timing("t2", "long echo and repetition time without inversion", (60, 250), (1800, 20000)),
)
