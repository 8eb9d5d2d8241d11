"""The compiled max-pooling gives what Paddle's does, in both layouts; of equal pixels the first gets the gradient."""
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from helpers.gradients import run_with_gradients
from helpers.marks import needs_native

from passl_mixer.layers.pooling import MaxPool2D

WINDOWS = [(1, 1, 0), (2, 2, 0), (3, 2, 1), (3, 1, 1), (3, 3, 0), (5, 3, 2), (4, 2, 2), (15, 4, 7), (17, 4, 8)]
SHAPES = [[2, 3, 9, 7], [1, 5, 1, 2], [3, 1, 2, 17], [2, 40, 30, 31], [4, 8, 112, 112]]


def pool_of(window, channels_last: bool = False) -> MaxPool2D:
    kernel, stride, padding = window
    pool = MaxPool2D(kernel, stride=stride, padding=padding)
    pool.data_format = "NHWC" if channels_last else "NCHW"
    return pool


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("shape", SHAPES)
def test_same_as_paddle(shape, window, channels_last):
    if min(shape[2:]) + 2 * window[2] < window[0]:
        pytest.skip("the window is larger than the map")
    if channels_last:
        shape = [shape[0], *shape[2:], shape[1]]
    x = np.random.default_rng(0).integers(-2, 3, shape).astype("float32")      # many are equal
    layout = "NHWC" if channels_last else "NCHW"
    ours = run_with_gradients(pool_of(window, channels_last), [x])
    theirs = run_with_gradients(lambda x: F.max_pool2d(x, *window, data_format=layout), [x])
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=1e-6 * max(1, np.abs(theirs[1]).max()))


@needs_native
@pytest.mark.parametrize("channels_last", [False, True])
def test_what_is_not_a_number_stays_so(channels_last):
    x = np.zeros([1, 1, 6, 6], "float32")
    x[0, 0, 2, 3], x[0, 0, 5, 5] = np.nan, -np.inf
    shown = x.transpose(0, 2, 3, 1) if channels_last else x
    y = pool_of((2, 2, 0), channels_last)(paddle.to_tensor(shown)).numpy().reshape(3, 3)
    assert np.isnan(y[1, 1])
    assert np.isnan(y).sum() == 1
    least = pool_of((2, 2, 0))(paddle.full([1, 1, 2, 2], -np.inf))
    assert least.item() == -np.inf


@needs_native
def test_a_transposed_map_is_read_as_it_is_seen():
    x = np.random.default_rng(0).standard_normal([2, 8, 7, 3]).astype("float32")
    pool = pool_of((3, 2, 1))
    seen = run_with_gradients(lambda x: pool(x.transpose([0, 3, 1, 2])), [x])
    copied = run_with_gradients(pool, [x.transpose(0, 3, 1, 2).copy()])
    np.testing.assert_array_equal(seen[0], copied[0])
    np.testing.assert_array_equal(seen[1], copied[1].transpose(0, 2, 3, 1))
