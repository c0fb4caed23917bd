"""Rendering: the configs that MONAI reads, made from a bundle's plan."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from stseg3d.plan.ids import find_entry
from stseg3d.plan.inference_config import Config, evaluate_config, inference_config
from stseg3d.plan.json_values import json_text
from stseg3d.plan.plan import Plan
from stseg3d.plan.train_config import multi_gpu_config, train_config, train_rough_config

MARK = "rendered_from_plan"  # entry or comment with a digest of all other lines, which shows whether a file was edited by hand
LOGGING = """\
[loggers]
keys=root

[handlers]
keys=consoleHandler

[formatters]
keys=fullFormatter

[logger_root]
level=WARNING
handlers=consoleHandler

[handler_consoleHandler]
class=StreamHandler
level=WARNING
formatter=fullFormatter
args=(sys.stderr,)

[formatter_fullFormatter]
format=%(asctime)s - %(name)s - %(levelname)s - %(message)s
"""
_MARKED = re.compile(rf'^(?:    "{MARK}": "(\w+)",|# {MARK} (\w+))\n', re.MULTILINE)


def render(plan: Plan) -> dict[str, str]:
    """Text of each config, by file name, complete in itself, as MONAI's own loaders need it.

    Raises:
        ValueError: If ``overrides`` names a file or an entry that does not exist.
    """
    made = configs(plan)
    for name, entries in plan.overrides.items():
        if name not in made:
            msg = f"overrides must be of the files {', '.join(made)}, got {name!r}"
            raise ValueError(msg)
        for key, value in entries.items():
            holder, last = find_entry(made[name], key, f"overrides#{name} must name an entry that the config has, got {key!r}")
            holder[last] = value
    texts = {name: json_text(config) for name, config in made.items()}
    marked = {name: text.replace("{", f'{{\n    "{MARK}": "{_digest(text)}",', 1) for name, text in texts.items()}
    return marked | {"logging.conf": f"# {MARK} {_digest(LOGGING)}\n{LOGGING}"}


def configs(plan: Plan) -> dict[str, Config]:
    """Content of each config, by file name, without overrides."""
    return {
        "inference.json": inference_config(plan),
        "train.json": train_config(plan),
        "evaluate.json": evaluate_config(plan),
        **({"train_rough.json": train_rough_config(plan)} if plan.rough else {}),
        "multi_gpu_train.json": multi_gpu_config(),
    }


def is_intact(text: str) -> bool:
    """Whether a text was rendered from a plan, this one or another, and not edited since."""
    found = _MARKED.search(text)
    return found is not None and (found[1] or found[2]) == _digest(text)


def code_in_overrides(plan: Plan) -> Iterator[str]:
    """Overrides that do more than replace a number or a switch by another, so that the plan needs trust."""
    made = configs(plan) if plan.overrides else {}
    for name, entries in plan.overrides.items():
        for key, value in entries.items():
            holder, last = find_entry(made.get(name, {}), key, f"overrides#{name} must name an entry that the config has, got {key!r}")
            # Comparing types is not enough where the path leads through an entry that MONAI acts on, such as `_mode_`.
            if any(part.startswith("_") for part in key.split("#")) or _kind(value) is None or _kind(value) != _kind(holder[last]):
                yield f"overrides#{name}#{key} puts {json.dumps(value)[:60]} in the place of {json.dumps(holder[last])[:60]}"


def with_formats(metadata: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Content of a bundle's ``metadata.json``, with the networks' inputs and outputs as in the plan."""
    found: dict[str, Any] = json.loads(json.dumps(metadata))
    for entry, name in (("network_data_format", "fine"), ("rough_data_format", "rough")):
        stage = getattr(plan, name)
        if stage is None:
            continue
        channels = plan.image.channels + int(stage.rough_channel)
        for kind, count in (("inputs", channels), ("outputs", plan.kinds(name))):
            for tensor in found.get(entry, {}).get(kind, {}).values():
                tensor |= {"num_channels": count, "spatial_shape": list(stage.size)}
                if kind == "inputs" and len(tensor.get("channel_def", {})) != count:
                    named = tensor.get("channel_def", {})
                    names = {str(n): named.get(str(n), "image") for n in range(plan.image.channels)}
                    tensor["channel_def"] = names | ({str(plan.image.channels): "rough probability"} if stage.rough_channel else {})
    return found


def _kind(value: Any) -> str | None:
    """Kind of a number, a switch, or a list of one kind; None for anything else."""
    if isinstance(value, bool):
        return "switch"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, list) and value and len(kinds := {_kind(item) for item in value}) == 1:
        kind = kinds.pop()
        return kind and f"{kind}s"
    return None


def _digest(text: str) -> str:
    """Digest of a text without the mark."""
    return sha256(_MARKED.sub("", text, count=1).encode()).hexdigest()[:16]
