"""ResMLP, gMLP and ConvMixer; and that patches have no order of their own in families bound to an image size."""
import math

import numpy
import paddle
import pytest
from helpers.backbones import random_parameters, small
from helpers.definitions import batch_norm

from passl_mixer.backbones import build_backbone
from passl_mixer.backbones.conv_mixer import ConvMixerBlock
from passl_mixer.backbones.gmlp import SpatialGatingUnit
from passl_mixer.layers.basic import LayerNorm, TokenLinear


def permute_patches(images, order, patch, grid):
    """Images whose patch i, row-major, is patch ``order[i]`` of the given ones."""
    b, c = images.shape[:2]
    tiles = images.reshape(b, c, grid[0], patch, grid[1], patch).transpose(0, 1, 2, 4, 3, 5)
    tiles = tiles.reshape(b, c, -1, patch, patch)[:, :, order].reshape(b, c, *grid, patch, patch)
    return tiles.transpose(0, 1, 2, 4, 3, 5).reshape(images.shape)


@pytest.mark.parametrize("name", ["MlpMixer", "ResMLP", "GMLP"])
def test_permuting_patches_and_token_weights_together_changes_nothing(name):
    # 6 tokens; the Mixer has 8 hidden ones, which are not permuted.
    backbone, rng = random_parameters(small(name, img_size=[16, 24])), numpy.random.default_rng(1)
    images = rng.normal(size=(2, 3, 16, 24)).astype("float32")
    order = numpy.array([4, 2, 0, 5, 1, 3])  # not its own inverse
    permuted = paddle.to_tensor(permute_patches(images, order, 8, backbone.grid))
    expected, scrambled = backbone(paddle.to_tensor(images)).numpy(), backbone(permuted).numpy()
    assert numpy.abs(scrambled - expected).max() > 0.01 * numpy.abs(expected).max()
    mixing = [layer for layer in backbone.sublayers() if isinstance(layer, TokenLinear)]
    assert len(mixing) == (4 if name == "MlpMixer" else 2)
    for layer in mixing:
        weight, bias = layer.weight.numpy(), layer.bias.numpy()
        if weight.shape[1] == len(order):
            weight = weight[:, order]
        if weight.shape[0] == len(order):
            weight, bias = weight[order], bias[order]
        layer.weight.set_value(weight)
        layer.bias.set_value(bias)
    numpy.testing.assert_allclose(backbone(permuted).numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resmlp_nano", "gmlp_nano"])
def test_every_branch_drops_images_of_its_own(name):
    paddle.seed(3)
    backbone = build_backbone({"name": name, "num_blocks": 3, "drop_path_rate": 0.3})
    calls = []
    for block in backbone.blocks:
        block.drop_path.register_forward_post_hook(
            lambda layer, inputs, output: calls.append((output.abs().max(axis=[1, 2]) == 0).numpy()))
    images = paddle.randn([64, 3, 32, 32])
    backbone(images)
    masks = numpy.array(calls)  # [branches, images]
    assert len(masks) == (6 if name == "resmlp_nano" else 3)
    assert (masks.mean(axis=1) > 0.1).all()
    assert masks.mean() == pytest.approx(0.3, abs=0.1)
    assert len({mask.tobytes() for mask in masks}) == len(masks)


@pytest.mark.parametrize(("name", "scale"), [
    ("resmlp_s12", 0.1), ("resmlp_s24", 1e-5), ("resmlp_s36", 1e-6), ("resmlp_b24", 1e-6), ("resmlp_b24_8", 1e-6)])
def test_resmlp_initial_layer_scales(name, scale):
    backbone = build_backbone({"name": name, "img_size": 32, "patch_size": 8, "embed_dim": 12, "num_blocks": 2})
    for block in backbone.blocks:
        numpy.testing.assert_allclose(block.gamma_1.numpy(), scale, rtol=1e-6)
        numpy.testing.assert_allclose(block.gamma_2.numpy(), scale, rtol=1e-6)


def test_gmlp_initial_weights():
    paddle.seed(0)
    nano = build_backbone("gmlp_nano")
    block = nano.blocks[0]
    for layer, fans in ((block.fc1, 96 + 576), (block.fc2, 288 + 96)):
        assert float(layer.weight.std()) == pytest.approx(math.sqrt(2 / fans), rel=0.03)
        assert float(layer.bias.std()) == pytest.approx(1e-6, rel=0.3)
    assert float(block.gate.token_mixing.weight.std()) == pytest.approx(1e-6, rel=0.05)
    assert (block.gate.token_mixing.bias.numpy() == 1).all()
    assert float(nano.stem.weight.std()) == pytest.approx(1 / math.sqrt(48), rel=0.05)
    assert float(nano.stem.bias.abs().max()) == 0
    gates = {block.gate.norm for block in nano.blocks}
    others = [layer for layer in nano.sublayers() if isinstance(layer, LayerNorm) and layer not in gates]
    assert {layer.epsilon for layer in gates} == {1e-5}
    assert {layer.epsilon for layer in others} == {1e-6}


def test_a_new_gate_passes_the_first_half_and_a_filled_one_follows_its_formula():
    gate, rng = SpatialGatingUnit(5, 6), numpy.random.default_rng(0)
    x = rng.normal(size=(2, 5, 6)).astype("float32")
    numpy.testing.assert_allclose(gate(paddle.to_tensor(x)).numpy(), x[..., :3], rtol=1e-4)
    random_parameters(gate)
    v = x[..., 3:]
    normed = (v - v.mean(-1, keepdims=True)) / numpy.sqrt(v.var(-1, keepdims=True) + 1e-5)
    normed = normed * gate.norm.weight.numpy() + gate.norm.bias.numpy()
    weight, bias = gate.token_mixing.weight.numpy(), gate.token_mixing.bias.numpy()
    expected = numpy.zeros((2, 5, 3))
    for b, s, c in numpy.ndindex(expected.shape):
        expected[b, s, c] = x[b, s, c] * (sum(weight[s, t] * normed[b, t, c] for t in range(5)) + bias[s])
    numpy.testing.assert_allclose(gate(paddle.to_tensor(x)).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_tanh_gelu_is_close_but_another_function():
    erf, tanh = small("MlpMixer"), small("MlpMixer", act="gelu_tanh")
    tanh.set_state_dict(erf.state_dict())
    images = paddle.randn([2, 3, 16, 16])
    assert 0 < float((erf(images) - tanh(images)).abs().max()) < 0.02


def normed(norm, x):
    return batch_norm(norm, x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def test_relu_comes_before_the_norm_and_the_residual_spans_the_depthwise_part_only():
    paddle.seed(0)
    block = ConvMixerBlock(3, kernel_size=3, act="relu")
    block.eval()
    rng = numpy.random.default_rng(0)
    for norm in (block.norm1, block.norm2):
        for tensor in (norm._mean, norm._variance, norm.weight, norm.bias):
            tensor.set_value(rng.uniform(0.5, 1.5, 3).astype("float32"))
    x = rng.normal(size=(2, 3, 4, 5)).astype("float32")
    padded = numpy.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    kernel, bias = block.depthwise.weight.numpy(), block.depthwise.bias.numpy()
    spatial = numpy.zeros_like(x)
    for b, c, i, j in numpy.ndindex(x.shape):
        spatial[b, c, i, j] = (padded[b, c, i:i + 3, j:j + 3] * kernel[c, 0]).sum() + bias[c]
    y = x + normed(block.norm1, numpy.maximum(spatial, 0))
    weight, bias = block.pointwise.weight.numpy()[:, :, 0, 0], block.pointwise.bias.numpy()
    channel = numpy.einsum("oc,bchw->bohw", weight, y) + bias.reshape(1, 3, 1, 1)
    expected = normed(block.norm2, numpy.maximum(channel, 0))
    numpy.testing.assert_allclose(block(paddle.to_tensor(x)).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_published_relu_variant_is_relu():
    for name, act in (("conv_mixer_768_32", "relu"), ("conv_mixer_1024_20", "gelu")):
        block = build_backbone({"name": name, "embed_dim": 8, "num_blocks": 1}).blocks[0]
        assert block.norm1.pre_act == block.norm2.pre_act == act
