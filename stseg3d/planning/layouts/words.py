"""Words in the names of files and folders: which mark an image, a label, a channel, or a part of the data set."""

from __future__ import annotations

import re
from typing import Literal

Role = Literal["image", "label", ""]

_IMAGE = r"images?|imgs?|im|imaging|scans?|volumes?|vol|inputs?|orig|original|raw|dicom|dcm"
_LABEL = (
    r"labels?|lbl|labelmaps?|segs?|segmentations?|segmented|dseg|masks?|msk|gts?|ground[-_ ]?truths?|annotations?|annot|targets?"
    r"|delineations?|contours?"
)
# These say what is in a label, as in `p1_lesion_mask`; alone they may stand in the name of an image.
_LABEL_DETAIL = r"lesions?|tumou?rs?|roi|manual|binary|final|consensus|multiclass|combined"
# nnU-Net's numbers; sequences as BraTS, ISLES and BIDS name them.
_CHANNEL = (
    r"\d{4}|ch(?:annel)?[-_]?\d+|t1|t1w|t1c|t1ce|t1gd|t1n|t1post|t2|t2w|t2f|t2star|flair|pd|pdw|dwi|adc|swi|cta?|cect|ncct|pet|suv|mri?|mra"
    r"|water|fat"
)
_SEPARATOR = r"[-_. ]+"
_PART_WORDS = {
    "training": ("tr", "train", "training"),
    "validation": ("va", "val", "valid", "validation", "dev"),
    "test": ("ts", "te", "test", "testing"),
}
_PART_OF = {word: part for part, words in _PART_WORDS.items() for word in words}
_PARTS = "|".join(_PART_OF)

# `imagesTr`, `train_masks`, `labels`, `val`
FOLDER = re.compile(
    rf"(?:(?P<before>{_PARTS})[-_ ]?)?(?:(?P<image>{_IMAGE})|(?P<label>{_LABEL}))?(?:[-_ ]?(?P<after>{_PARTS}))?", re.IGNORECASE
)
LABEL_NAME = re.compile(
    rf"(?:{_LABEL})(?:{_SEPARATOR}|\d|$).*|.*{_SEPARATOR}(?:{_LABEL})|.*{_SEPARATOR}(?:{_LABEL}){_SEPARATOR}(?:{_LABEL_DETAIL})|{_LABEL_DETAIL}",
    re.IGNORECASE,
)
CHANNEL_NAME = re.compile(rf"(?:(?P<rest>.+?){_SEPARATOR})?(?P<channel>{_CHANNEL})", re.IGNORECASE)


def _at_ends(words: str) -> re.Pattern[str]:
    """Words at the beginning or the end of a name, with what joins them to the rest."""
    return re.compile(rf"^(?:{words})(?:{_SEPARATOR}|(?=\d)|$)|(?:^|{_SEPARATOR})(?:{words})$", re.IGNORECASE)


_ENDS: dict[Role, re.Pattern[str]] = {
    "image": _at_ends(_IMAGE),
    "label": _at_ends(f"{_LABEL}|{_LABEL_DETAIL}|{_IMAGE}"),
    "": _at_ends(_LABEL),
}


def folder_words(name: str) -> tuple[Role, str] | None:
    """Role and part that a folder's name says, such as ``("label", "training")`` for ``labelsTr``; None if it says neither.

    Example:
        >>> folder_words("train_masks"), folder_words("val"), folder_words("patient7")
        (('label', 'training'), ('', 'validation'), None)
    """
    found = FOLDER.fullmatch(name)
    if not found or not name:
        return None
    role: Role = "image" if found["image"] else "label" if found["label"] else ""
    part = (found["before"] or found["after"] or "").lower()
    if not role and part in {"tr", "va", "ts", "te"}:  # too short to mean anything alone
        return None
    return role, _PART_OF.get(part, "")


def is_label_name(stem: str) -> bool:
    """Whether a file's name, without its suffix, says that it is a label: ``a_seg``, ``label_a``, ``mask12``, ``a-mask``."""
    return bool(LABEL_NAME.fullmatch(stem))


def without_words(stem: str, role: Role) -> str:
    """Name without the words that say that it is an image or a label; perhaps empty. Without a role, only words for labels go.

    Example:
        >>> without_words("image_case1", "image"), without_words("case1_image_seg", "label"), without_words("imaging", "image")
        ('case1', 'case1', '')
    """
    while (shorter := _ENDS[role].sub("", stem, count=1)) != stem:
        stem = shorter
    return stem


def without_channel(stem: str) -> tuple[str, str]:
    """Name without the channel at its end, and the channel; both perhaps empty.

    Example:
        >>> without_channel("case_12_0001"), without_channel("t1ce"), without_channel("case")
        (('case_12', '0001'), ('', 't1ce'), ('case', ''))
    """
    found = CHANNEL_NAME.fullmatch(stem)
    return (found["rest"] or "", found["channel"]) if found else (stem, "")
