"""BIDS: names made of entities, labels among the derivatives.

The rules are those of https://bids-specification.readthedocs.io (1.10): ``sub-01_ses-1_run-2_T1w.nii.gz``; segmentations end on ``dseg``,
``probseg`` or ``mask``. Labels such as ``sub-01_T2w_lesion-manual.nii.gz``, as the Spinal Cord Toolbox writes them, are understood, too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from stseg3d.planning.layouts.match import Level
from stseg3d.planning.layouts.walk import Named

SUBJECT = re.compile(r"(?:^|(?<=_))sub-[A-Za-z0-9]+(?=_|$)")
_ENTITY = re.compile(r"([a-z]+)-([A-Za-z0-9]+)", re.IGNORECASE)
# Entities that distinguish the scans of a session.
_OF_SCAN = ("task", "acq", "ce", "rec", "dir", "run", "echo", "part", "chunk")
_LABEL_PIECE = re.compile(r"(?:dseg|mask|msk|seg|label|lesion|lesions|roi|gt)(?:-.*)?", re.IGNORECASE)
_NO_LABEL_PIECE = re.compile(r"probseg|boldref|xfm", re.IGNORECASE)


def is_bids(named: Sequence[Named]) -> bool:
    """Whether half of the volumes at least are named as BIDS asks, ``sub-..._...``."""
    return bool(named) and 2 * sum(bool(SUBJECT.match(n.stem)) for n in named) >= len(named)


def bids_roles(named: Sequence[Named]) -> tuple[list[Named], list[Named]]:
    """Images and labels among the volumes; images of derivatives count only where there are no others."""
    of_subjects = [n for n in named if SUBJECT.match(n.stem) and not _NO_LABEL_PIECE.fullmatch(_pieces(n)[-1])]
    says_label = [any(_LABEL_PIECE.fullmatch(piece) for piece in _pieces(n)[1:]) for n in of_subjects]
    labels, images = ([n for n, says in zip(of_subjects, says_label, strict=True) if says == wanted] for wanted in (True, False))
    return [n for n in images if "derivatives" not in n.folders] or images, labels


def _pieces(named: Named) -> list[str]:
    return named.stem.split("_")


def _entities(named: Named) -> dict[str, str]:
    return {found[1].lower(): found[2] for piece in _pieces(named) if (found := _ENTITY.fullmatch(piece))}


def _subject(named: Named, entities: Sequence[str]) -> str:
    found = _entities(named)
    return "_".join(f"{name}-{found[name]}" for name in entities if name in found) if "sub" in found else ""


def _channel(named: Named, entities: Sequence[str]) -> str:
    """Suffix such as ``T1w``, with the entities that distinguish scans of one case."""
    found = _entities(named)
    return "_".join([*(f"{name}-{found[name]}" for name in _OF_SCAN if name in found and name not in entities), _pieces(named)[-1]])


def _level(text: str, *entities: str) -> Level:
    return Level(f"BIDS, {text}", lambda n: (_subject(n, entities), _channel(n, entities)), lambda n: _subject(n, entities))


BIDS_LEVELS = (
    _level("a scan a case", "sub", "ses", *_OF_SCAN),
    _level("a session a case", "sub", "ses"),
    _level("a subject a case", "sub"),
)
