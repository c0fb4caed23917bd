"""Configs that call more than a segmentation needs are refused before anything of them runs; weights that are programs, too."""

from __future__ import annotations

import ast
import json
import pickle
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from stseg3d.bundle.allowed import PACKAGES, REFUSED, is_allowed, is_within
from stseg3d.bundle.expressions import find_calls, read_import

from stseg3d.bundle import (
    UntrustedError,
    bundle_names,
    ensure_trusted_bundle,
    find_bundle,
    load_network,
    read_config,
    read_weights,
    save_weights,
)
from stseg3d.cli import main
from tests.test_architecture import MODULES, dotted, imports, parse

LINEAR = {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}
# Leaves a file behind wherever it is evaluated; CANARY becomes its path.
WRITE = "open('CANARY', 'w')"
LAMBDA = {"_target_": "monai.transforms.Lambda"}


def write_bundle(folder: Path, config: dict[str, Any], metadata: dict[str, Any] | None = None) -> Path:
    (folder / "configs").mkdir(parents=True)
    text = json.dumps({"network_def": LINEAR} | config).replace("CANARY", str(folder / "canary"))
    (folder / "configs" / "inference.json").write_text(text)
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "0.0.1"} | (metadata or {})))
    save_weights(torch.nn.Linear(1, 1).state_dict(), folder / "models" / "model.pt")
    return folder


def network_needs(entry: Any, **more: Any) -> dict[str, Any]:
    """A config whose network cannot be made without making ``entry`` first."""
    return {"network_def": LINEAR | {"_requires_": ["@evil"]}, "evil": entry, **more}


# --- what really runs ---------------------------------------------------------

# Each leaves the canary behind if it is let in, which the test proves by letting it in.
ATTACKS: dict[str, tuple[dict[str, Any], str]] = {
    "open": (network_needs(f"${WRITE}"), "open"),
    "import of a module": (
        network_needs("$os.system('touch CANARY')", imports=["$import os"]),
        "an import of os",
    ),
    "import of a function": (
        network_needs("$system('touch CANARY')", imports=["$from os import system"]),
        "an import of os.system",
    ),
    "import under a name that is known": (
        network_needs("$len('touch CANARY')", imports=["$from os import system as len"]),
        "an import of os.system as len",
    ),
    "import anywhere": (
        network_needs("$system('touch CANARY')", displayable_configs={"deep": ["$from os import system"]}),
        "an import of os.system",
    ),
    "dunder import": (network_needs("$__import__('os').system('touch CANARY')"), "__import__"),
    "eval": (network_needs(f'$eval("{WRITE}")'), "eval"),
    "exec": (network_needs(f'$exec("{WRITE}")'), "exec"),
    "getattr": (network_needs("$getattr(torch, '_' + '_builtins__')['open']('CANARY', 'w')"), "getattr"),
    "subclasses of object": (
        network_needs("$[c for c in ().__class__.__base__.__subclasses__() if 'Popen' in str(c) and c(['touch', 'CANARY']).wait() + 1]"),
        ".__class__",
    ),
    "globals of a function": (
        network_needs(f"$monai.utils.set_determinism.__globals__['__builtins__']['{WRITE[:4]}']('CANARY', 'w')"),
        "monai.utils.set_determinism.__globals__",
    ),
    "frame of a generator": (
        network_needs("$(x for x in [1]).gi_frame.f_builtins['open']('CANARY', 'w')"),
        "gi_frame",
    ),
    "frame of a generator, called by another": (
        network_needs("$@call('CANARY')", call=LAMBDA | {"func": "$lambda p: (x for x in [1]).gi_frame.f_builtins['open'](p, 'w')"}),
        "()",
    ),
    "module of a module": (network_needs("$monai.data.utils.os.system('touch CANARY')"), "monai.data.utils.os.system"),
    "module of torch": (network_needs("$torch.os.system('touch CANARY')"), "torch.os.system"),
    "module behind a subscript": (network_needs("$[torch][0].os.system('touch CANARY')"), "torch"),
    "module behind a lambda": (network_needs("$(lambda t: t.os.system('touch CANARY'))(torch)"), "()"),
    "method of a path": (
        network_needs("$Path('CANARY').write_text('x')", imports=["$from pathlib import Path"]),
        ".write_text()",
    ),
    # MONAI writes `__local_refs['f']` for the reference, and what follows has become an f-string.
    "code in a string that a reference breaks up": (network_needs("""$'@f{open("CANARY", "w")}'""", f="x"), "open"),
    "walrus": (network_needs("$[o := open, o('CANARY', 'w')]"), "NamedExpr"),
    "comprehension": (network_needs("$[f('CANARY', 'w') for f in [open]]"), "f()"),
    "f-string": (network_needs("$f\"{open('CANARY', 'w')}\""), "open"),
    "default of a lambda": (network_needs("$(lambda o=open: o)()('CANARY', 'w')"), "open"),
    "decoy target": (
        network_needs({"_target_": "os.system", "command": "touch CANARY"}),
        "os.system",
    ),
    "target of subprocess": (
        network_needs({"_target_": "subprocess.check_call", "args": ["touch", "CANARY"]}),
        "subprocess.check_call",
    ),
    "target among the builtins": (network_needs({"_target_": "open", "file": "CANARY", "mode": "w"}), "open"),
    "target of builtins": (network_needs({"_target_": "builtins.open", "file": "CANARY", "mode": "w"}), "builtins.open"),
    "target behind MONAI's modules": (
        network_needs({"_target_": "monai.data.utils.os.system", "command": "touch CANARY"}),
        "monai.data.utils.os.system",
    ),
    "target behind an allowed package": (
        network_needs({"_target_": "monai.networks.nets.swin_unetr.np.savetxt", "fname": "CANARY", "X": [1]}),
        "monai.networks.nets.swin_unetr.np.savetxt",
    ),
    "target behind our own package": (
        network_needs({"_target_": "stseg3d.volumes.file.os.system", "command": "touch CANARY"}),
        "stseg3d.volumes.file.os.system",
    ),
    "target is an expression": (
        network_needs({"_target_": "$open", "file": "CANARY", "mode": "w"}),
        "whatever its _target_ comes to",
    ),
    "target is a reference": (
        network_needs({"_target_": "@name", "command": "touch CANARY"}, name="os.system"),
        "whatever its _target_ comes to",
    ),
    "target is a macro": (
        network_needs({"_target_": "%name", "command": "touch CANARY"}, name="os.system"),
        "os.system",
    ),
    "component is a macro": (
        {"network_def": LINEAR | {"_requires_": "%other"}, "other": {"_target_": "os.system", "command": "touch CANARY"}},
        "os.system",
    ),
    "requirement": ({"network_def": LINEAR | {"_requires_": [f"${WRITE}"]}}, "open"),
    "disabled by an expression": ({"network_def": LINEAR | {"_disabled_": f"${WRITE} and False"}}, "open"),
    "MONAI's runner of commands": (
        network_needs({"_target_": "run_cmd", "cmd_list": ["touch", "CANARY"]}),
        "monai.utils.misc.run_cmd",
    ),
    "reader by any name": (
        network_needs({"_target_": "LoadImage", "reader": "subprocess.getoutput", "cmd": "touch CANARY"}),
        "monai.transforms.io.array.LoadImage",
    ),
    "another bundle": (
        network_needs({"_target_": "monai.bundle.run", "config_file": "CANARY.json"}),
        "monai.bundle.run",
    ),
}
# Real in the sense that they would do what they say, but slow, interactive, or with more to set up than a file that appears.
ONLY_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "debugger": (network_needs(LINEAR | {"_mode_": "debug"}), "a debugger"),
    "breakpoint": (network_needs(LINEAR | {"_debug_": True}), "a debugger"),
    "mode is a reference": (network_needs(LINEAR | {"_mode_": "@mode"}, mode="debug"), "a debugger"),
    "pickle": (network_needs("$torch.load('CANARY', weights_only=False)"), "torch.load"),
    "download of weights": (network_needs({"_target_": "DenseNet121", "pretrained": True}), "DenseNet121 with pretrained"),
    "download of weights by default": (
        network_needs({"_target_": "EfficientNetBN", "model_name": "efficientnet-b0"}),
        "EfficientNetBN with pretrained",
    ),
    "download in an expression": (
        network_needs("$monai.networks.nets.DenseNet121(3, 1, 2, pretrained=True)"),
        "DenseNet121 with pretrained",
    ),
    "download of code": (network_needs({"_target_": "PerceptualLoss", "spatial_dims": 2}), "monai.losses.perceptual.PerceptualLoss"),
    "download": (network_needs({"_target_": "download_url", "url": "https://example.org"}), "monai.apps.utils.download_url"),
    "own loader of bundles": (
        network_needs({"_target_": "stseg3d.inference.segment.Segmenter", "bundle": "CANARY", "trust": True}),
        "stseg3d.inference.segment.Segmenter",
    ),
    "own loader of networks": (network_needs({"_target_": "stseg3d.bundle.load_network", "bundle": "x"}), "stseg3d.bundle.load_network"),
    "own command line": (network_needs({"_target_": "stseg3d.cli.main", "argv": ["demo"]}), "stseg3d.cli.main"),
    "own package as a program": (network_needs({"_target_": "stseg3d.__main__.x"}), "stseg3d.__main__.x"),
    "a file beside": (network_needs("%CANARY.json#x"), "the file"),
    "a file elsewhere": (network_needs({"x": ["%/etc/hosts.json"]}), "the file /etc/hosts.json"),
    "parent package of a name": (
        network_needs("$find_spec('evil.name')", imports=["$from importlib.util import find_spec"]),
        "importlib.util.find_spec",
    ),
    "parent package of a name, handed on": (
        network_needs(LAMBDA | {"func": "$find_spec"}, imports=["$from importlib.util import find_spec"]),
        "importlib.util.find_spec",
    ),
    "class method": (network_needs("$Path.cwd()", imports=["$from pathlib import Path"]), "pathlib.Path.cwd"),
    "rename": (network_needs("$Path('a').replace('b')", imports=["$from pathlib import Path"]), ".replace()"),
    "format string": (network_needs("$'{0.__class__}'.format(1)"), ".format()"),
    "two imports in one": (network_needs("$from os import path, system"), "more than one import"),
    "import and more": (network_needs("$import math; import os"), "more than one import"),
    "one name for two": (
        network_needs("$x(1)", imports=["$from pathlib import Path as x", "$from stseg3d.volumes import find_cases as x"]),
        "an import of stseg3d.volumes.find_cases",
    ),
    "a known name as a parameter": (network_needs("$(lambda torch: torch)"), "torch for something else"),
    "arguments out of sight": (network_needs("$torch.device(**@evil2)", evil2={}), "** arguments"),
    "no Python": (network_needs("$1 +"), "not a Python expression"),
    "a statement": (network_needs("$x = 1"), "not a Python expression"),
    "endless nesting": (network_needs("$" + "(" * 5000 + ")" * 5000), "not a Python expression"),
    "power": (network_needs("$9 ** 9 ** 9"), "Pow"),
    "a reference to nothing": (network_needs("@####nowhere"), "references that lead nowhere"),
}
ALL = ATTACKS | ONLY_REFUSED


@pytest.mark.parametrize("name", ALL)
def test_an_attack_is_refused_before_anything_runs(name: str, tmp_path: Path) -> None:
    config, call = ALL[name]
    bundle = write_bundle(tmp_path / "evil", config)
    with pytest.raises(UntrustedError) as caught:
        load_network(bundle)
    message = str(caught.value)
    assert not (bundle / "canary").exists()
    assert str(bundle) in message
    assert "inference.json" in message
    assert call in message.partition(", got ")[2]
    assert "--trust" in message
    assert len(message.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "another bundle"])
def test_the_attacks_are_real(name: str, tmp_path: Path) -> None:
    """Without the check each of them does what it came for, so that a refusal means something."""
    bundle = write_bundle(tmp_path / "evil", ATTACKS[name][0])
    with suppress(Exception):  # some fail afterwards
        read_config(bundle).get_parsed_content("network_def")
    assert (bundle / "canary").exists()


def test_there_are_enough_attacks() -> None:
    assert len(ALL) >= 25


def test_metadata_are_checked_as_well(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "evil", {}, {"version": "$__import__('os')"})
    with pytest.raises(UntrustedError, match=r"got __import__ in '_meta_#version'"):
        load_network(bundle)


def test_the_message_names_file_entry_and_call(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "evil", network_needs({"list": [1, {"_target_": "os.system"}]}, other="$open('x')"))
    with pytest.raises(UntrustedError) as caught:
        ensure_trusted_bundle(bundle)
    what = f"{bundle}: inference.json and metadata.json must call only what is known to compute, got os.system in 'evil#list#1'"
    advice = "a bundle is a program: if you would run one from where it came, give --trust (in Python trust=True)"
    assert str(caught.value) == f"{what} (and 1 more); {advice}"


def test_with_trust_it_runs(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "mine", network_needs(f"${WRITE}.close()"))
    network, _ = load_network(bundle, trust=True)
    assert isinstance(network, torch.nn.Linear)
    assert (bundle / "canary").exists()


def test_what_the_user_sets_is_the_users_own(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "mine", {"extra": 1})
    _, parser = load_network(bundle, overrides={"extra": "$str(type(1))"})
    assert parser.get_parsed_content("extra") == "<class 'int'>"


# --- what passes ---------------------------------------------------------------


@pytest.mark.parametrize(
    "configs",
    [(), ("train.json",), ("train.json", "train_rough.json"), ("train.json", "evaluate.json"), ("train.json", "multi_gpu_train.json")],
)
@pytest.mark.parametrize("name", bundle_names())
def test_embedded_bundles_pass(name: str, configs: tuple[str, ...]) -> None:
    ensure_trusted_bundle(find_bundle(name), *configs)


@pytest.mark.parametrize(
    "text",
    [
        "@a + '/models'",
        'f"{@a}/x"',
        "torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "[c.as_dict() for c in find_cases([@a])] if Path(@a).exists() else []",
        "lambda batch: [item['image'].meta for item in batch]",
        "monai.handlers.from_engine(['pred', 'label'])",
        "monai.utils.set_determinism(seed=0)",
        "@network.to(@device)",
        "@train#trainer.state.epoch",
        "torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())",
        "max(len(@a), 3) * 2 // 1 % 5",
        "find_spec('tensorboard') is None",
        "{k: v for k, v in zip(@a, range(3))}",
        "np.inf",
        "torch.float32",
        "dist.get_rank() > 0",
    ],
)
def test_expressions_that_compute_pass(text: str) -> None:
    from monai.bundle import ReferenceResolver

    known = ("from pathlib import Path", "from stseg3d.volumes import find_cases", "from importlib.util import find_spec")
    names = dict(read_import(one) for one in (*known, "import torch.distributed as dist"))  # type: ignore[arg-type]
    refs = dict.fromkeys(ReferenceResolver.match_refs_pattern(f"${text}"))
    assert find_calls(ReferenceResolver.update_refs_pattern(f"${text}", refs)[1:], names) == []


@pytest.mark.parametrize(
    "path", ["monai.networks.nets.UNet", "torch.nn.Conv3d", "torch.optim.AdamW", "stseg3d.ops.BoxPolicy", "monai.data.Dataset"]
)
def test_components_that_compute_pass(path: str) -> None:
    assert is_allowed(path)


OWN = [m for m in MODULES if is_within(dotted(m), PACKAGES) and not is_within(dotted(m), REFUSED)]
LOADERS = {"load_network", "read_config", "ConfigParser", "run_bundle", "find_bundle", "Segmenter", "train_bundle"}


@pytest.mark.parametrize("path", OWN, ids=dotted)
def test_what_is_allowed_of_our_own_cannot_run_another_program(path: Path) -> None:
    """A config that could name a loader of bundles with ``trust`` would get around the check."""
    tree = parse(path)
    modules = {name for name, _, _ in imports(tree)}
    assert not {m for m in modules if m.split(".")[0] in {"subprocess", "pickle", "runpy", "ctypes", "urllib", "socket"}}
    assert not {m for m in modules if is_within(m, ("monai.bundle", "monai.apps", "stseg3d.bundle.config"))}
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert not names & LOADERS


@pytest.mark.slow
def test_nothing_is_imported_to_find_out(tmp_path: Path) -> None:
    """A module of the attacker's on Python's path stays asleep."""
    (tmp_path / "sleeper.py").write_text(f"open({str(tmp_path / 'awake')!r}, 'w')")
    bundle = write_bundle(
        tmp_path / "evil", network_needs({"_target_": "sleeper.Network"}, imports=["$from sleeper import x", "$import sleeper"])
    )
    code = f"from pathlib import Path; from stseg3d.bundle import load_network; load_network(Path({str(bundle)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "UntrustedError" in done.stderr
    assert not (tmp_path / "awake").exists()


# --- the command line ------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("segment", "scan.nii.gz", "--bundle", "BUNDLE", "-o", "out"),
        ("train", "BUNDLE", "--data", "data.json"),
        ("compare", "BUNDLE", "--data", "data.json", "-o", "out"),
        ("calibrate", "BUNDLE", "--data", "data.json"),
    ],
    ids=lambda command: command[0],
)
def test_every_command_that_loads_a_bundle_refuses(command, tmp_path, monkeypatch, write_nifti, rng, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_nifti("scan.nii.gz", rng.random((4, 4, 4), dtype="float32"))
    case = {"image": "scan.nii.gz", "label": "scan.nii.gz"}
    (tmp_path / "data.json").write_text(json.dumps({"training": [case], "validation": [case]}))
    bundle = write_bundle(tmp_path / "evil", network_needs(f"${WRITE}"))
    assert main([str(bundle) if part == "BUNDLE" else part for part in command]) == 2
    assert "must call only what is known to compute, got open in 'evil'" in capsys.readouterr().err
    assert not (bundle / "canary").exists()
    assert not (tmp_path / "out").exists()


def test_only_what_is_loaded_is_checked(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", {})
    (bundle / "configs" / "train.json").write_text(json.dumps({"x": "$open('x')"}))
    load_network(bundle)
    with pytest.raises(UntrustedError, match=r"train\.json and metadata\.json must call only"):
        ensure_trusted_bundle(bundle, "train.json")


@pytest.mark.parametrize("text", ["", "[", "[]", "3", '{"a": 1, "a": 2}', "[" * 100_000, '{"a":' * 3000 + "1" + "}" * 3000, "\ud800x"])
def test_broken_configs_get_a_sentence(text: str, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", {})
    (bundle / "configs" / "inference.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ValueError, match=r"inference\.json|references that lead nowhere"):
        load_network(bundle)


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
