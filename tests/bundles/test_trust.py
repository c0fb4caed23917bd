"""A bundle that is more than data is refused before anything of it runs; weights that are programs, too."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from stseg3d.bundle import (
    PLAN,
    UntrustedError,
    bundle_names,
    config_parser,
    find_bundle,
    load_network,
    open_bundle,
    read_bundle,
    read_weights,
    render_bundle,
    save_weights,
)
from stseg3d.cli import main
from stseg3d.machine.json_files import read_json
from tests.tiny import read_config

LINEAR = {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}
# Leaves a file behind wherever it is evaluated; CANARY becomes its path.
WRITE = "open('CANARY', 'w')"
CODE = "open('CANARY', 'w')"
LAMBDA = {"_target_": "monai.transforms.Lambda"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of a shipped bundle."""
    shutil.copytree(find_bundle("vertebrae_mr"), tmp_path / "bundle", ignore=shutil.ignore_patterns("docs", "logs", "stages"))
    return tmp_path / "bundle"


def edit(path: Path, /, **entries: Any) -> None:
    """Set entries of a JSON file, by id."""
    content = json.loads(path.read_text())
    for key, value in entries.items():
        *parents, last = key.split("#")
        holder = content
        for parent in parents:
            holder = holder[int(parent) if isinstance(holder, list) else parent]
        holder[last] = value
    path.write_text(json.dumps(content))


def attack(bundle: Path, entry: Any, name: str = "inference.json", /, **more: Any) -> None:
    """Have the network of a config need ``entry`` to be made."""
    path = bundle / "configs" / name
    text = json.dumps({"evil": entry, **more}).replace("CANARY", str(bundle / "canary"))
    edit(path, **{"network_def#_requires_": ["@evil"]}, **json.loads(text))


# --- what really runs ---------------------------------------------------------

# An entry that the network needs, and further ones; each leaves the canary behind if it is let in, which a test proves by letting it in.
ATTACKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "open": (f"${WRITE}", {}),
    "import": ("$os.system('touch CANARY')", {"imports": ["$import os"]}),
    "import anywhere": ("$system('touch CANARY')", {"displayable_configs": {"deep": ["$from os import system"]}}),
    "dunder import": ("$__import__('os').system('touch CANARY')", {}),
    "subclasses of object": (
        "$[c for c in ().__class__.__base__.__subclasses__() if 'Popen' in str(c) and c(['touch', 'CANARY']).wait() + 1]",
        {},
    ),
    "frame of a generator": ("$(x for x in [1]).gi_frame.f_builtins['open']('CANARY', 'w')", {}),
    "module behind a module": ("$monai.data.utils.os.system('touch CANARY')", {}),
    "code in a string that a reference breaks up": ("""$'@f{open("CANARY", "w")}'""", {"f": "x"}),
    "builtin whose name a comprehension binds": (f"$[[0 for eval in []], max([{CODE!r}], key=eval)]", {}),
    "builtin whose name a lambda binds": (f"$[lambda exec: 0, sorted([{CODE!r}], key=exec)]", {}),
    "builtin whose name a tuple binds": (f"$[[0 for (exec, x) in []], max([{CODE!r}], key=exec)]", {}),
    "builtin whose name a starred target binds": (f"$[[0 for (x, *eval) in []], max([{CODE!r}], key=eval)]", {}),
    "builtin called by a harmless function": (
        "$[[0 for open in []], monai.transforms.transform.apply_transform(open, ('CANARY', 'w'), False, True)]",
        {},
    ),
    "builtin inside a component": (
        {"_target_": "Compose", "transforms": f"$[monai.transforms.Lambda(func=eval) for eval in []] + [max([{CODE!r}], key=eval)]"},
        {},
    ),
    "target": ({"_target_": "os.system", "command": "touch CANARY"}, {}),
    "target among the builtins": ({"_target_": "open", "file": "CANARY", "mode": "w"}, {}),
    "target behind MONAI's modules": ({"_target_": "monai.data.utils.os.system", "command": "touch CANARY"}, {}),
    "target behind our own package": ({"_target_": "stseg3d.machine.files.os.system", "command": "touch CANARY"}, {}),
    "target is an expression": ({"_target_": "$open", "file": "CANARY", "mode": "w"}, {}),
    "target is a macro": ({"_target_": "%name", "command": "touch CANARY"}, {"name": "os.system"}),
    "requirement": (LINEAR | {"_requires_": [f"${WRITE}"]}, {}),
    "disabled by an expression": (LINEAR | {"_disabled_": f"${WRITE} and False"}, {}),
    "MONAI's runner of commands": ({"_target_": "run_cmd", "cmd_list": ["touch", "CANARY"]}, {}),
    "reader by any name": ({"_target_": "LoadImage", "reader": "subprocess.getoutput", "cmd": "touch CANARY"}, {}),
}
# These would do what they say, but slowly, to a whole process, or to another machine.
ONLY_REFUSED: dict[str, tuple[Any, dict[str, Any]]] = {
    "debugger": (LINEAR | {"_mode_": "debug"}, {}),
    "pickle": ("$torch.load('CANARY', weights_only=False)", {}),
    "assignment by a comprehension's target": ("$[0 for torch.tensor in [lambda *a, **k: 7]]", {}),
    "download by a positional argument": (
        "$monai.networks.nets.DenseNet121(2, 3, 2, 64, 32, (6, 12, 24, 16), True)",
        {},
    ),
    "download without an argument": (
        {"_target_": "monai.networks.nets.resnet.get_pretrained_resnet_medicalnet", "resnet_depth": 18},
        {},
    ),
    "download by a second function": (
        "$monai.transforms.transform.apply_transform(monai.networks.nets.DenseNet121, (2, 3, 2, 64, 32, (6, 12, 24, 16), True))",
        {},
    ),
    "another file, by a key that is a path": ({"/elsewhere/secret.json": {"child": "%#x"}}, {}),
    "another file": ("%CANARY.json#x", {}),
    "another bundle": ({"_target_": "monai.bundle.run", "config_file": "CANARY.json"}, {}),
    "own loader, with trust": ({"_target_": "stseg3d.inference.segment.Segmenter", "bundle": "CANARY", "trust": True}, {}),
    "no Python": ("$1 +", {}),
    "a reference to nothing": ("@####nowhere", {}),
    "nothing but a number": (1, {}),
}
ALL = ATTACKS | ONLY_REFUSED


@pytest.mark.parametrize("name", ALL)
def test_an_attack_in_a_config_is_refused_before_anything_runs(name: str, bundle: Path) -> None:
    entry, more = ALL[name]
    attack(bundle, entry, **more)
    with pytest.raises(UntrustedError) as caught:
        load_network(bundle)
    message = str(caught.value)
    assert not (bundle / "canary").exists()
    assert message.startswith(f"bundle {bundle} must be data alone to be run without trust, but configs/inference.json differs from")
    assert "--trust" in message
    assert len(message.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ATTACKS)
def test_the_attacks_are_real(name: str, bundle: Path) -> None:
    """With trust each of them does what it came for, so that a refusal means something."""
    entry, more = ATTACKS[name]
    attack(bundle, entry, **more)
    with suppress(Exception):  # some fail afterwards
        read_config(bundle, trust=True).get_parsed_content("network_def")
    assert (bundle / "canary").exists()


def test_a_message_names_file_and_entry(bundle: Path) -> None:
    edit(bundle / "configs" / "evaluate.json", run=["$@validate#evaluator.run(2)"])
    what = "configs/evaluate.json differs from what plan.json renders to, first at 'run#0'"
    advice = "a bundle is a program: if you would run one from where it came, give --trust (in Python trust=True)"
    with pytest.raises(UntrustedError) as caught:
        load_network(bundle)
    assert str(caught.value) == f"bundle {bundle} must be data alone to be run without trust, but {what}; {advice}"


def test_a_bundle_without_a_plan_needs_trust(bundle: Path) -> None:
    (bundle / PLAN).unlink()
    with pytest.raises(UntrustedError, match=r"but it has no configs/plan\.json"):
        load_network(bundle)
    load_network(bundle, trust=True)


@pytest.mark.parametrize(
    "name", ["inference.json", "train.json", "evaluate.json", "train_rough.json", "multi_gpu_train.json", "logging.conf"]
)
def test_one_more_space_in_any_file_is_seen(name: str, bundle: Path) -> None:
    path = bundle / "configs" / name
    path.write_text(path.read_text() + " ")
    with pytest.raises(UntrustedError, match=name):
        load_network(bundle)


@pytest.mark.parametrize("name", ["inference.yaml", "train.yml", "other.json", "more/x.json", "x.PY", "logging.ini"])
def test_a_file_that_is_not_rendered_is_refused(name: str, bundle: Path) -> None:
    path = bundle / "configs" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("network_def: $open('x')")
    with pytest.raises(UntrustedError, match=rf"but it has configs/{name}, which is not rendered from plan\.json"):
        load_network(bundle)
    load_network(bundle, trust=True)


@pytest.mark.parametrize("what", ["configs", "configs/inference.json", "configs/plan.json"])
def test_a_link_is_refused(what: str, bundle: Path, tmp_path: Path) -> None:
    (bundle / what).rename(tmp_path / "elsewhere")
    (bundle / what).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UntrustedError, match=rf"but {what} is a link"):
        load_network(bundle)


def test_a_folder_in_place_of_a_config_is_no_config(bundle: Path) -> None:
    (bundle / "configs/inference.json").unlink()
    (bundle / "configs/inference.json").mkdir()
    assert read_bundle(bundle).stale == ("inference.json",)
    load_network(bundle)  # as rendered in memory


@pytest.mark.parametrize("name", ["../other.json", "/etc/hosts.json", "metadata.json", "plan.json", "nothing.json"])
def test_only_configs_of_the_bundle_are_read(name: str, bundle: Path) -> None:
    (bundle / "other.json").write_text("{}")
    with pytest.raises(ValueError, match=r"must be a config of the bundle, got none"):
        read_config(bundle, name)


@pytest.mark.parametrize("version", ["$__import__('os')", "%x.json#y"])
def test_metadata_hold_no_code(version: str, bundle: Path) -> None:
    edit(bundle / "configs/metadata.json", version=version)
    with pytest.raises(UntrustedError, match=r"but metadata\.json#version holds"):
        load_network(bundle)
    edit(bundle / "configs/metadata.json", version="1.0.0", x={"_target_": "os.system"})
    with pytest.raises(UntrustedError, match=r"but metadata\.json#x has the entry '_target_'"):
        load_network(bundle)


# --- plans that are more than data ---------------------------------------------------

PLANS: dict[str, tuple[dict[str, Any], str]] = {
    "expression": ({"rough#network#norm": "$__import__('os').system('touch CANARY')"}, "rough#network#norm holds"),
    "reference": ({"fine#network#act": ["@evil"]}, "fine#network#act#0 holds"),
    "macro": ({"fine#network#act": "%CANARY.json#x"}, "fine#network#act holds"),
    "target": ({"fine#network#act": ["PRELU", {"_target_": "os.system"}]}, "fine#network#act#1 has the entry '_target_'"),
    "mode": ({"fine#network#act": ["PRELU", {"_mode_": "debug"}]}, "has the entry '_mode_'"),
    "path": ({"fine#network#act": ["PRELU", {"/etc/x.json": 1}]}, "has the entry '/etc/x.json'"),
    "id": ({"fine#network#act": ["PRELU", {"network_def#rough": 1}]}, "has the entry 'network_def#rough'"),
    "network by another name": ({"fine#network": {"name": "os.system", "command": "touch CANARY"}}, "fine#network names 'os.system'"),
    "transform by another name": ({"normalization": [{"name": "monai.transforms.Lambda", "func": "x"}]}, "normalization names"),
    "loss by another name": ({"training#loss": {"name": "os.system"}}, "training#loss names 'os.system'"),
    "member of an ensemble": (
        {"fine#network": {"name": "MeanEnsemble", "networks": [{"name": "os.system", "command": "touch CANARY"}]}},
        "fine#network names 'os.system'",
    ),
    "class": ({"classes": ["background", "$1"]}, "classes#1 holds"),
    "override by an expression": (
        {"overrides": {"inference.json": {"device": "$open('CANARY', 'w')"}}},
        "overrides#inference.json#device puts",
    ),
    "override of a path": ({"overrides": {"inference.json": {"handlers#0#load_path": "/etc/passwd"}}}, "handlers#0#load_path puts"),
    "override of a target": (
        {"overrides": {"inference.json": {"evaluator#_target_": "os.system"}}},
        "overrides#inference.json#evaluator#_target_ puts",
    ),
    "override by an object": ({"overrides": {"train.json": {"train": {"_target_": "os.system"}}}}, "overrides#train.json#train puts"),
    "override of imports": ({"overrides": {"inference.json": {"imports": ["$import os"]}}}, "overrides#inference.json#imports puts"),
    "override of another kind": ({"overrides": {"train.json": {"fold": True}}}, "overrides#train.json#fold puts true"),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_with_code_needs_trust_even_if_all_is_rendered_from_it(name: str, bundle: Path) -> None:
    entries, reason = PLANS[name]
    edit(bundle / PLAN, **json.loads(json.dumps(entries).replace("CANARY", str(bundle / "canary"))))
    render_bundle(bundle)
    with pytest.raises(UntrustedError) as caught:
        load_network(bundle)
    assert reason in str(caught.value)
    assert not (bundle / "canary").exists()
    assert read_bundle(bundle, trust=True).plan is not None


@pytest.mark.parametrize(
    ("entries", "rule"),
    [
        ({"rough#network#pretrained": True}, r"rough#network must have arguments that a plan may give to UNet .*, got 'pretrained'"),
        ({"rough#network#name": "DenseNet121"}, r"rough#network must be one of UNet, .*, got 'DenseNet121'"),
        ({"normalization": [{"name": "Lambda", "func": "x"}]}, r"normalization must be one of .*, got 'Lambda'"),
        ({"normalization#0#dtype": "x"}, r"must have arguments that a plan may give to NormalizeIntensity"),
        ({"training#optimizer": {"name": "AdamW", "params": 1}}, r"training#optimizer must have arguments"),
        ({"overrides": {"../x.json": {}}}, r"overrides must be of the files inference\.json, .*, got '\.\./x\.json'"),
        ({"overrides": {"train.json": {"nothing": 1}}}, r"must name an entry that the config has, got 'nothing'"),
        ({"_target_": "os.system"}, r"plan\.json has no entry '_target_'"),
        ({"image#_target_": "os.system"}, r"plan\.json#image has no entry '_target_'"),
    ],
)
def test_what_a_plan_may_not_say_is_no_plan_even_with_trust(entries: dict[str, Any], rule: str, bundle: Path) -> None:
    edit(bundle / PLAN, **entries)
    for trust in (False, True):
        with pytest.raises(ValueError, match=rule):
            load_network(bundle, trust=trust)


@pytest.mark.parametrize("text", ["", "[", "[]", "3", '{"a": 1, "a": 2}', "[" * 100_000, '{"a":' * 3000 + "1" + "}" * 3000, "\ud800x"])
@pytest.mark.parametrize("name", ["plan.json", "metadata.json", "inference.json"])
def test_broken_files_get_a_sentence(name: str, text: str, bundle: Path) -> None:
    (bundle / "configs" / name).write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        load_network(bundle)


def test_a_plan_nested_without_end_is_no_plan(bundle: Path) -> None:
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    edit(bundle / PLAN, **{"fine#network#act": deep})
    with pytest.raises(ValueError, match=r"plan\.json must be JSON: it is nested more than 32 deep"):
        load_network(bundle, trust=True)


def test_a_key_twice_is_no_plan(bundle: Path) -> None:
    text = (bundle / PLAN).read_text()
    (bundle / PLAN).write_text(text.replace("{", '{\n    "image": {"channels": 3},', 1))
    with pytest.raises(ValueError, match=r"plan\.json must be JSON: the key 'image' stands twice"):
        load_network(bundle)


# --- between check and use --------------------------------------------------------------


def test_what_is_run_is_what_was_checked_whatever_becomes_of_the_files(bundle: Path) -> None:
    opened = open_bundle(bundle)
    attack(bundle, f"${WRITE}")
    (bundle / PLAN).write_text("{}")
    config_parser(opened, ["inference.json"]).get_parsed_content("network_def")
    assert not (bundle / "canary").exists()


def test_training_runs_no_file_of_the_bundle(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stseg3d.training import run

    seen: list[str] = []
    monkeypatch.setattr(run, "run_bundle", lambda config_file, **_: seen.extend(config_file))
    monkeypatch.setattr(run, "check_task", lambda _: None)
    monkeypatch.setattr(run, "check_policy", lambda _: None)
    (tmp_path / "a.nii").touch()
    case = {"image": "a.nii", "label": "a.nii"}
    (tmp_path / "data.json").write_text(json.dumps({"training": [case], "validation": [case]}))
    with pytest.raises(ValueError, match="must reach a validation score"):
        run.train_bundle(bundle, tmp_path / "data.json")
    assert [Path(path).name for path in seen] == ["train.json", "train_rough.json"]
    assert not [path for path in seen if str(bundle) in path]


# --- what passes ---------------------------------------------------------------


@pytest.mark.parametrize("name", bundle_names())
def test_embedded_bundles_are_what_their_plans_render_to(name: str) -> None:
    opened = read_bundle(find_bundle(name))
    assert opened.stale == ()
    assert opened.plan is not None
    assert not [*opened.plan.code()]


def test_a_user_edits_the_plan_and_the_next_command_renders(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(bundle / PLAN, **{"policy#margin_mm": 9.0, "overrides": {"train.json": {"optimizer#weight_decay": 0.5}}})
    _, parser = load_network(bundle)
    assert parser.get_parsed_content("policy").margin_mm == 9.0
    assert json.loads((bundle / "configs/train.json").read_text())["optimizer"]["weight_decay"] == 0.5
    assert caplog.messages == [f"{bundle}: rendered anew from plan.json: inference.json, train.json"]
    assert read_bundle(bundle).stale == ()


def test_a_missing_config_is_rendered(bundle: Path) -> None:
    (bundle / "configs/inference.json").unlink()
    load_network(find_bundle(bundle))
    assert read_bundle(bundle).stale == ()


def test_a_bundle_that_cannot_be_written_runs_as_its_plan_says(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stseg3d.bundle import rendering

    def refuse(*_: object) -> None:
        raise PermissionError

    edit(bundle / PLAN, **{"policy#margin_mm": 9.0})
    monkeypatch.setattr(rendering, "_write", refuse)
    assert load_network(bundle)[1].get_parsed_content("policy").margin_mm == 9.0


def test_with_trust_configs_that_were_edited_run_as_they_are(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    attack(bundle, f"${WRITE}.close()")
    load_network(bundle, trust=True)
    assert (bundle / "canary").exists()
    assert caplog.messages == [f"{bundle}: configs are run as they are, and differ from plan.json: inference.json"]


def test_with_trust_a_network_of_ones_own_runs(bundle: Path) -> None:
    network = {"name": "monai.networks.nets.HighResNet", "spatial_dims": 3}
    edit(bundle / PLAN, **{"fine#network": network})
    with pytest.raises(UntrustedError, match=r"fine#network names 'monai\.networks\.nets\.HighResNet'"):
        read_config(bundle)
    made = read_config(bundle, trust=True).get_parsed_content("network_def")
    assert type(made.fine).__name__ == "HighResNet"


def test_what_the_caller_sets_is_the_callers_own(bundle: Path) -> None:
    _, parser = load_network(bundle, overrides={"output_dir": "$str(type(1))"})
    assert parser.get_parsed_content("output_dir") == "<class 'int'>"


def test_rendering_keeps_what_was_edited_by_hand(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle / "configs/train.json", seed=7)
    assert main(["plan", "--render", str(bundle)]) == 0
    told = capsys.readouterr()
    assert told.out == f"{bundle / 'configs/train.json'}\n"
    assert "train.json was edited by hand: it is kept as train.json.edited" in told.err
    assert json.loads((bundle / "configs/train.json.edited").read_text())["seed"] == 7
    load_network(bundle)
    assert main(["plan", "--render", str(bundle)]) == 0
    assert "the configs are what plan.json renders to" in capsys.readouterr().err


def test_an_embedded_bundle_is_not_rendered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--render", "nuclei"]) == 2
    assert "copy" in capsys.readouterr().err


@pytest.mark.slow
def test_nothing_is_imported_to_find_out(bundle: Path, tmp_path: Path) -> None:
    """A module of the attacker's on Python's path stays asleep."""
    (tmp_path / "sleeper.py").write_text(f"open({str(tmp_path / 'awake')!r}, 'w')")
    attack(bundle, {"_target_": "sleeper.Network"}, imports=["$from sleeper import x", "$import sleeper"])
    code = f"from pathlib import Path; from stseg3d.bundle import load_network; load_network(Path({str(bundle)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "UntrustedError" in done.stderr
    assert not (tmp_path / "awake").exists()


def test_reading_a_bundle_needs_neither_torch_nor_monai() -> None:
    code = "import sys; from stseg3d.bundle import find_bundle, read_bundle; read_bundle(find_bundle('nuclei'));"
    code += "sys.exit(any(name in sys.modules for name in ('torch', 'monai')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the command line ------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("segment", "scan.nii.gz", "--bundle", "BUNDLE", "-o", "out"),
        ("train", "BUNDLE", "--data", "data.json", "--overwrite"),
        ("compare", "BUNDLE", "--data", "data.json", "-o", "out"),
        ("calibrate", "BUNDLE", "--data", "data.json"),
    ],
    ids=lambda command: command[0],
)
def test_every_command_that_loads_a_bundle_refuses(command, bundle, tmp_path, monkeypatch, write_nifti, rng, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_nifti("scan.nii.gz", rng.random((4, 4, 4), dtype="float32"))
    case = {"image": "scan.nii.gz", "label": "scan.nii.gz"}
    (tmp_path / "data.json").write_text(json.dumps({"training": [case], "validation": [case]}))
    attack(bundle, f"${WRITE}", "train.json")
    assert main([str(bundle) if part == "BUNDLE" else part for part in command]) == 2
    assert "configs/train.json differs from what plan.json renders to, first at 'evil'" in capsys.readouterr().err
    assert not (bundle / "canary").exists()
    assert not (tmp_path / "out").exists()


def test_the_plan_is_read_as_data() -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        read_json(b'{"a": NaN}', "x")
    with pytest.raises(ValueError, match="not a finite number"):
        read_json(b'{"a": 1e999}', "x")
    assert read_json(b'\xef\xbb\xbf{"a": 1}', "x") == {"a": 1}


# --- weights ------------------------------------------------------------------------


class Program:
    """Runs a command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_that_are_a_program_are_refused(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"weight": Program(f"touch {tmp_path / 'canary'}")}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"model\.pt must be .* torch: it holds more than tensors, and would call \w+\.system$"):
        read_weights(path)
    path.write_bytes(pickle.dumps(Program(f"touch {tmp_path / 'canary'}")))
    with pytest.raises(ValueError, match=r"model\.pt must be a state dict saved by torch: "):
        read_weights(path)
    assert not (tmp_path / "canary").exists()


def test_a_whole_network_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"it holds more than tensors, and would call torch\.nn\.modules\.linear\.Linear"):
        read_weights(tmp_path / "model.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "model.ts"))
    with pytest.raises(ValueError, match=r"model\.ts must be a state dict saved by torch, got a TorchScript archive, which is a program$"):
        read_weights(tmp_path / "model.ts")


def test_weights_that_unpack_to_more_than_they_weigh_are_refused(tmp_path: Path) -> None:
    save_weights({"weight": torch.zeros(1_000_000)}, tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt") as there, zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for entry in there.infolist():
            bomb.writestr(entry.filename, there.read(entry))
    with pytest.raises(ValueError, match=r"bomb\.pt must not be compressed, got 20\d{5} bytes in a file of \d{4}$"):
        read_weights(tmp_path / "bomb.pt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}q\x00.", b"\x80\x04.", pickle.dumps({"a": 1}), b"\x89HDF\r\n"])
def test_foreign_weights_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"^weights .*model\.pt must be a (flat )?state dict"):
        read_weights(tmp_path / "model.pt")


def test_damaged_weights_are_refused_or_read(tmp_path: Path, rng: Any) -> None:
    save_weights({"weight": torch.ones(50), "bias": torch.zeros(3)}, tmp_path / "model.pt")
    sound = (tmp_path / "model.pt").read_bytes()
    for n in range(150):
        damaged = bytearray(sound[: rng.integers(len(sound))] if n % 3 == 0 else sound)
        for at in rng.integers(len(damaged) or 1, size=3 if n % 3 else 0):
            damaged[at] = rng.integers(256)
        (tmp_path / "damaged.pt").write_bytes(damaged)
        try:
            assert all(isinstance(tensor, torch.Tensor) for tensor in read_weights(tmp_path / "damaged.pt").values())
        except ValueError as error:
            assert "damaged.pt must" in str(error)  # noqa: PT017  # either outcome will do
