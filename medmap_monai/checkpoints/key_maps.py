"""Names of the published state dicts: where every parameter of a backbone is found in them."""

from __future__ import annotations

from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.m2ftrans import M2FTrans
from medmap_monai.networks.mmformer import MMFormer
from medmap_monai.networks.rfnet import RFNet

#: The published networks' encoders in channel order; their state dicts name them, ours number them.
PUBLISHED_MODALITIES = ("flair", "t1ce", "t1", "t2")


def _encoders(levels: int, bare_first: bool) -> dict[str, str]:
    names: dict[str, str] = {}
    for m, modality in enumerate(PUBLISHED_MODALITIES):
        for level in range(levels):
            for c in ("c1", "c2", "c3"):
                suffix = "" if bare_first and level == 0 and c == "c1" else ".conv"
                names[f"encoders.{m}.levels.{level}.{c}.conv"] = f"{modality}_encoder.e{level + 1}_{c}{suffix}"
    return names


def _conv_path(ours: str, published: str, levels: int) -> dict[str, str]:
    """Up-sampling and merging units from the deepest level but one to the finest, and the class convolution."""
    names = {f"{ours}head.conv": f"{published}.seg_layer"}
    for i in range(levels - 1):
        level = levels - 1 - i
        names[f"{ours}ups.{i}.unit.conv"] = f"{published}.d{level}_c1.conv"
        names[f"{ours}merges.{i}.conv.conv"] = f"{published}.d{level}_c2.conv"
        names[f"{ours}merges.{i}.out.conv"] = f"{published}.d{level}_out.conv"
    return names


def _rfnet(network: RFNet) -> dict[str, str]:
    levels = len(network.maps) + 1
    names = _encoders(levels, bare_first=False)
    names |= _conv_path("", "decoder_fuse", levels)
    names |= _conv_path("unimodal_decoder.", "decoder_sep", levels)
    for i in range(levels):
        level = levels - i
        maps = f"maps.{i - 1}" if i else "deepest_map"
        fusions = f"fusions.{i - 1}" if i else "deepest_fusion"
        prm = f"decoder_fuse.prm_generator{level}"
        for k, part in enumerate(("embed", "context", "expand")):
            names[f"{maps}.{part}.conv"] = f"{prm}.embedding_layer.{k}.conv"
        names[f"{maps}.hidden.conv"] = f"{prm}.prm_layer.0.conv"
        names[f"{maps}.head.conv"] = f"{prm}.prm_layer.1"
        rfm = f"decoder_fuse.RFM{level}"
        for c in range(network.out_channels):
            names[f"{fusions}.region_weights.{c}.first"] = f"{rfm}.modal_fusion.{c}.weight_layer.0"
            names[f"{fusions}.region_weights.{c}.second"] = f"{rfm}.modal_fusion.{c}.weight_layer.2"
        for k, part in enumerate(("mix", "context", "out")):
            names[f"{fusions}.region_{part}.conv"] = f"{rfm}.region_fusion.fusion_layer.{k}.conv"
            names[f"{fusions}.joint_{part}.conv"] = f"{rfm}.short_cut.{k}.conv"
    return names


def _transformer(ours: str, published: str, layers: int) -> dict[str, str]:
    """Layers ``{ours}.{i}`` of a published transformer."""
    names: dict[str, str] = {}
    for i in range(layers):
        attention, mlp = f"{published}.cross_attention_list.{i}.fn", f"{published}.cross_ffn_list.{i}.fn"
        names[f"{ours}.{i}.norm1"] = f"{attention}.norm"
        names[f"{ours}.{i}.attention.qkv"] = f"{attention}.fn.qkv"
        names[f"{ours}.{i}.attention.proj"] = f"{attention}.fn.proj"
        names[f"{ours}.{i}.norm2"] = f"{mlp}.norm"
        names[f"{ours}.{i}.mlp.linear1"] = f"{mlp}.fn.net.0"
        names[f"{ours}.{i}.mlp.linear2"] = f"{mlp}.fn.net.3"
    return names


def _joint_fusion(ours: str, published: str) -> dict[str, str]:
    return {
        f"{ours}.{part}.conv": f"{published}.fusion_layer.{k}.conv" for k, part in enumerate(("mix", "context", "out"))
    }


def _mmformer(network: MMFormer) -> dict[str, str]:
    levels = len(network.merges) + 1
    names = _encoders(levels, bare_first=True)
    names |= _conv_path("", "decoder_fuse", levels)
    names |= _conv_path("unimodal_decoder.", "decoder_sep", levels)
    names |= _transformer("inter", "multimodal_transformer", len(network.inter))
    names["to_maps.conv"] = "multimodal_decode_conv"
    for m, modality in enumerate(PUBLISHED_MODALITIES):
        names[f"intra.{m}.embed.conv"] = f"{modality}_encode_conv"
        names[f"intra.{m}.positions"] = f"{modality}_pos"
        names |= _transformer(f"intra.{m}.layers", f"{modality}_transformer", len(network.inter))
        names[f"unused.{m}.conv"] = f"{modality}_decode_conv"
    for i in range(levels):
        level = levels - i
        fusion = f"fusions.{i - 1}" if i else "deepest_fusion"
        names |= _joint_fusion(fusion, f"decoder_fuse.RFM{level}")
        names[f"deep_heads.{i}.conv"] = f"decoder_fuse.seg_d{level - 1}"
    return names


def _cross_stage(ours: str, level: int) -> dict[str, str]:
    decoder = "decoder_fusion"
    names = {
        f"{ours}.deep_head.hidden.conv": f"{decoder}.prm_fusion{level}.prm_layer.0.conv",
        f"{ours}.deep_head.head.conv": f"{decoder}.prm_fusion{level}.prm_layer.1",
        f"{ours}.merge.conv.conv": f"{decoder}.d{level}_c2.conv",
        f"{ours}.merge.out.conv": f"{decoder}.d{level}_out.conv",
    }
    for i in range(2):
        layer, published = f"{ours}.cross.layers.{i}", f"{decoder}.CT{level}.layers.{i}"
        blocks = {"query_map": "query_map", "out_project": "out_project"}
        for m, modality in enumerate(PUBLISHED_MODALITIES):
            blocks |= {f"key_maps.{m}": f"key_map_{modality}", f"value_maps.{m}": f"value_map_{modality}"}
        for block, name in blocks.items():
            for k in (1, 2, 3):
                names[f"{layer}.{block}.conv{k}.conv"] = f"{published}.cross_attn.{name}.conv{k}"
                names[f"{layer}.{block}.norm{k}"] = f"{published}.cross_attn.{name}.norm{k}"
        for block, name in (("query_ffn", "ffn1"), ("map_ffn", "ffn2")):
            for k, conv in enumerate(("pwconv1", "dwconv", "pwconv2"), start=1):
                names[f"{layer}.{block}.conv{k}.conv"] = f"{published}.{name}.{conv}"
                names[f"{layer}.{block}.norm{k}"] = f"{published}.{name}.norm{k}"
    return names


def _m2ftrans(network: M2FTrans) -> dict[str, str]:
    levels = len(network.merges) + 2
    names = _encoders(levels, bare_first=False)
    names |= _conv_path("", "decoder_fusion", levels - 1)
    names |= _conv_path("unimodal_decoder.", "decoder_sep", levels)
    names["bottleneck.positions"] = "pos"
    names["bottleneck.fusion_tokens"] = "fusion"
    names |= _transformer("bottleneck.layers", "Bottleneck.trans_bottle", len(network.bottleneck.layers))
    names |= _cross_stage("deepest", levels) | _cross_stage("second", levels - 1)
    names["second_up.unit.conv"] = f"decoder_fusion.d{levels - 1}_c1.conv"
    for i in range(levels - 2):
        level = levels - 2 - i
        names |= _joint_fusion(f"fusions.{i}", f"decoder_fusion.RFM{level}")
        names[f"deep_heads.{i}.hidden.conv"] = f"decoder_fusion.prm_fusion{level}.prm_layer.0.conv"
        names[f"deep_heads.{i}.head.conv"] = f"decoder_fusion.prm_fusion{level}.prm_layer.1"
    return names


def published_keys(network: ModalityNetwork) -> dict[str, str]:
    """For every entry of ``network.state_dict()`` its key in the published state dict; one to one.

    The published networks take the channels in the order FLAIR, T1ce, T1, T2.

    Raises:
        ValueError: when the network has another number of modalities than the published ones.
        TypeError: when there is no published network of its kind.
    """
    if network.modalities != len(PUBLISHED_MODALITIES):
        raise ValueError(
            f"published weights are for the {len(PUBLISHED_MODALITIES)} modalities {PUBLISHED_MODALITIES}, "
            f"this network has {network.modalities}"
        )
    if isinstance(network, RFNet):
        names = _rfnet(network)
    elif isinstance(network, MMFormer):
        names = _mmformer(network)
    elif isinstance(network, M2FTrans):
        names = _m2ftrans(network)
    else:
        raise TypeError(
            f"no published weights are known for {type(network).__name__}; there are some for RFNet, MMFormer, M2FTrans"
        )
    keys: dict[str, str] = {}
    for key in network.state_dict():
        module, _, parameter = key.rpartition(".")
        keys[key] = names[key] if key in names else f"{names[module]}.{parameter}"
    return keys
