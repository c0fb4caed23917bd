"""How bright tissues are in CT, by phase of the contrast medium, and which tissue each class of a label map is.

Ranges hold the means of patients, not of voxels. They are drawn around what is published and are wider than any one study's, by eye: a
network that has seen too much is better prepared than one that has seen too little (Billot et al., *SynthSeg*, Medical Image Analysis 2023,
86:102789). Published are:

* unenhanced organs, muscle, fat and blood: Lamba et al., *CT Hounsfield numbers of soft tissues on unenhanced abdominal CT scans*,
  AJR 2014, 203:1013-1020, https://pmc.ncbi.nlm.nih.gov/articles/PMC5015439, which also says how much two scanners differ;
* enhanced blood and organs: Bae, *Intravenous contrast medium administration and scan timing at CT*, Radiology 2010, 256:32-61;
* spongy bone: Pickhardt et al., *Opportunistic screening for osteoporosis using abdominal CT*, Ann Intern Med 2013, 158:588-595;
* cortical bone, lung and bowel contents: textbooks, looked at beside the scans s0002 and s0003 of TotalSegmentator.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

Range = tuple[float, float]


class Tissue(NamedTuple):
    """Mean over a tissue in HU, from patient to patient, and how much it varies inside one."""

    hu: Range
    texture_hu: float


# Without contrast medium. What is enhanced takes its mean from PHASES.
TISSUES: Mapping[str, Tissue] = {
    "arteries": Tissue((25, 60), 3),
    "veins": Tissue((25, 60), 4),
    "portal": Tissue((25, 60), 4),
    "right_heart": Tissue((25, 60), 4),
    "pulmonary": Tissue((25, 60), 4),
    "myocardium": Tissue((30, 65), 5),
    "liver": Tissue((20, 75), 6),
    "spleen": Tissue((35, 65), 5),
    "kidney": Tissue((20, 45), 10),
    "pancreas": Tissue((10, 55), 14),
    "adrenal": Tissue((-5, 45), 10),
    "thyroid": Tissue((60, 140), 10),
    "gallbladder": Tissue((-5, 30), 3),
    "fluid": Tissue((-10, 30), 4),
    "bowel_wall": Tissue((20, 60), 10),
    "muscle": Tissue((25, 70), 12),
    "brain": Tissue((25, 50), 8),
    "cord": Tissue((15, 50), 6),
    "cartilage": Tissue((60, 180), 40),
    "spongy_bone": Tissue((60, 330), 60),
    "cortical_bone": Tissue((350, 1100), 120),
    "lung": Tissue((-920, -650), 40),
    "fat": Tissue((-125, -80), 10),
    "skin": Tissue((-20, 60), 10),
    "gas": Tissue((-1024, -900), 10),
    "calcification": Tissue((200, 1200), 100),
    "thrombus": Tissue((20, 70), 5),
}

# Means in HU of what takes up contrast medium. "early" is a study of the pulmonary arteries or of the heart's right side.
PHASES: Mapping[str, Mapping[str, Range]] = {
    "none": {},
    "early": {
        "arteries": (50, 300),
        "right_heart": (200, 600),
        "pulmonary": (200, 600),
        "veins": (35, 250),
        "portal": (35, 70),
        "kidney": (40, 110),
        "spleen": (45, 100),
    },
    "arterial": {
        "arteries": (160, 500),
        "right_heart": (60, 350),
        "pulmonary": (80, 400),
        "veins": (35, 150),
        "portal": (40, 140),
        "kidney": (90, 220),
        "spleen": (70, 170),
        "liver": (45, 90),
        "pancreas": (50, 120),
        "myocardium": (80, 140),
        "thyroid": (90, 220),
        "bowel_wall": (40, 110),
    },
    "portal": {
        "arteries": (100, 210),
        "right_heart": (100, 200),
        "pulmonary": (100, 200),
        "veins": (90, 200),
        "portal": (120, 220),
        "kidney": (130, 240),
        "spleen": (90, 150),
        "liver": (75, 140),
        "pancreas": (60, 110),
        "myocardium": (80, 130),
        "thyroid": (90, 180),
        "bowel_wall": (50, 120),
        "muscle": (45, 80),
    },
    "late": {
        "arteries": (65, 130),
        "right_heart": (65, 130),
        "pulmonary": (65, 130),
        "veins": (65, 135),
        "portal": (70, 135),
        "kidney": (90, 220),
        "spleen": (70, 120),
        "liver": (60, 115),
        "pancreas": (50, 95),
        "myocardium": (60, 110),
        "muscle": (40, 75),
    },
}
# How often each phase is drawn: scans of the aorta are arterial or portal, but it lies in every chest and belly.
PHASE_CHANCES: Mapping[str, float] = {"none": 0.25, "early": 0.08, "arterial": 0.32, "portal": 0.25, "late": 0.1}

# Tissue by class name of TotalSegmentator; the first pattern that is found in the name counts.
CLASSES: tuple[tuple[str, str], ...] = (
    ("aorta", "arteries"),
    ("artery|brachiocephalic_trunk", "arteries"),
    ("portal_vein", "portal"),
    ("pulmonary_vein|atrial_appendage", "arteries"),
    ("vena|vein", "veins"),
    ("heart", "myocardium"),
    ("lung", "lung"),
    ("trachea", "gas"),
    ("liver", "liver"),
    ("spleen", "spleen"),
    ("cyst|bladder", "fluid"),
    ("kidney", "kidney"),
    ("pancreas", "pancreas"),
    ("adrenal", "adrenal"),
    ("thyroid", "thyroid"),
    ("stomach|bowel|duodenum|colon|esophagus", "bowel_wall"),
    ("spinal_cord", "cord"),
    ("brain", "brain"),
    ("cartilage", "cartilage"),
    ("vertebra|sacrum|rib|sternum|scapula|clavicula|humerus|femur|hip|skull", "spongy_bone"),
    ("gluteus|autochthon|iliopsoas|prostate", "muscle"),
)
# What has a filling.
HOLLOW = ("stomach", "small_bowel", "duodenum", "colon")


def tissue_of(name: str) -> str:
    """Tissue of a class; soft tissue like muscle where its name is not known."""
    if "gallbladder" in name:
        return "gallbladder"
    return next((tissue for pattern, tissue in CLASSES if re.search(pattern, name)), "muscle")
