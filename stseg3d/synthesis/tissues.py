"""How bright tissues are in CT, by phase of the contrast medium, and which tissue each class of a label map is.

Ranges hold the means of patients, not of voxels. They are drawn around what is published and are wider than any one study's, by eye: a
network that has seen too much is better prepared than one that has seen too little (Billot et al., *SynthSeg*, Medical Image Analysis 2023,
86:102789). Published are:

* unenhanced organs, muscle, fat and blood: Lamba et al., *CT Hounsfield numbers of soft tissues on unenhanced abdominal CT scans*,
  AJR 2014, 203:1013-1020, https://pmc.ncbi.nlm.nih.gov/articles/PMC5015439, which also says how much two scanners differ;
* enhanced blood and organs: Bae, *Intravenous contrast medium administration and scan timing at CT*, Radiology 2010, 256:32-61;
* spongy bone: Pickhardt et al., *Opportunistic screening for osteoporosis using abdominal CT*, Ann Intern Med 2013, 158:588-595;
* cortical bone, lung and bowel contents: textbooks, looked at beside the scans s0002 and s0003 of TotalSegmentator.

The phantoms are older and keep ranges of their own, after textbooks: what was trained on them can be trained again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

Range = tuple[float, float]


class Tissue(NamedTuple):
    """How much a tissue varies inside a patient, and its mean from patient to patient, in HU; a phase not given is as without contrast."""

    texture_hu: float
    none: Range
    early: Range | None = None
    arterial: Range | None = None
    portal: Range | None = None
    late: Range | None = None

    def mean_hu(self, phase: str) -> Range:
        """Range of its mean in a phase of the contrast medium."""
        return getattr(self, phase) or self.none


# "early" is a study of the pulmonary arteries or of the heart's right side.
TISSUES: Mapping[str, Tissue] = {
    "arteries": Tissue(3, (25, 60), early=(50, 300), arterial=(160, 500), portal=(100, 210), late=(65, 130)),
    "veins": Tissue(4, (25, 60), early=(35, 250), arterial=(35, 150), portal=(90, 200), late=(65, 135)),
    "portal": Tissue(4, (25, 60), early=(35, 70), arterial=(40, 140), portal=(120, 220), late=(70, 135)),
    "right_heart": Tissue(4, (25, 60), early=(200, 600), arterial=(60, 350), portal=(100, 200), late=(65, 130)),
    "pulmonary": Tissue(4, (25, 60), early=(200, 600), arterial=(80, 400), portal=(100, 200), late=(65, 130)),
    "myocardium": Tissue(5, (30, 65), arterial=(80, 140), portal=(80, 130), late=(60, 110)),
    "liver": Tissue(6, (20, 75), arterial=(45, 90), portal=(75, 140), late=(60, 115)),
    "spleen": Tissue(5, (35, 65), early=(45, 100), arterial=(70, 170), portal=(90, 150), late=(70, 120)),
    "kidney": Tissue(10, (20, 45), early=(40, 110), arterial=(90, 220), portal=(130, 240), late=(90, 220)),
    "pancreas": Tissue(14, (10, 55), arterial=(50, 120), portal=(60, 110), late=(50, 95)),
    "adrenal": Tissue(10, (-5, 45)),
    "thyroid": Tissue(10, (60, 140), arterial=(90, 220), portal=(90, 180)),
    "gallbladder": Tissue(3, (-5, 30)),
    "fluid": Tissue(4, (-10, 30)),
    "bowel_wall": Tissue(10, (20, 60), arterial=(40, 110), portal=(50, 120)),
    "muscle": Tissue(12, (25, 70), portal=(45, 80), late=(40, 75)),
    "brain": Tissue(8, (25, 50)),
    "cord": Tissue(6, (15, 50)),
    "cartilage": Tissue(40, (60, 180)),
    "spongy_bone": Tissue(60, (60, 330)),
    "cortical_bone": Tissue(120, (350, 1100)),
    "lung": Tissue(40, (-920, -650)),
    "fat": Tissue(10, (-125, -80)),
    "skin": Tissue(10, (-20, 60)),
    "gas": Tissue(10, (-1024, -900)),
    "calcification": Tissue(100, (200, 1200)),
    "thrombus": Tissue(5, (20, 70)),
}
# How often each phase is drawn: scans of the aorta are arterial or portal, but it lies in every chest and belly.
PHASE_CHANCES: Mapping[str, float] = {"none": 0.25, "early": 0.08, "arterial": 0.32, "portal": 0.25, "late": 0.1}

# Tissue by class name of TotalSegmentator; the first pattern that is found in the name counts.
CLASSES: tuple[tuple[str, str], ...] = (
    ("gallbladder", "gallbladder"),
    ("aorta|artery|brachiocephalic_trunk", "arteries"),
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
# Classes with a filling.
HOLLOW_CLASSES = ("stomach", "small_bowel", "duodenum", "colon")


def tissue_of(name: str) -> str:
    """Tissue of a class; soft tissue like muscle where its name is not known."""
    return next((tissue for pattern, tissue in CLASSES if re.search(pattern, name)), "muscle")


def draw_hu(rng: np.random.Generator) -> tuple[str, dict[str, float]]:
    """A random phase of the contrast medium, and the mean of each tissue in it."""
    phase = str(rng.choice(list(PHASE_CHANCES), p=list(PHASE_CHANCES.values())))
    hu = {name: rng.uniform(*tissue.mean_hu(phase)) + rng.normal(0, 4) for name, tissue in TISSUES.items()}
    if phase == "none":  # blood is blood
        blood = rng.uniform(*TISSUES["arteries"].none)
        hu |= {name: blood + rng.normal(0, 2) for name in ("arteries", "veins", "portal", "right_heart", "pulmonary")}
    return phase, hu


def draw_phantom_hu(rng: np.random.Generator) -> dict[str, float]:
    """HU of each tissue of a phantom, at a random time after the injection of contrast medium or without any."""
    phase = rng.choice(["none", "arterial", "venous"], p=[0.3, 0.4, 0.3])
    blood = rng.uniform(32, 52)
    if phase == "none":
        aorta = venous = pulmonary = portal = superior = blood
        kidney, liver, spleen = rng.uniform(26, 38), rng.uniform(25, 66), rng.uniform(40, 54)
    elif phase == "arterial":
        aorta, pulmonary, superior = rng.uniform(160, 420), rng.uniform(90, 480), rng.uniform(60, 650)
        venous, portal = rng.uniform(40, 110), rng.uniform(45, 140)
        kidney, liver, spleen = rng.uniform(80, 190), rng.uniform(50, 85), rng.uniform(80, 150)
    else:
        aorta = rng.uniform(90, 200)
        venous, pulmonary, portal, superior = aorta * rng.uniform(0.8, 1.15, size=4)
        kidney, liver, spleen = rng.uniform(130, 220), rng.uniform(75, 130), rng.uniform(95, 140)
    return {
        "fat": rng.uniform(-115, -90),
        "visceral": rng.uniform(-110, -75),
        "mediastinum": rng.uniform(-105, -10),
        "muscle": rng.uniform(45, 68),
        "lung": rng.uniform(-890, -780),
        "aorta": aorta,
        "wall": rng.uniform(35, 60),
        "thrombus": rng.uniform(28, 50),
        "left_heart": aorta * rng.uniform(0.92, 1.04),
        "right_heart": pulmonary * rng.uniform(0.9, 1.1),
        "pulmonary": pulmonary,
        "venous": venous,
        "superior": superior,
        "portal": portal,
        "myocardium": min(45 + 0.25 * aorta, 130),
        "kidney": kidney,
        "medulla": kidney * rng.uniform(0.7, 1.0),
        "liver": liver,
        "spleen": spleen,
        "pancreas": 35 + 0.3 * (spleen - 40),
        "bowel": rng.uniform(15, 50),
        "cartilage": rng.uniform(80, 130),
        "disc": rng.uniform(70, 105),
    }
