"""The native depth-wise convolution against its definition in float64, on every remainder of its blocks."""
import numpy as np
import paddle
import pytest
from helpers.gradients import assert_close
from helpers.marks import needs_native

from passl_mixer import ops
from passl_mixer.ops import table

pytestmark = needs_native
RNG = np.random.default_rng(0)


def depthwise(x_bhwc, weight, bias=None):
    options = {"padding": weight.shape[-1] // 2, "groups": weight.shape[0], "data_format": "NHWC"}
    return ops.conv2d(x_bhwc, weight, bias, **options)


def test_it_is_the_native_kernel_that_computes():
    chosen = table.choose(ops.TABLE["conv2d"], (paddle.ones([1, 4, 5, 3]), paddle.ones([3, 1, 3, 3]), None, 1, 1, 3,
                                                "NHWC"))
    assert chosen.__name__ == "_by_depthwise"


@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9, 11])
@pytest.mark.parametrize("chans", [1, 5, 17, 40, 64, 150])
def test_depthwise_on_every_remainder_of_its_blocks(chans, kernel):
    """Against float64: maps within the kernel and beyond, channels and columns that fill no block."""
    half = kernel // 2
    for height, width in [(1, 1), (1, 13), (2, 5), (5, 2), (13, 1), (5, 13), (13, 8), (30, 17)]:
        shapes = [(2, height, width, chans), (2, height, width, chans), (chans, 1, kernel, kernel), (chans,)]
        x, dy, w, b = (RNG.standard_normal(s).astype("float32").astype("float64") for s in shapes)
        tensors = [paddle.to_tensor(a.astype("float32"), stop_gradient=False) for a in (x, w, b)]
        y = depthwise(*tensors)
        y.backward(paddle.to_tensor(dy.astype("float32")))

        def around(a):
            return np.pad(a, [(0, 0), (half, half), (half, half), (0, 0)])

        want_y, want_dx, want_dw = b + np.zeros_like(x), np.zeros_like(around(x)), np.zeros_like(w)
        for i, j in np.ndindex(kernel, kernel):
            window = np.s_[:, i:i + height, j:j + width]
            want_y += around(x)[window] * w[:, 0, i, j]
            want_dx[window] += dy * w[:, 0, i, j]
            want_dw[:, 0, i, j] = (around(x)[window] * dy).sum((0, 1, 2))
        assert_close([y, tensors[0].grad], [want_y, want_dx[:, half:half + height, half:half + width]], 2e-6)
        for tensor, want in zip(tensors[1:], [want_dw, dy.sum((0, 1, 2))]):
            np.testing.assert_allclose(tensor.grad.numpy(), want, rtol=0, atol=2e-6 * (2 * height * width) ** 0.5)


def test_depthwise_keeps_nan_where_it_was():
    x = RNG.standard_normal((1, 9, 20, 17)).astype("float32")
    x[0, 4, 10, 3] = np.nan
    weight = paddle.to_tensor(RNG.standard_normal((17, 1, 5, 5)).astype("float32"))
    found = np.isnan(depthwise(paddle.to_tensor(x), weight).numpy())
    want = np.zeros_like(found)
    want[0, 2:7, 8:13, 3] = True
    np.testing.assert_array_equal(found, want)


def test_depthwise_of_no_images():
    weight, none = paddle.ones([3, 1, 3, 3]), paddle.zeros([0, 4, 5, 3])
    if paddle.__version__.startswith("2."):
        with pytest.raises(ValueError, match="should not be 0"):       # Paddle's own
            depthwise(none, weight)
    else:
        assert depthwise(none, weight).shape == [0, 4, 5, 3]
