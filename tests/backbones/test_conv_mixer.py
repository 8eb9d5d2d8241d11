"""ConvMixer: its block against the definition, sizes, initial weights, refusals."""
import math

import numpy
import paddle
import pytest

from passl_mixer.backbones import build_backbone
from passl_mixer.backbones.conv_mixer import ConvMixerBlock
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import DropPath

pytestmark = pytest.mark.filterwarnings("ignore:When training, we now always track")

SMALL = {"name": "ConvMixer", "embed_dim": 8, "num_blocks": 2, "kernel_size": 3, "patch_size": 4}


def evaluated(**options):
    backbone = build_backbone({**SMALL, **options})
    backbone.eval()
    return backbone


def normed(norm, x):
    """BatchNorm of [B, C, H, W] with its running statistics."""
    mean, variance, weight, bias = (
        t.numpy().reshape(1, -1, 1, 1) for t in (norm._mean, norm._variance, norm.weight, norm.bias))
    return (x - mean) / numpy.sqrt(variance + 1e-5) * weight + bias


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


@pytest.mark.parametrize("size", [(4, 4), (28, 36), (33, 47), (7, 5)])
def test_any_size_of_a_patch_or_more(size):
    backbone = evaluated()
    images = paddle.randn([2, 3, *size])
    maps = backbone.feature_maps(images)
    assert backbone.img_size is None
    assert [m.shape for m in maps] == [[2, 8, size[0] // 4, size[1] // 4]]
    numpy.testing.assert_allclose(backbone(images).numpy(), maps[0].mean(axis=[2, 3]).numpy(), atol=1e-6)
    assert float((backbone(images)[1:] - backbone(images[1:])).abs().max()) < 1e-5


@pytest.mark.parametrize("size", [28, 32, 36])
def test_nano_takes_small_images(size):
    nano = build_backbone("conv_mixer_nano")
    nano.eval()
    assert nano(paddle.randn([1, 3, size, size])).shape == [1, nano.num_features]


@pytest.mark.parametrize("act", ["gelu", "relu"])
def test_every_parameter_gets_a_gradient(act):
    paddle.seed(0)
    backbone = build_backbone({**SMALL, "in_chans": 4, "act": act})
    features = backbone(paddle.randn([2, 4, 16, 16]))
    (features * paddle.randn(features.shape)).sum().backward()
    for name, parameter in backbone.named_parameters():
        if not parameter.stop_gradient:
            assert float(parameter.grad.abs().max()) > 0, name


def test_the_published_relu_variant_is_relu_and_nothing_drops_paths():
    for name, act in (("conv_mixer_768_32", "relu"), ("conv_mixer_1024_20", "gelu")):
        block = build_backbone({"name": name, "embed_dim": 8, "num_blocks": 1}).blocks[0]
        assert block.norm1.pre_act == block.norm2.pre_act == act
    assert not [layer for layer in evaluated().sublayers() if isinstance(layer, DropPath)]


def test_initial_weights_are_pytorchs_defaults():
    paddle.seed(0)
    nano = build_backbone("conv_mixer_nano")
    for conv, fan_in in ((nano.stem, 48), (nano.blocks[0].depthwise, 25), (nano.blocks[0].pointwise, 256)):
        bound = 1 / math.sqrt(fan_in)
        assert float(conv.weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.03)
        assert 0.98 * bound < float(conv.weight.abs().max()) <= bound
        assert 0.9 * bound < float(conv.bias.abs().max()) <= bound


@pytest.mark.parametrize(("options", "words"), [
    ({"kernel_size": 4}, "kernel_size is 4, expected an odd number; take 3 or 5"),
    ({"patch_size": 0}, "patch_size is 0"),
    ({"num_blocks": 0}, "num_blocks is 0"),
    ({"act": "rellu"}, "did you mean 'relu'"),
    ({"drop_path_rate": 0.1}, "has no option 'drop_path_rate'"),
])
def test_options_that_do_not_fit(options, words):
    with pytest.raises(BadInput, match=words):
        build_backbone({**SMALL, **options})


def test_an_image_smaller_than_a_patch():
    with pytest.raises(BadInput, match="3 x 9 pixels, smaller than a patch; give images of at least 4 x 4"):
        evaluated()(paddle.zeros([1, 3, 3, 9]))
    with pytest.raises(BadInput, match=r"expected \[B, 3, H, W\]"):
        evaluated()(paddle.zeros([1, 1, 8, 8]))


def test_an_exported_program_takes_other_sizes(tmp_path):
    backbone, images = evaluated(), paddle.randn([2, 3, 17, 12])
    expected = backbone(images).numpy()
    spec = [paddle.static.InputSpec([None, 3, None, None])]
    paddle.jit.save(paddle.jit.to_static(backbone, input_spec=spec, full_graph=True), str(tmp_path / "net"))
    exported = paddle.jit.load(str(tmp_path / "net"))
    numpy.testing.assert_allclose(exported(images).numpy(), expected, atol=1e-5)
