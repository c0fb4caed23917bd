from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from stseg3d import bundle_folders
from stseg3d.bundle import (
    bundle_names,
    find_bundle,
    load_network,
    read_metadata,
    read_weights,
    save_weights,
    weights_sha256,
)
from tests.tiny import read_config

CONFIG = {
    "bundle_root": ".",
    "device": "$torch.device('meta')",
    "network_def": "$torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))",
    "inferer": {"_target_": "SimpleInferer"},
    "where": "$@bundle_root + '/models'",
}


def make_bundle(folder: Path, **config: Any) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(CONFIG | config))
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "0.0.1"}))
    return folder


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two embedded bundles and a stray file."""
    folder = tmp_path / "embedded"
    for name in ("b_segmentation", "a_segmentation"):
        make_bundle(folder / name)
    (folder / "notes").mkdir()
    monkeypatch.setattr(bundle_folders, "embedded_folder", lambda: folder)
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = make_bundle(tmp_path / "bundle")
    save_weights(network().state_dict(), folder / "models" / "model.pt")
    return folder


def test_a_folder_is_found_and_made_absolute(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle.parent)
    assert find_bundle("bundle") == find_bundle(Path("./bundle/")) == bundle.resolve()


def test_bundle_folders_are_found_by_name_with_or_without_the_suffix(embedded: Path) -> None:
    assert bundle_names() == ["a_segmentation", "b_segmentation"]
    assert find_bundle("a_segmentation") == find_bundle("a") == embedded / "a_segmentation"


def test_a_folder_of_that_name_goes_before_an_embedded_bundle(embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = make_bundle(tmp_path / "here" / "a_segmentation")
    monkeypatch.chdir(mine.parent)
    assert find_bundle("a_segmentation") == mine


@pytest.mark.parametrize(("what", "why"), [("spleen", "does not exist"), ("empty", "is a folder without it")])
def test_the_error_names_what_was_looked_for_and_what_there_is(
    what: str, why: str, embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"inference.json or .*\(a_segmentation, b_segmentation\); '{what}' {why}"):
        find_bundle(what)


def test_the_checkout_s_own_bundles_are_the_embedded_ones() -> None:
    root = Path(__file__).resolve().parents[1]
    assert bundle_folders.embedded_folder() == root / "bundles"
    assert all(find_bundle(name) == root / "bundles" / name for name in bundle_names())


def test_in_a_wheel_they_lie_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bundles").mkdir()  # site-packages/bundles, somebody else's
    monkeypatch.setattr(bundle_folders, "__file__", str(tmp_path / "stseg3d" / "bundle_folders.py"))
    assert bundle_folders.embedded_folder() == tmp_path.resolve() / "stseg3d" / "bundles"


def test_looking_up_needs_the_standard_library_only() -> None:
    code = "import sys, stseg3d.bundle_folders as b; b.bundle_names(); print({'torch', 'monai', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


@pytest.mark.parametrize(("text", "rule"), [("{", "must be JSON"), ("[]", "must hold a JSON object, got list")])
def test_damaged_metadata_is_refused(text: str, rule: str, bundle: Path) -> None:
    assert read_metadata(bundle) == {"version": "0.0.1"}
    (bundle / "configs" / "metadata.json").write_text(text)
    with pytest.raises(ValueError, match=rule):
        read_metadata(bundle)


def test_missing_metadata_is_refused(bundle: Path) -> None:
    (bundle / "configs" / "metadata.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold configs/metadata\.json"):
        read_metadata(bundle)


# --- loading -----------------------------------------------------------------


def test_a_loaded_network_is_the_saved_one(bundle: Path) -> None:
    loaded, parser = load_network(bundle, "cpu", trust=True)
    expected = network().eval()
    x = torch.ones(2, 2)
    assert not loaded.training
    assert loaded[0].weight.dtype == torch.float32
    torch.testing.assert_close(loaded(x), expected(x), rtol=1e-3, atol=1e-3)  # float16 on disk
    assert type(parser.get_parsed_content("inferer")).__name__ == "SimpleInferer"
    assert parser.get_parsed_content("where") == f"{bundle}/models"
    assert parser.get_parsed_content("_meta_#version") == "0.0.1"


def test_overrides_reach_the_config_and_mistyped_ones_do_not(bundle: Path) -> None:
    assert read_config(bundle, overrides={"inferer#_target_": "X"}, trust=True)["inferer"] == {"_target_": "X"}
    for mistyped in ("inferer#target", "infererr#_target_", "other"):
        with pytest.raises(ValueError, match=f"must have the entry '{mistyped}' to override it"):
            read_config(bundle, overrides={mistyped: 3}, trust=True)


def test_a_config_that_is_not_json_is_refused(bundle: Path) -> None:
    (bundle / "configs" / "inference.json").write_text("{")
    with pytest.raises(ValueError, match=r"inference\.json must be JSON"):
        read_config(bundle, trust=True)


def test_a_bundle_without_weights_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.pt are missing; train it with `stseg3d train "):
        load_network(make_bundle(tmp_path / "bundle"), trust=True)


@pytest.mark.parametrize(
    ("change", "misfit"),
    [
        (lambda weights: weights.pop("0.bias"), "lack '0.bias'"),
        (lambda weights: weights.update(extra=torch.zeros(1)), "hold 'extra', which it does not have"),
        (lambda weights: weights.update({"0.bias": torch.zeros(4)}), r"hold '0.bias' of shape \(4,\), where it has \(3,\)"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_weights_that_do_not_fit_are_refused_by_name(change: Any, misfit: str, bundle: Path) -> None:
    weights = network().state_dict()
    change(weights)
    save_weights(weights, bundle / "models" / "model.pt")
    with pytest.raises(ValueError, match=f"must fit the network Sequential: they {misfit}"):
        load_network(bundle, trust=True)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None], ids=["empty", "text", "truncated"])
def test_damaged_weights_are_refused_in_one_line(content: bytes | None, bundle: Path) -> None:
    path = bundle / "models" / "model.pt"
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    with pytest.raises(ValueError, match="must be a state dict saved by torch") as raised:
        load_network(bundle, trust=True)
    assert "\n" not in str(raised.value)


def test_weights_execute_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'owned'}",)

    torch.save({"x": Evil()}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="must be a state dict"):
        read_weights(tmp_path / "model.pt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [[1], {}, {"a": 1}], ids=repr)
def test_what_is_not_a_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="must be a flat state dict of tensors"):
        read_weights(tmp_path / "model.pt")


# --- saving ------------------------------------------------------------------


def test_floats_are_halved_on_disk_unless_that_would_overflow(tmp_path: Path) -> None:
    weights = {"a": torch.tensor([1.5]), "large": torch.tensor([1e6]), "steps": torch.tensor(70000), "inf": torch.tensor([torch.inf])}
    found = read_weights(save_weights(weights, tmp_path / "new" / "model.pt"))
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "a": torch.float16,
        "large": torch.float32,
        "steps": torch.int64,
        "inf": torch.float16,
    }
    assert all(torch.equal(found[name].double(), tensor.double()) for name, tensor in weights.items())


def test_a_view_is_saved_without_what_it_is_a_view_of(tmp_path: Path) -> None:
    save_weights({"a": torch.zeros(1_000_000)[:2]}, tmp_path / "model.pt", dtype="float32")
    assert (tmp_path / "model.pt").stat().st_size < 10_000


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_weights({"a": torch.zeros(1)}, tmp_path / "model.pt")
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        save_weights({"a": torch.ones(1)}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_sha256_is_that_of_the_file(bundle: Path, tmp_path: Path) -> None:
    (bundle / "models" / "model.pt").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert weights_sha256(bundle) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert weights_sha256(tmp_path) == ""
