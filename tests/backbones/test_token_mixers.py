"""ResMLP and gMLP, and what the size-bound families share with the Mixer: patches have no order of their own."""
import math

import numpy
import paddle
import pytest

from passl_mixer.backbones import build_backbone
from passl_mixer.backbones.gmlp import SpatialGatingUnit
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import DropPath, LayerNorm, TokenLinear

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "num_blocks": 2}
FAMILIES = ["ResMLP", "GMLP"]
NANOS = ["resmlp_nano", "gmlp_nano"]


def small(name, **options):
    backbone = build_backbone({"name": name, **SMALL, **options})
    backbone.eval()
    return backbone


def randomise(backbone, seed=0):
    """Give every parameter asymmetric values; initial ones are too small or too regular to show a mistake."""
    rng = numpy.random.default_rng(seed)
    for parameter in backbone.parameters():
        parameter.set_value(rng.normal(0.1, 0.3, parameter.shape).astype("float32"))


def permute_patches(images, order, patch, grid):
    """Images whose patch i, row-major, is patch ``order[i]`` of the given ones."""
    b, c = images.shape[:2]
    tiles = images.reshape(b, c, grid[0], patch, grid[1], patch).transpose(0, 1, 2, 4, 3, 5)
    tiles = tiles.reshape(b, c, -1, patch, patch)[:, :, order].reshape(b, c, *grid, patch, patch)
    return tiles.transpose(0, 1, 2, 4, 3, 5).reshape(images.shape)


@pytest.mark.parametrize("name", ["MlpMixer", *FAMILIES])
def test_permuting_patches_and_token_weights_together_changes_nothing(name):
    # 6 tokens; the Mixer has 8 hidden ones, which are not permuted.
    backbone, rng = small(name, img_size=[16, 24], embed_dim=16), numpy.random.default_rng(1)
    randomise(backbone)
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


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_gets_a_gradient(name):
    paddle.seed(0)
    backbone = small(name, in_chans=4, act="gelu_tanh")
    features = backbone(paddle.randn([2, 4, 32, 32]))
    (features * paddle.randn(features.shape)).sum().backward()
    for parameter_name, parameter in backbone.named_parameters():
        assert float(parameter.grad.abs().max()) > 0, parameter_name


@pytest.mark.parametrize("name", FAMILIES)
def test_the_map_averages_to_its_feature_and_images_do_not_mix(name):
    backbone = small(name, img_size=[16, 24])
    randomise(backbone)
    images = paddle.randn([3, 3, 16, 24])
    features, maps = backbone(images), backbone.feature_maps(images)
    assert [m.shape for m in maps] == [[3, backbone.feature_channels[0], 2, 3]]
    assert backbone.feature_strides == (8,)
    numpy.testing.assert_allclose(maps[0].mean(axis=[2, 3]).numpy(), features.numpy(), rtol=1e-4, atol=1e-5)
    numpy.testing.assert_allclose(backbone(images[1:2]).numpy(), features[1:2].numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [28, 32, 36])
@pytest.mark.parametrize("name", NANOS)
def test_nano_takes_small_images(name, size):
    nano = build_backbone({"name": name, "img_size": size})
    nano.eval()
    assert nano.feature_maps(paddle.randn([1, 3, size, size]))[0].shape[2:] == [size // 4, size // 4]
    with pytest.raises(BadInput, match=f"img_size {size} x {size}"):
        nano(paddle.zeros([1, 3, 40, 40]))


@pytest.mark.parametrize("name", NANOS)
def test_drop_path_is_constant_and_acts_in_training_only(name):
    paddle.seed(3)
    backbone = build_backbone({"name": name, "num_blocks": 3, "drop_path_rate": 0.3})
    assert [layer.rate for layer in backbone.sublayers() if isinstance(layer, DropPath)] == [0.3] * 3
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
    backbone.eval()
    assert float((backbone(images[:2]) - backbone(images[:2])).abs().max()) == 0


def test_resmlp_initial_weights():
    paddle.seed(0)
    nano = build_backbone("resmlp_nano")
    block, bound = nano.blocks[0], 1 / math.sqrt(48)
    for layer in (block.token_mixing, block.mlp.fc1, block.mlp.fc2):
        assert float(layer.weight.std()) == pytest.approx(0.02, rel=0.15)  # Paddle 2.6 cuts it
        assert float(layer.bias.abs().max()) == 0
    for tensor in (nano.stem.weight, nano.stem.bias):
        assert float(tensor.std()) == pytest.approx(bound / math.sqrt(3), rel=0.15)
        assert 0.9 * bound < float(tensor.abs().max()) <= bound
    for affine in (block.norm1, block.norm2, nano.norm):
        assert (affine.alpha.numpy() == 1).all()
        assert (affine.beta.numpy() == 0).all()


@pytest.mark.parametrize(("name", "scale"), [
    ("resmlp_s12", 0.1), ("resmlp_s24", 1e-5), ("resmlp_s36", 1e-6), ("resmlp_b24", 1e-6), ("resmlp_b24_8", 1e-6)])
def test_resmlp_initial_layer_scales(name, scale):
    backbone = build_backbone({"name": name, **SMALL})
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
    randomise(gate)
    v = x[..., 3:]
    normed = (v - v.mean(-1, keepdims=True)) / numpy.sqrt(v.var(-1, keepdims=True) + 1e-5)
    normed = normed * gate.norm.weight.numpy() + gate.norm.bias.numpy()
    weight, bias = gate.token_mixing.weight.numpy(), gate.token_mixing.bias.numpy()
    expected = numpy.zeros((2, 5, 3))
    for b, s, c in numpy.ndindex(expected.shape):
        expected[b, s, c] = x[b, s, c] * (sum(weight[s, t] * normed[b, t, c] for t in range(5)) + bias[s])
    numpy.testing.assert_allclose(gate(paddle.to_tensor(x)).numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("options", "words"), [
    ({"img_size": 30}, r"30 x 30 is not a multiple of patch_size 8; change img_size \(to 32 x 32, say\)"),
    ({"img_size": [32, 3]}, r"32 x 3 is not.*\(to 32 x 8, say\)"),
    ({"num_blocks": 0}, "num_blocks is 0"),
    ({"mlp_ratio": 0.05}, "mlp_ratio 0.05"),
    ({"drop_path_rate": 1.0}, "drop_path_rate is 1.0"),
    ({"act": "gelu_tan"}, "did you mean 'gelu_tanh'"),
])
def test_options_that_do_not_fit(name, options, words):
    with pytest.raises(BadInput, match=words):
        small(name, **options)


def test_options_of_one_family_that_do_not_fit():
    with pytest.raises(BadInput, match="layer_scale_init is 0"):
        small("ResMLP", layer_scale_init=0.0)
    with pytest.raises(BadInput, match="gives 27 hidden channels, expected an even number"):
        small("GMLP", embed_dim=9, mlp_ratio=3)
    with pytest.raises(BadInput, match=r"expected \[B, 3, H, W\]"):
        small("GMLP")(paddle.zeros([1, 1, 32, 32]))
