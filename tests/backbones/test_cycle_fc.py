"""CycleFC against its two other definitions: the deformable convolution it was published as, and a loop."""
import numpy
import paddle
import pytest
from paddle.vision.ops import deform_conv2d

from passl_mixer.backbones.cycle_mlp import CycleFC
from passl_mixer.weights.cycle_mlp import published_offset


def close(got, expected):
    numpy.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def loop(x_bhwc, weight, bias, axis):
    """y[p] = sum over i of weight[i] * x[p + (0, 1, -1)[i % 3], i], zero outside."""
    shifted = numpy.zeros_like(x_bhwc)
    length = x_bhwc.shape[axis]
    for i in range(x_bhwc.shape[-1]):
        for p in range(length):
            source = p + (0, 1, -1)[i % 3]
            if 0 <= source < length:
                to, of = (slice(None),) * axis + (p,), (slice(None),) * axis + (source,)
                shifted[..., i][to] = x_bhwc[..., i][of]
    return shifted @ weight + bias


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize(("height", "width", "channels"), [(5, 7, 8), (1, 1, 4), (2, 3, 9), (4, 1, 7)])
def test_equals_deform_conv2d_and_a_loop(axis, height, width, channels):
    paddle.seed(channels)
    layer = CycleFC(channels, axis=axis)
    layer.weight.set_value(paddle.randn([channels, channels]))
    layer.bias.set_value(paddle.randn([channels]))
    x_bhwc = paddle.randn([2, height, width, channels])
    x_bhwc.stop_gradient = False
    y_bhwc = layer(x_bhwc)

    offset = paddle.to_tensor(published_offset(channels, moving=axis - 1))
    x_bchw = x_bhwc.detach().transpose([0, 3, 1, 2])
    x_bchw.stop_gradient = False
    kernel = layer.weight.detach().t().reshape([channels, channels, 1, 1])
    offset = offset.expand([2, 2 * channels, height, width])
    reference = deform_conv2d(x_bchw, offset, kernel, layer.bias.detach(), deformable_groups=channels)
    close(y_bhwc.numpy(), reference.numpy().transpose(0, 2, 3, 1))
    close(y_bhwc.numpy(), loop(x_bhwc.numpy(), layer.weight.numpy(), layer.bias.numpy(), axis))

    projection = paddle.randn(y_bhwc.shape)
    (y_bhwc * projection).sum().backward()
    (reference * projection.transpose([0, 3, 1, 2])).sum().backward()
    close(x_bhwc.grad.numpy(), x_bchw.grad.numpy().transpose(0, 2, 3, 1))
