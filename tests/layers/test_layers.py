"""The shared layers against their formulas, drop path against its schedule, initial weights."""
import math

import numpy
import paddle
import pytest

from passl_mixer import ops
from passl_mixer.backbones import build_backbone
from passl_mixer.layers.basic import DropPath, LayerNorm, Mlp, TokenLinear, linear_rates


def gelu(x):
    return numpy.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.ravel()]).reshape(x.shape)


def test_mlp_formula():
    mlp = Mlp(3, 5)
    x = numpy.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    hidden = gelu(x @ mlp.fc1.weight.numpy() + mlp.fc1.bias.numpy())
    expected = hidden @ mlp.fc2.weight.numpy() + mlp.fc2.bias.numpy()
    numpy.testing.assert_allclose(mlp(paddle.to_tensor(x)).numpy(), expected, rtol=1e-4, atol=1e-6)


def test_tanh_gelu_formula():
    x = numpy.linspace(-4, 4, 33).astype("float32")
    expected = 0.5 * x * (1 + numpy.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))
    numpy.testing.assert_allclose(ops.activate(paddle.to_tensor(x), "gelu_tanh").numpy(), expected, atol=1e-6)
    numpy.testing.assert_allclose(ops.activate(paddle.to_tensor(x), "gelu").numpy(), gelu(x), atol=1e-6)


def test_layer_norm_formula():
    x = numpy.random.default_rng(1).normal(size=(2, 3, 6)).astype("float32")
    expected = (x - x.mean(-1, keepdims=True)) / numpy.sqrt(x.var(-1, keepdims=True) + 1e-3)
    got = LayerNorm(6, epsilon=1e-3)(paddle.to_tensor(x)).numpy()
    numpy.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_layer_norm_epsilons():
    for name, epsilon in (("mlp_mixer_nano", 1e-6), ("conv_mlp_nano", 1e-5), ("cycle_mlp_nano", 1e-5)):
        layers = [layer for layer in build_backbone(name).sublayers() if isinstance(layer, LayerNorm)]
        assert {layer.epsilon for layer in layers} == {epsilon}


def test_token_linear_maps_the_token_axis():
    layer = TokenLinear(4, 6)
    x = paddle.randn([2, 4, 3])
    expected = numpy.einsum("os,bsc->boc", layer.weight.numpy(), x.numpy()) + layer.bias.numpy()[:, None]
    numpy.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_drop_path_drops_whole_images_and_rescales():
    paddle.seed(0)
    layer = DropPath(0.25)
    y = layer(paddle.ones([4000, 2, 3])).numpy().reshape(4000, -1)
    numpy.testing.assert_allclose(numpy.unique(y), [0.0, 1 / 0.75], rtol=1e-6)
    assert (y == y[:, :1]).all()
    assert abs(y.mean() - 1) < 0.05
    layer.eval()
    assert (layer(paddle.ones([5, 2])).numpy() == 1).all()


def test_one_block_is_not_dropped():
    assert linear_rates(0.3, 1) == [0.0]


def test_initial_weights():
    paddle.seed(0)
    mixer, conv = build_backbone("mlp_mixer_nano"), build_backbone("conv_mlp_nano")
    cycle = build_backbone("cycle_mlp_nano")
    assert float(mixer.stem.weight.std()) == pytest.approx(1 / math.sqrt(48), rel=0.05)
    assert float(mixer.stem.weight.abs().max()) <= 2 / math.sqrt(48) / 0.8796 + 1e-6
    fc1, token = mixer.blocks[0].channel_mlp.fc1, mixer.blocks[0].token_mlp.fc1
    assert float(fc1.weight.std()) == pytest.approx(math.sqrt(2 / (128 + 512)), rel=0.03)
    assert float(token.weight.std()) == pytest.approx(math.sqrt(2 / (64 + 64)), rel=0.05)
    assert 0 < float(fc1.bias.abs().max()) < 1e-5
    for linear in (conv.stages[0].blocks[0].channel_mlp1.fc1, cycle.stages[1][0].mixer.along_width):
        assert float(linear.weight.std()) == pytest.approx(0.02, rel=0.15)  # Paddle 2.6 cuts it
        assert float(linear.bias.abs().max()) == 0
    assert float(conv.conv_blocks[0][3].weight.std()) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.03)
    bound = 1 / math.sqrt(48 * 9)
    assert bound * 0.98 < float(cycle.downsamples[0].weight.abs().max()) <= bound
