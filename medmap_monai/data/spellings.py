"""How people spell modalities in file names: one table, and the reading of a name by it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: modality -> words that mean it, in lower case. A word stands alone between separators.
WORDS: Mapping[str, frozenset[str]] = {
    "flair": _words("flair fla flr t2flair t2fla t2f flairt2 flairw flaird t2wflair"),
    "t1ce": _words(
        "t1ce t1c t1cw t1wc t1wce t1gd t1wgd t1gad t1post t1pc t1km t1contrast t1gado t1gadolinium t1enhanced "
        "t1+c t1c+ t1+ t1w+c t1+gd ct1 ct1w cet1 cet1w gdt1 postt1 t1cegd t1mprpost t1cmprage"
    ),
    "t1": _words("t1 t1n t1w t1pre t1native t1wi t1mpr t1mprage t1weighted mprage t1nc t1- t1noncontrast"),
    "t2": _words("t2 t2w t2wi t2tse t2fse t2weighted"),
    "bssfp": _words("bssfp c0 cine ssfp trufi"),
    "lge": _words("lge de psir"),
}
#: names that are told apart together: a file of any of them is never read as another
_FAMILIES = (frozenset(("flair", "t1ce", "t1", "t2")), frozenset(("bssfp", "lge", "t2")))
LABEL_WORDS = _words(
    "seg segm segmentation label labels labelmap mask gt groundtruth truth annotation roi lesion tumor tumour"
)
_BRAIN_WORDS = _words("brain brainmask skull head bet stripped")

# words that make a T1 a contrast-enhanced one: right behind it, right before it, or anywhere
_BEHIND = _words("c ce gd gad gado post postcontrast contrast km enhanced cm c+ +c + gadolinium postgd pc")
_BEFORE = _words("ce gd gad gado post postcontrast contrast enhanced c+ +c gadolinium postgd")
_ANYWHERE = _words("gad gado gadolinium postcontrast postgd postgad gadovist dotarem magnevist")
_DOUBTFUL = _words("post ce gd contrast enhanced")
_WITHOUT = _words(
    "pre no non without wo native precontrast noncontrast nongad nc unenhanced ohne sans sin sem senza zonder bez uden "
    "utan avant"
)
#: a minus behind one of these says that there is none: "T1_C-", "T1C-", "Gd-"
_AGENTS = ("c", "ce", "gd", "gad", "km")
_NOT_CONTRAST = _words("op operative operation surgery surgical treatment tx rt radiation chemo therapy resection")
# words of acquisition that may stand between
_FILLERS = _words(
    "ax axial sag sagittal cor coronal tra trans transverse se tse fse gre 3d 2d fs fatsat mprage mpr spgr "
    "bravo vibe space iso w weighted wi mr mri mit nach avec con apres dopo com met with after"
)
#: words of images that are computed from a sequence, or weighted otherwise: none of them may pass for it
_DERIVED = _words(
    "subtraction subtracted subtract subtr subtraktion map maps mapping mip minip star starmap adc dwi dti swi swan "
    "perf pwi dsc dce hemo haemo scout localizer localiser"
)
_T2_STAR = _words("gre ffe star hemo haemo s")  # right behind a T2
_MINUS = re.compile(rf"(?<![A-Za-z0-9])(T1w?)?({'|'.join(_AGENTS)})-(?=$|[_ .])", re.IGNORECASE)
_TOKEN = re.compile(r"[A-Za-z0-9+]+|-(?=$)")


class Spelt(NamedTuple):
    """What a name says: the modalities it mentions, whether it is a label, and what is left of it (the case)."""

    modalities: tuple[str, ...]
    label: bool
    rest: str
    why_not: str = ""


def spelt(stem: str, modalities: Collection[str]) -> Spelt:
    """Read a file's name without its ending.

    Args:
        stem: such as ``pat01_post_T1``.
        modalities: names that count; those of an edition.

    Returns:
        ``modalities``: names that are mentioned, usually one. More than one means that the name can be read in two
        ways. ``rest``: the name without the words that were understood.

    Example:
        >>> spelt("pat01_post_T1", ("flair", "t1ce", "t1", "t2"))
        Spelt(modalities=('t1ce',), label=False, rest='pat01', why_not='')
    """
    stem = _MINUS.sub(lambda found: f"{found[1]}_nc" if found[1] else "nc", stem)
    tokens = [(m.group().lower(), m.start(), m.end()) for m in _TOKEN.finditer(stem)]
    words = [token for token, _, _ in tokens]
    known = _vocabulary(modalities)
    mentions: dict[str, None] = {}
    used: set[int] = set()
    for i, word in enumerate(words):
        name = next((name for name, spellings in known.items() if word in spellings), None)
        if name is None or i in used:
            continue
        if name == "t2" and "flair" in known and _beside(words, i, known["flair"]):
            used.add(i)
            continue  # T2 FLAIR is one sequence
        if name == "t1" and "t1ce" in known:
            contrast = _contrast(words, i)
            if contrast is not None:
                name = "t1ce"
                used |= contrast
            else:
                plain = _plain(words, i)
                used |= plain
                if _doubtful(words, plain):
                    mentions["t1ce"] = None
        elif name == "t1ce":
            used |= _contrast(words, i) or set()
        mentions[name] = None
        used.add(i)
        if i + 1 < len(words) and words[i + 1] in ("w", "wi", "weighted"):
            used.add(i + 1)
    label = {i for i, word in enumerate(words) if word in LABEL_WORDS}
    if label and any(word in _BRAIN_WORDS for word in words):
        return Spelt((), False, _rest(stem, tokens, used | label), "it is named like a mask of the brain")
    if label and mentions:
        return Spelt((), False, _rest(stem, tokens, used | label), f"it is named like a mask of {'+'.join(mentions)}")
    derived = _derived(words, used) if mentions else ""
    if derived:
        return Spelt(
            (), False, _rest(stem, tokens, used), f"it is named like no plain {'+'.join(mentions)} ({derived!r})"
        )
    if label and max(label) == len(words) - 1:
        return Spelt((), True, _rest(stem, tokens, label))
    return Spelt(tuple(mentions), False, _rest(stem, tokens, used))


def _vocabulary(modalities: Collection[str]) -> dict[str, frozenset[str]]:
    """Words by modality: those of the family that the modalities belong to, and every other name as itself."""
    wanted = set(modalities)
    family = max(_FAMILIES, key=lambda names: len(names & wanted))
    names = [*(family if family & wanted else ()), *sorted(wanted - family)]
    return {name: WORDS.get(name, frozenset()) | {name.lower()} for name in names}


def _beside(words: list[str], i: int, others: Iterable[str]) -> bool:
    wanted = set(others)
    return any(0 <= j < len(words) and words[j] in wanted for j in (i - 1, i + 1))


def _next_word(words: list[str], i: int, step: int) -> tuple[int, set[int]] | None:
    """The next word in one direction that is no filler, and the fillers on the way."""
    passed: set[int] = set()
    j = i + step
    while 0 <= j < len(words) and words[j] in _FILLERS:
        passed.add(j)
        j += step
    return (j, passed) if 0 <= j < len(words) else None


def _contrast(words: list[str], i: int) -> set[int] | None:
    """The words that make the T1 at ``i`` a contrast-enhanced one; None where nothing does."""
    found: set[int] = set()
    behind, before = _next_word(words, i, 1), _next_word(words, i, -1)
    if behind is not None and words[behind[0]] in _WITHOUT:
        return None
    if before is not None and words[before[0]] in _WITHOUT:
        return None
    for neighbour, wanted in ((behind, _BEHIND), (before, _BEFORE)):
        if neighbour is None or words[neighbour[0]] not in wanted:
            continue
        place, passed = neighbour
        if words[place] == "post" and place + 1 < len(words) and words[place + 1] in _NOT_CONTRAST:
            continue  # after an operation, not after contrast agent
        found |= {place, *passed}
        while neighbour is behind and place + 1 < len(words) and words[place + 1] in _BEHIND - {"c"}:
            place += 1  # T1 post gad
            found.add(place)
    for j, word in enumerate(words):
        if word in _ANYWHERE and not (j > 0 and words[j - 1] in _WITHOUT):
            found.add(j)
    return found or None


def _plain(words: list[str], i: int) -> set[int]:
    """The words that say that the T1 at ``i`` is one without contrast agent."""
    found: set[int] = set()
    for step in (1, -1):
        neighbour = _next_word(words, i, step)
        if neighbour is not None and words[neighbour[0]] in _WITHOUT:
            place = neighbour[0]
            found |= {place, *neighbour[1]}
            if place + 1 < len(words) and words[place + 1] in _BEHIND:
                found.add(place + 1)  # pre contrast, without gad
    return found


def _doubtful(words: list[str], explained: set[int]) -> bool:
    """Whether a word of contrast stands apart from the T1, so that it may be meant for it or not."""
    return any(
        word in _DOUBTFUL
        and j not in explained
        and not (j + 1 < len(words) and words[j + 1] in _NOT_CONTRAST)
        and not (j > 0 and words[j - 1] in _WITHOUT)
        for j, word in enumerate(words)
    )


def _derived(words: list[str], used: Collection[int]) -> str:
    """The word that says that an image is computed, or weighted otherwise; ``used``: the words of its modality."""
    for j, word in enumerate(words):
        if j in used:
            continue
        behind_t2 = j > 0 and words[j - 1] in WORDS["t2"]
        # "sub" in front is the subject
        if word in _DERIVED or (word == "sub" and j > min(used)) or (word in _T2_STAR and behind_t2):
            return word
    return ""


def _rest(stem: str, tokens: list[tuple[str, int, int]], used: set[int]) -> str:
    """``stem`` without the tokens ``used``; separators at the ends go, those between two parts stay."""
    kept: list[str] = []
    position = 0
    for index, (_, start, end) in enumerate(tokens):
        if index in used:
            kept.append(stem[position:start])
            position = end
    kept.append(stem[position:])
    parts = [part.strip(" _.-+") for part in kept]
    return "_".join(part for part in parts if part)
