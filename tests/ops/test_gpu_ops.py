"""The operators that a GPU takes, on the CPU as far as it has them; tests/test_gpu.py has the rest."""
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from passl_mixer.layers.convolution import Conv2D
from passl_mixer.ops import gpu_ops


def close(one, other):
    np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "padding", "groups"),
                         [(3, 1, 1, 1), (3, 2, 1, 1), (5, 1, 2, 6), (2, 2, 0, 2), ((1, 3), 1, (0, 1), 3)])
def test_a_convolution_of_maps_as_they_lie_is_the_transposed_one(kernel, stride, padding, groups):
    """The same numbers and gradients, from the same parameters."""
    paddle.seed(0)
    layer = Conv2D(6, 6, kernel, stride=stride, padding=padding, groups=groups)
    x = paddle.rand([2, 8, 8, 6])
    grads = []
    for run in (lambda: layer(x, channels_last=True),
                lambda: gpu_ops.conv2d(x, layer.weight, layer.bias, stride=stride, padding=padding, groups=groups)):
        x.stop_gradient = False
        y = run()
        (y * paddle.linspace(0, 1, y.size).reshape(y.shape)).sum().backward()
        grads.append([y.detach(), x.grad, layer.weight.grad, layer.bias.grad])
        x.clear_gradient(set_to_zero=False)
        for p in layer.parameters():
            p.clear_gradient(set_to_zero=False)
    for one, other in zip(*grads):
        close(one, other)


def test_without_a_fused_product_the_plain_one_is_taken():
    """On the CPU there is none: either ``F.linear`` has the kernel itself, or the trial fails."""
    gpu_ops.fused_linear.cache_clear()
    assert gpu_ops.fused_linear() is F.linear


def test_tensors_of_a_cpu_are_not_on_a_gpu():
    assert not gpu_ops.on_gpu(paddle.ones([1]))
