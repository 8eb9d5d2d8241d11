"""Initial weights of the families that follow ViT's recipe or PyTorch's defaults; Mixer, gMLP: in their own files."""
import paddle
import pytest
from helpers.backbones import SMALL
from helpers.initial_weights import assert_normal, assert_uniform

from passl_mixer.backbones import build_backbone
from passl_mixer.layers.basic import LayerNorm, Linear

NARROW = 0.02       # the deviation of truncated normal weights
VIT = {"name": "ViT", "img_size": 64, "patch_size": 8, "embed_dim": 192, "num_blocks": 1, "num_heads": 3}
WAVE = {"name": "WaveMLP", "embed_dims": [64, 96], "depths": [1, 1], "mlp_ratios": [4, 4], "phase": "depthwise"}
SWIN = {"name": "Swin", **SMALL["Swin"], "embed_dim": 96, "num_heads": [48, 48], "window_size": 7}
# backbone: layers, the distribution of their weights, that of their biases: uniform of a fan-in (an integer), normal
# of a deviation, 0 or none (None)
ROWS = [
    ("resmlp_nano", ["blocks.0.token_mixing", "blocks.0.mlp.fc1", "blocks.0.mlp.fc2"], NARROW, 0),
    ("resmlp_nano", ["stem"], 48, 48),
    ("conv_mixer_nano", ["stem"], 48, 48), ("conv_mixer_nano", ["blocks.0.depthwise"], 25, 25),
    ("conv_mixer_nano", ["blocks.0.pointwise"], 256, 256),
    ("hire_mlp_nano", ["stages.1.0.mixer.along_height.fc1"], NARROW, None),
    ("hire_mlp_nano", ["stages.1.0.mixer.along_width.fc2", "stages.1.0.mixer.reweight2", "downsamples.0.0"], NARROW, 0),
    (WAVE, ["stages.0.0.fc1"], 64, 64), (WAVE, ["stages.0.0.fc2"], 256, 256),
    (WAVE, ["stages.0.0.mixer.channel"], 64, None), (WAVE, ["stages.0.0.mixer.reweight2"], 16, 16),
    (WAVE, ["stages.0.0.mixer.along_width.mix"], 14, None),
    (WAVE, ["stages.0.0.mixer.along_height.phase.map"], 9, None),
    (WAVE, ["stem.0"], 147, 147), (WAVE, ["downsamples.0.0"], 64 * 9, 64 * 9),
    ("as_mlp_nano", ["stem"], 12, 12), ("as_mlp_nano", ["downsamples.0.reduction"], 192, None),
    ("s2_mlp_v1_nano", ["blocks.0.fc1", "blocks.0.mlp.fc1"], NARROW, 0), ("s2_mlp_v1_nano", ["stem"], 48, 48),
    ("s2_mlp_v2_nano", ["stages.1.0.mixer.expand", "stages.1.0.mixer.proj"], NARROW, 0),
    ("s2_mlp_v2_nano", ["stems.0"], 12, 12), ("s2_mlp_v2_nano", ["stems.1"], 64 * 4, 64 * 4),
    ("vip_nano", [f"stages.0.0.mixer.{name}" for name in ("along_height", "along_width", "channel")], NARROW, None),
    ("vip_nano", ["stages.0.0.mixer.proj", "stages.0.0.mixer.reweight2"], NARROW, 0), ("vip_nano", ["stem"], 48, 48),
    (VIT, ["blocks.0.attention.qkv", "blocks.0.attention.proj", "blocks.0.mlp.fc1"], NARROW, 0),
    (VIT, ["stem"], 192, 192),
    (SWIN, ["stages.1.0.attention.attention.qkv", "stages.1.0.mlp.fc2"], NARROW, 0),
    (SWIN, ["merges.0.reduction"], NARROW, None), (SWIN, ["stem"], 12, 12),
]


def assert_is(values, expected) -> None:
    if expected is None:
        assert values is None
    elif expected == 0:
        assert float(values.abs().max()) == 0
    elif isinstance(expected, int):
        assert_uniform(values, expected)
    else:
        assert_normal(values, expected)


@pytest.mark.parametrize(("backbone", "names", "weights", "biases"), ROWS)
def test_weights_and_biases(backbone, names, weights, biases):
    paddle.seed(0)
    layers = dict(build_backbone(backbone).named_sublayers())
    for name in names:
        assert_is(layers[name].weight, weights)
        assert_is(layers[name].bias, biases)


def test_every_map_of_as_mlp_is_pytorchs_default():
    paddle.seed(0)
    maps = [layer for layer in build_backbone("as_mlp_nano").sublayers() if isinstance(layer, Linear)]
    assert len(maps) == 6 * 6 + 1
    for layer in maps:
        assert_uniform(layer.weight, layer.weight.shape[0])
        if layer.bias is not None:
            assert_uniform(layer.bias, layer.weight.shape[0])


def test_what_is_no_map_starts_as_published():
    paddle.seed(0)
    vit, swin, resmlp = (build_backbone(cfg) for cfg in (VIT, SWIN, "resmlp_nano"))
    for values in (vit.position, vit.class_token, swin.stages[1][0].attention.bias_table):
        assert_normal(values, NARROW)
    for affine in (resmlp.blocks[0].norm1, resmlp.blocks[0].norm2, resmlp.norm):
        assert (affine.alpha.numpy() == 1).all()
        assert (affine.beta.numpy() == 0).all()
    attention = build_backbone("s2_mlp_v2_nano").stages[1][0].mixer.attention
    assert attention.fc1.bias is None
    assert (attention.fc1.weight.shape, attention.fc2.weight.shape) == ([128, 32], [32, 384])


@pytest.mark.parametrize(("backbone", "epsilons"), [(VIT, {1e-6}), (SWIN, {1e-5}), ("s2_mlp_v1_nano", {1e-5})])
def test_epsilons(backbone, epsilons):
    norms = [layer for layer in build_backbone(backbone).sublayers() if isinstance(layer, LayerNorm)]
    assert {layer.epsilon for layer in norms} == epsilons
