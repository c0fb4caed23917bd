"""Record of how a bundle's weights were trained to see images: a plan changed since then would give wrong labels in silence."""

from __future__ import annotations

import json
from pathlib import Path

from stseg3d.bundle.files import WEIGHTS, weights_sha256
from stseg3d.bundle.trust import first_difference
from stseg3d.bundle_folders import PLAN
from stseg3d.machine.files import atomic_write_text
from stseg3d.machine.json_files import read_json
from stseg3d.plan import Plan, json_text

TRAINED = WEIGHTS.with_name("trained.json")


def remember_trained(bundle: Path, plan: Plan) -> Path:
    """Record that the bundle's weights were trained with a plan."""
    return atomic_write_text(bundle / TRAINED, json_text({"weights_sha256": weights_sha256(bundle), "sees": plan.seen_by(*plan.stages)}))


def ensure_trained_for(bundle: Path, plan: Plan, *stages: str) -> None:
    """Refuse weights, of all stages or some, that were trained to see images in another way than the plan says now.

    Weights without a record pass.

    Raises:
        ValueError: If an entry of the plan has changed; the message names it.
    """
    path = bundle / TRAINED
    record = read_json(path.read_bytes(), str(path)) if path.is_file() else {}
    if not isinstance(record, dict) or record.get("weights_sha256") != weights_sha256(bundle) or not isinstance(record.get("sees"), dict):
        return
    now = json.loads(json.dumps(plan.seen_by(*(stages or plan.stages))))
    entry = first_difference({key: value for key, value in record["sees"].items() if key in now}, now)
    if entry:
        msg = f"{bundle / PLAN}: {entry} must be what the weights were trained with, see {path}; set it back, or train anew"
        raise ValueError(msg)
