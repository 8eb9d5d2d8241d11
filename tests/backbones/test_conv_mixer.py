"""ConvMixer: its block against the definition."""

import numpy
import paddle
from helpers.definitions import batch_norm

from passl_mixer.backbones import build_backbone
from passl_mixer.backbones.conv_mixer import ConvMixerBlock


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
        assert block.norm1.before == block.norm2.before == act
