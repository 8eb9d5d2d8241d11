"""A Mixer and a ResMLP as convolutions: same outputs, nothing but convolutions, and the page about it runs."""
import re

import numpy as np
import paddle
import pytest
from helpers.runs import code_of, run_code
from paddle import nn

import passl_mixer
from passl_mixer import build_backbone, resize_tokens, to_conv
from passl_mixer.errors import BadInput

SMALL = {"img_size": [16, 24], "patch_size": 4, "embed_dim": 12, "num_blocks": 2}


def shaken(backbone):
    """Every parameter moved off its initial value, so that none is zero or one."""
    paddle.seed(5)
    for parameter in backbone.parameters():
        parameter.set_value(parameter + 0.3 * paddle.randn(parameter.shape))
    backbone.eval()
    return backbone


@pytest.mark.parametrize("cfg", [
    {"name": "MlpMixer", **SMALL},
    {"name": "MlpMixer", **SMALL, "act": "gelu_tanh", "in_chans": 2, "token_hidden": 7},
    {"name": "ResMLP", **SMALL},
    {"name": "mlp_mixer_nano"},
    {"name": "resmlp_nano"},
], ids=str)
def test_outputs_agree(cfg):
    backbone = build_backbone(cfg)
    if "embed_dim" in cfg:
        shaken(backbone)
    backbone.eval()
    convs = to_conv(backbone)
    images = paddle.randn([2, backbone.in_chans, *backbone.img_size])
    want, got = backbone.feature_maps(images)[0].numpy(), convs.feature_maps(images)[0].numpy()
    assert np.abs(got - want).max() <= 1e-5 * max(1.0, np.abs(want).max())
    want, got = backbone(images).numpy(), convs(images).numpy()
    assert np.abs(got - want).max() <= 1e-5 * max(1.0, np.abs(want).max())
    for name in ("img_size", "in_chans", "num_features", "feature_strides", "feature_channels"):
        assert getattr(convs, name) == getattr(backbone, name)


@pytest.mark.parametrize("name", ["MlpMixer", "ResMLP"])
def test_nothing_but_convolutions_norms_and_as_many_parameters(name):
    backbone = build_backbone({"name": name, **SMALL})
    convs = to_conv(backbone)
    holders = {type(layer).__name__ for layer in convs.sublayers()
               if layer.parameters(include_sublayers=False)}
    assert holders == ({"Conv2D", "ChannelNorm"} if name == "MlpMixer" else {"Conv2D"})
    assert sum(p.size for p in convs.parameters()) == sum(p.size for p in backbone.parameters())
    assert not any(isinstance(layer, nn.Linear) for layer in convs.sublayers())


def test_the_weights_are_copies_and_have_gradients():
    backbone = shaken(build_backbone({"name": "MlpMixer", **SMALL}))
    convs = to_conv(backbone)
    images = paddle.randn([1, 3, 16, 24])
    before = backbone(images).numpy()
    projection = paddle.randn([1, 12])
    (convs(images) * projection).sum().backward()
    (backbone(images) * projection).sum().backward()
    kernel = convs.blocks[0].token_mixing.first.weight.grad.numpy().reshape([6, 24])
    want = backbone.blocks[0].token_mlp.fc1.weight.grad.numpy()
    assert np.abs(kernel - want).max() <= 1e-4 * np.abs(want).max()
    convs.stem.weight.set_value(convs.stem.weight * 0)
    np.testing.assert_array_equal(backbone(images).numpy(), before)


def test_a_resized_network_has_a_convolution_form():
    mixer = resize_tokens(shaken(build_backbone({"name": "MlpMixer", **SMALL})), [32, 48], scheme="blocks")
    images = paddle.randn([1, 3, 32, 48])
    np.testing.assert_allclose(to_conv(mixer)(images).numpy(), mixer(images).numpy(), atol=1e-5)


def test_other_families_and_sizes_are_refused():
    with pytest.raises(BadInput, match="no convolution form of a CycleMLP; there is one for MlpMixer, ResMLP"):
        to_conv(build_backbone("cycle_mlp_nano"))
    with pytest.raises(BadInput, match="built for img_size 16 x 24"):
        to_conv(build_backbone({"name": "MlpMixer", **SMALL}))(paddle.zeros([1, 3, 16, 16]))
    assert passl_mixer.to_conv is to_conv      # the name stays the function after its module is loaded


@pytest.mark.slow
def test_the_code_of_the_page_runs(tmp_path, capsys):
    blocks = code_of("hidden_convolution.md")
    assert len(blocks) >= 4
    run_code(blocks, tmp_path)
    assert len(re.findall(r"agree", capsys.readouterr().out)) == 4
