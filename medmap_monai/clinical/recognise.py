"""Which sequence is it: from what the scanner wrote into the header, or from a file's name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from medmap_monai.clinical.sequence_rules import (
    FLAIR,
    LEFT_OUT,
    T1,
    T1_FLAIR,
    T2,
    TIMINGS,
    WITH_CONTRAST,
    WITHOUT_CONTRAST,
    Rule,
    Timing,
)

#: what ContrastBolusAgent holds where none was given
_NO_AGENT = re.compile(r"|no|none|n/?a|0|nein|non|nativ|without|ohne|keine?s?|no contrast|-+", re.IGNORECASE)
#: "C-", "T1C-", "Gd-": without contrast agent; the sign is lost with the punctuation
_MINUS = re.compile(r"(?<![a-z0-9])((?:[a-z0-9]*t1w?)?)[ _]?(?:c|ce|gd|gad|km)-(?![\w+])")
#: subject and session of a BIDS file name, whose "sub" is no subtraction
_BIDS_NAMES = re.compile(r"(?:^|_)(?:sub|ses)-[A-Za-z0-9]+")


@dataclass(frozen=True)
class SequenceFacts:
    """What is known about an image before its voxels are read.

    name: file name (NIfTI), or any short text that the user knows the series by.
    description, protocol: SeriesDescription and ProtocolName.
    echo_time, repetition_time, inversion_time: ms.
    contrast_agent: ContrastBolusAgent; None where the header has no such entry.
    image_type: values of ImageType.
    """

    name: str = ""
    description: str = ""
    protocol: str = ""
    echo_time: float | None = None
    repetition_time: float | None = None
    inversion_time: float | None = None
    contrast_agent: str | None = None
    image_type: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recognition:
    """What an image was taken for.

    modality: name of the sequence, or None.
    left_out: True for images that are none of the sequences for sure (localiser, diffusion, ...); a ``modality`` of
        None that is not left out is unclear and needs the user's word.
    reason: why, in words.
    """

    modality: str | None
    left_out: bool
    reason: str

    @property
    def unclear(self) -> bool:
        """Whether the user has to say what it is."""
        return self.modality is None and not self.left_out


def normalise(text: str) -> str:
    """Lower case, accents off, everything but letters, digits and ``+ * /`` a space.

    Example:
        >>> normalise("T1_MPRAGE Sag p2.iso +Gd")
        't1 mprage sag p2 iso +gd'
    """
    decomposed = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in decomposed if not unicodedata.combining(c)).lower()
    plain = re.sub(r"\u0442(?=[12])", "t", plain)  # the Cyrillic letter that looks like a T
    plain = _MINUS.sub(r"\1 non contrast ", plain)
    return re.sub(r"\s+", " ", re.sub(r"[^\w+*/]|_", " ", plain)).strip()


def recognise(facts: SequenceFacts) -> Recognition:
    """Name the sequence, or say why it cannot be named.

    SeriesDescription decides where it says anything, then ProtocolName, then the file name; the timing of the header
    must not contradict them, and decides where no text does. A T1 counts as contrast-enhanced when a text says so, or
    when the header names an agent and no text denies it.
    """
    derived = _derived(facts.image_type)
    if derived:
        return Recognition(None, True, derived)
    texts = [_Text(kind, normalise(text)) for kind, text in _texts(facts) if text.strip()]
    for text in texts:  # the next text is asked only where this one says nothing: on some scanners it is the exam's
        hit = _first(LEFT_OUT, text.words)
        if hit:
            return Recognition(None, True, f"{hit[0].what}: {text.kind} says {hit[1]!r}")
        found = _weighting(text.words, facts)
        if found is not None:
            modality, words = found
            return _checked(modality, f"{text.kind} says {words!r}", facts, {texts[0], text})
    fits = [timing for timing in TIMINGS if _fits(timing, facts)]
    if fits and len({timing.modality for timing in fits}) == 1:
        return _checked(fits[0].modality, f"{fits[0].what} ({_timing_text(facts)})", facts, set(texts))
    said = ", ".join(repr(text.words) for text in texts) or "no description"
    timing = f" ({_timing_text(facts)})" if facts.echo_time else ""
    return Recognition(None, False, f"{said} names no sequence{timing}")


class _Text(NamedTuple):
    kind: str
    words: str


def _texts(facts: SequenceFacts) -> Iterable[tuple[str, str]]:
    yield "SeriesDescription", facts.description
    yield "ProtocolName", facts.protocol
    if not (facts.description or facts.protocol):  # an exported file's name is often a mere number
        yield "file name", _BIDS_NAMES.sub(" ", facts.name)


def _derived(image_type: tuple[str, ...]) -> str:
    """Why ImageType rules a series out, or an empty text."""
    kinds = {value.upper() for value in image_type}
    for value, what in (
        ("LOCALIZER", "localiser"),
        ("ADC", "diffusion"),
        ("TRACEW", "diffusion"),
        ("FA", "diffusion"),
        ("DIFFUSION", "diffusion"),
        ("PROJECTION IMAGE", "projection"),
        ("MIN IP", "projection"),
        ("SUBTRACTION", "subtraction"),
        ("PHASE MAP", "phase image"),
        ("VELOCITY MAP", "phase image"),
        ("T1 MAP", "computed map"),
        ("T2 MAP", "computed map"),
        ("PERFUSION", "perfusion"),
        ("REAL", "real part"),
        ("IMAGINARY", "imaginary part"),
    ):
        if value in kinds:
            return f"{what}: ImageType says {value}"
    if "P" in kinds and "M" not in kinds:
        return "phase image: ImageType says P"
    return ""


def _first(rules: Iterable[Rule], text: str) -> tuple[Rule, str] | None:
    for rule in rules:
        words = rule.find(text)
        if words is not None:
            return rule, words
    return None


def _weighting(text: str, facts: SequenceFacts) -> tuple[str, str] | None:
    t1_flair = T1_FLAIR.find(text)
    if t1_flair and not _long_inversion(facts):
        return "t1", t1_flair
    for modality, rules in (("flair", FLAIR), ("t1", T1), ("t2", T2)):
        hit = _first(rules, text)
        if hit:
            if modality == "t1" and _first(T2[:1], text) and _first(T1[:1], text):
                return None  # both are named: neither text nor order may decide
            return modality, hit[1]
    return None


def _long_inversion(facts: SequenceFacts) -> bool:
    return (facts.inversion_time or 0) >= 1600 and (facts.echo_time or 0) >= 60


def _checked(modality: str, reason: str, facts: SequenceFacts, texts: set[_Text]) -> Recognition:
    conflict = _contradiction(modality, facts)
    if conflict:
        return Recognition(None, False, f"{reason}, but {conflict}")
    if modality != "t1":
        return Recognition(modality, False, reason)
    for kind, text in sorted(texts):
        against, given = _first(WITHOUT_CONTRAST, text), _first(WITH_CONTRAST, text)
        if against and given and given[1] not in against[1]:
            return Recognition(None, False, f"{reason}; {kind} says both {against[1]!r} and {given[1]!r}")
        if against:
            if _agent_given(facts):
                return Recognition(
                    None, False, f"{reason}; {kind} says {against[1]!r}, but the header names a contrast agent"
                )
            return Recognition("t1", False, f"{reason}; {kind} says {against[1]!r}")
        if given:
            return Recognition("t1ce", False, f"{reason}; {kind} says {given[1]!r}")
    if _agent_given(facts):
        return Recognition("t1ce", False, f"{reason}; the header names a contrast agent")
    return Recognition("t1", False, f"{reason}; nothing says that contrast agent was given")


def _agent_given(facts: SequenceFacts) -> bool:
    return facts.contrast_agent is not None and not _NO_AGENT.fullmatch(facts.contrast_agent.strip())


def _contradiction(modality: str, facts: SequenceFacts) -> str:
    """Why timing speaks against ``modality``, or an empty text."""
    echo, repetition, inversion = facts.echo_time, facts.repetition_time, facts.inversion_time
    if modality == "t1" and echo is not None and echo > 45:
        return f"an echo time of {echo:g} ms is no T1"
    if modality == "t1" and repetition is not None and repetition > 4000 and not inversion:
        return f"a repetition time of {repetition:g} ms without inversion is no T1"
    if modality == "t2" and echo is not None and repetition is not None and echo < 40 and repetition < 1200:
        return f"{_timing_text(facts)} is T1 timing"
    if modality == "t2" and inversion is not None and inversion >= 1600 and (echo or 0) >= 60:
        return f"{_timing_text(facts)} is FLAIR timing"
    if modality == "flair" and inversion is not None and 0 < inversion < 400:
        return f"an inversion time of {inversion:g} ms suppresses fat, not fluid"
    if modality == "flair" and echo is not None and repetition is not None and echo < 30 and repetition < 1200:
        return f"{_timing_text(facts)} is T1 timing"
    return ""


def _fits(timing: Timing, facts: SequenceFacts) -> bool:
    if facts.echo_time is None or facts.repetition_time is None:
        return False
    inside = timing.echo[0] <= facts.echo_time <= timing.echo[1]
    inside &= timing.repetition[0] <= facts.repetition_time <= timing.repetition[1]
    if timing.inversion is None:
        return inside and not facts.inversion_time
    return inside and timing.inversion[0] <= (facts.inversion_time or 0) <= timing.inversion[1]


def _timing_text(facts: SequenceFacts) -> str:
    parts = (("TE", facts.echo_time), ("TR", facts.repetition_time), ("TI", facts.inversion_time))
    return ", ".join(f"{name} {value:g} ms" for name, value in parts if value)
