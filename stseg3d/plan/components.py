"""Networks, transforms, losses and optimisers that a plan may name, and the arguments that each takes from it.

Anything else may be named by its full dotted name. Such a plan is a program, which its user must trust.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from stseg3d.plan.json_values import Component

PLAIN_KEY = re.compile(r"[A-Za-z]\w*", re.ASCII)  # not an entry that MONAI acts on, such as `_target_`, nor a path or an id


@dataclass(frozen=True)
class Known:
    """A component that a plan may name."""

    target: str  # its `_target_` in a config
    arguments: frozenset[str]  # names of the arguments that a plan may give; none of them names code or makes it download anything
    always: Mapping[str, Any] = field(default_factory=dict)  # arguments that it gets unless the plan gives them


def _known(names: str, target: str = "{}", **always: Any) -> dict[str, Known]:
    """Known components, from a table with ``Name: argument argument ...`` on each line."""
    rows = (line.split(":") for line in names.strip().splitlines())
    return {name.strip(): Known(target.format(name.strip()), frozenset(words.split()), always) for name, words in rows}


# Arguments of MONAI 1.6.1. `in_channels` and `out_channels` follow from the plan.
NETWORKS = _known("""
    UNet: spatial_dims channels strides kernel_size up_kernel_size num_res_units act norm dropout bias adn_ordering
    BasicUNet: spatial_dims features act norm bias dropout upsample
    BasicUNetPlusPlus: spatial_dims features deep_supervision act norm bias dropout upsample
    DynUNet: spatial_dims kernel_size strides upsample_kernel_size filters dropout norm_name act_name res_block trans_bias \
deep_supervision deep_supr_num
    AttentionUnet: spatial_dims channels strides kernel_size up_kernel_size dropout
    SegResNet: spatial_dims init_filters dropout_prob act norm num_groups blocks_down blocks_up upsample_mode
    SegResNetDS: spatial_dims init_filters dsdepth act norm blocks_down blocks_up upsample_mode resolution
    VNet: spatial_dims act dropout_prob_down dropout_prob_up dropout_dim bias
    HighResNet: spatial_dims norm_type acti_type dropout_prob bias layer_params channel_matching
    MedNeXt: spatial_dims init_filters encoder_expansion_ratio decoder_expansion_ratio bottleneck_expansion_ratio kernel_size \
deep_supervision use_residual_connection blocks_down blocks_bottleneck blocks_up norm_type global_resp_norm
    UNETR: spatial_dims img_size feature_size hidden_size mlp_dim num_heads proj_type norm_name conv_block res_block dropout_rate qkv_bias
    SwinUNETR: spatial_dims patch_size depths num_heads window_size qkv_bias mlp_ratio feature_size norm_name drop_rate attn_drop_rate \
dropout_path_rate normalize patch_norm downsample use_v2
""")
ENSEMBLE = "MeanEnsemble"

NORMALIZATIONS = _known("""
    NormalizeIntensity: subtrahend divisor nonzero channel_wise
    ScaleIntensity: minv maxv factor channel_wise
    ScaleIntensityRange: a_min a_max b_min b_max clip
    ScaleIntensityRangePercentiles: lower upper b_min b_max clip relative channel_wise
    ClipIntensityPercentiles: lower upper sharpness_factor channel_wise
""")

LOSSES = _known(
    """
    DiceLoss: include_background softmax squared_pred jaccard smooth_nr smooth_dr batch
    DiceCELoss: include_background softmax squared_pred jaccard smooth_nr smooth_dr batch lambda_dice lambda_ce label_smoothing
    DiceFocalLoss: include_background softmax squared_pred jaccard smooth_nr smooth_dr batch gamma lambda_dice lambda_focal alpha
    GeneralizedDiceLoss: include_background softmax w_type smooth_nr smooth_dr batch
    GeneralizedDiceFocalLoss: include_background softmax w_type smooth_nr smooth_dr batch gamma lambda_gdl lambda_focal
    TverskyLoss: include_background softmax alpha beta smooth_nr smooth_dr batch
    """,
    to_onehot_y=True,
    softmax=True,
)

# Of a plan with regions: Dice and binary cross-entropy, by the arguments of DiceCELoss that have a meaning for them.
REGION_LOSSES = _known(
    "DiceCELoss: squared_pred jaccard smooth_nr smooth_dr batch lambda_dice lambda_ce", target="stseg3d.training.RegionLoss"
)

OPTIMIZERS = _known(
    """
    AdamW: betas eps weight_decay amsgrad
    Adam: betas eps weight_decay amsgrad
    NAdam: betas eps weight_decay momentum_decay
    SGD: momentum dampening weight_decay nesterov
    """,
    target="torch.optim.{}",
)


def check_component(component: Component, known: Mapping[str, Known], where: str) -> None:
    """Refuse a name or an argument that is not on the list; full dotted names are not checked.

    Raises:
        ValueError: If the name or an argument is not on the list.
    """
    if "." in component.name:
        return
    if component.name not in known:
        near = get_close_matches(component.name, known, n=1)
        hint = f"; is {near[0]!r} meant?" if near else ""
        msg = f"{where} must be one of {', '.join(known)}, or a full dotted name, got {component.name!r}{hint}"
        raise ValueError(msg)
    alien = next((name for name in component.arguments if name not in known[component.name].arguments), None)
    if alien is not None:
        takes = ", ".join(sorted(known[component.name].arguments))
        msg = f"{where} must have arguments that a plan may give to {component.name} ({takes}), got {alien!r}"
        raise ValueError(msg)


def members(network: Component) -> list[Component]:
    """Members of an ensemble; the network itself if it is none."""
    if network.name != ENSEMBLE:
        return [network]
    return [Component(entry["name"], {k: v for k, v in entry.items() if k != "name"}) for entry in network.arguments["networks"]]


def code_in(content: Any, where: str, starts: tuple[str, ...] = ("$", "@", "%"), plain_key: re.Pattern[str] = PLAIN_KEY) -> Iterator[str]:
    """Places in data that MONAI would act on: texts with such a start (expressions, references, macros), and keys that are not plain."""
    if isinstance(content, str) and content.startswith(starts):
        yield f"{where} holds {content[:60]!r}"
    elif isinstance(content, Mapping):
        for key, item in content.items():
            if not plain_key.fullmatch(str(key)):
                yield f"{where} has the entry {key!r}"
            yield from code_in(item, f"{where}#{key}", starts, plain_key)
    elif isinstance(content, list | tuple):
        for n, item in enumerate(content):
            yield from code_in(item, f"{where}#{n}", starts, plain_key)
