"""MONAI Deploy App SDK's `MonaiBundleInferenceOperator`: its steps emulated, and the real one where `monai-deploy-app-sdk` is installed.

Read in monai-deploy-app-sdk 4.0.0 and at https://github.com/Project-MONAI/monai-deploy-app-sdk/blob/
06a41822378221299210db491b05b803f21449f1/monai/deploy/operators/monai_bundle_inference_operator.py. The SDK goes into MONAI's own folder, so
that both must be installed into one environment: `pip install monai-deploy-app-sdk highdicom`. It needs no GPU.
"""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from stseg3d.bundle import WEIGHTS
from tests.contracts.conftest import Contract, files

pytestmark = pytest.mark.filterwarnings("default")  # other people's


def voxels(contract: Contract) -> np.ndarray:
    return np.asarray(nib.load(contract.image).dataobj)


def test_the_steps_of_the_operator_give_the_labels_of_the_command(contract: Contract) -> None:
    """Emulated: an image in memory, without a channel axis unless the last one counts channels, and no reading or writing."""
    parser = ConfigParser()
    parser.read_meta(str(contract.bundle / "configs/metadata.json"))
    parser.read_config([str(contract.bundle / "configs/inference.json")])
    parser.parse()
    inferer = parser.get_parsed_content("inferer")
    kept = {}
    for name in ("preprocessing", "postprocessing"):
        compose = parser.get_parsed_content(name)
        compose.transforms = [t for t in compose.transforms if not any(w in type(t).__name__ for w in ("LoadImage", "SaveImage"))]
        kept[name] = compose
    array = voxels(contract)
    meta = {"affine": contract.affine, "original_channel_dim": "no_channel" if array.ndim == 3 else -1}
    image = kept["preprocessing"]({"image": MetaTensor(torch.from_numpy(array.copy()), affine=contract.affine, meta=meta)})["image"]
    network = parser.get_parsed_content("network")
    network.load_state_dict(torch.load(contract.bundle / WEIGHTS), strict=True)
    with torch.no_grad():
        pred = inferer(inputs=image[None].to(parser.get_parsed_content("device")), network=network.eval())[0]
    pred = kept["postprocessing"]({"pred": pred, "image": image})["pred"]
    np.testing.assert_array_equal(np.squeeze(pred.cpu().numpy(), 0).astype(np.uint8), contract.labels)


@pytest.mark.slow
def test_the_operator_gives_the_labels_of_the_command(contract: Contract) -> None:
    try:
        from monai.deploy.core import Fragment, Image, IOType
        from monai.deploy.operators import BundleConfigNames, IOMapping, MonaiBundleInferenceOperator
    except Exception as error:  # an ImportError, or that of its own for what is optional
        pytest.skip(f"monai-deploy-app-sdk is not installed, or not whole: {error}")

    class Application:
        models = None

    class Input:
        def receive(self, name: str) -> Any:
            array = voxels(contract)
            if array.ndim == 4:
                return array
            # As the SDK's DICOMSeriesToVolumeOperator gives it: slices first.
            meta = {f"{axis}_pixel_spacing": 1.0 for axis in ("row", "col", "depth")} | {"nifti_affine_transform": contract.affine}
            return Image(np.swapaxes(array, 0, 2), meta)

    class Output:
        def get(self, name: str) -> None:
            raise KeyError(name)

        def emit(self, value: Any, name: str) -> None:
            self.value = value

    before, output = files(contract.bundle), Output()
    operator = MonaiBundleInferenceOperator(
        Fragment(),
        app_context=Application(),
        input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
        output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
        bundle_path=contract.bundle,
        bundle_config_names=BundleConfigNames(config_names=["inference"]),
    )
    operator.compute(Input(), output, None)
    found = np.swapaxes(output.value.asnumpy(), 0, 2)
    np.testing.assert_array_equal(found.reshape(contract.labels.shape), contract.labels)
    assert files(contract.bundle) == before
