"""The compiled operators on maps give what Paddle's own give, forward and backward."""
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from passl_mixer.backbones.cycle_mlp import cycle_shift
from passl_mixer.layers.convolution import Conv2D
from passl_mixer.ops import map_ops, native

pytestmark = pytest.mark.skipif(native.load() is None, reason=f"no compiled kernels: {native.status()}")
RNG = np.random.default_rng(0)


def both(ours, theirs, arrays, frozen=()):
    """``[(ours, theirs)]`` for the output and for the gradient of every input that is not frozen."""
    found = []
    for function in (ours, theirs):
        inputs = [paddle.to_tensor(a, stop_gradient=i in frozen) for i, a in enumerate(arrays)]
        output = function(*inputs)
        projection = np.random.default_rng(1).standard_normal(output.shape).astype("float32")
        (output * paddle.to_tensor(projection)).sum().backward()
        found.append([output.numpy(), *(t.grad.numpy() for i, t in enumerate(inputs) if i not in frozen)])
    return list(zip(*found))


def close(pairs, tolerance=2e-6):
    for got, want in pairs:
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("shape", [(2, 5, 4, 7), (1, 1, 3, 9), (3, 2, 1, 2)])
def test_cycle_shift(shape, axis):
    def theirs(x):      # sorted by shift there, in the order of the channels here
        order = np.argsort(np.concatenate([np.arange(k, shape[3], 3) for k in range(3)]))
        return cycle_shift(x, axis).index_select(paddle.to_tensor(order), axis=3)

    close(both(lambda x: map_ops.cycle_shift(x, axis), theirs, [RNG.standard_normal(shape).astype("float32")]), 0)


@pytest.mark.parametrize("frozen", [(), (1, 4)])
def test_weighted_branches(frozen):
    arrays = [RNG.standard_normal((2, 3, 5, 8)).astype("float32") for _ in range(3)]
    arrays += [RNG.standard_normal((2, 8)).astype("float32") for _ in range(3)]

    def theirs(x, y, z, a, b, c):
        return x * a.unsqueeze([1, 2]) + y * b.unsqueeze([1, 2]) + z * c.unsqueeze([1, 2])

    close(both(lambda *t: map_ops.weigh_branches(t[:3], t[3:]), theirs, arrays, frozen))


@pytest.mark.parametrize("frozen", [(), (1,)])
def test_mean_of_branches(frozen):
    arrays = [RNG.standard_normal((2, 3, 5, 8)).astype("float32") for _ in range(3)]
    close(both(lambda *t: map_ops.branch_mean(t), lambda *t: paddle.add_n(list(t)).mean(axis=[1, 2]), arrays, frozen))


@pytest.mark.skipif(native.load() is None or not native.load().has_products(), reason="this Paddle brings no MKL")
class TestConvolution:
    # chans, out_chans, kernel, stride, padding, height, width
    SHAPES = [(3, 5, (3, 3), 2, 1, 9, 8), (4, 6, (3, 3), 1, 1, 7, 7), (5, 4, (1, 1), 1, 0, 6, 5),
              (5, 4, (1, 1), 2, 0, 6, 5),
              (3, 8, (4, 4), 4, 0, 8, 12), (3, 4, (7, 7), 4, 2, 17, 19), (2, 3, (1, 3), 1, 2, 4, 4),
              (64, 8, (3, 3), 1, 1, 70, 60), (3, 4, (5, 5), 1, 4, 2, 3),
              # some images at a time above; here one, and rows of one where it is its own patches
              (64, 8, (3, 3), 1, 1, 15, 15), (64, 3, (1, 1), 1, 0, 60, 55)]

    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_same_as_paddle(self, shape, bias):
        chans, out, kernel, stride, padding, height, width = shape
        arrays = [RNG.standard_normal(s).astype("float32")
                  for s in [(3, chans, height, width), (out, chans, *kernel), (out,)][:3 if bias else 2]]
        close(both(lambda x, w, b=None: map_ops.conv2d(x, w, b, stride=stride, padding=padding),
                   lambda x, w, b=None: F.conv2d(x, w, b, stride=stride, padding=padding), arrays), 5e-6)

    def test_images_without_gradient_and_frozen_weights(self):
        arrays = [RNG.standard_normal(s).astype("float32") for s in [(2, 3, 8, 8), (4, 3, 3, 3), (4,)]]
        for frozen in [(0,), (1,), (1, 2), (0, 2)]:
            close(both(lambda *t: map_ops.conv2d(*t, stride=1, padding=1), lambda *t: F.conv2d(*t, padding=1), arrays,
                       frozen), 5e-6)

    def test_the_layer_uses_it_only_without_groups(self):
        x = paddle.to_tensor(RNG.standard_normal((2, 4, 6, 6)).astype("float32"))
        for groups, out in ((1, 8), (2, 8), (4, 8), (4, 4)):
            layer = Conv2D(4, out, 3, padding=1, groups=groups)
            want = F.conv2d(x, layer.weight, layer.bias, padding=1, groups=groups).numpy()
            np.testing.assert_allclose(layer(x).numpy(), want, atol=1e-5)
            last = layer(x.transpose([0, 2, 3, 1]), channels_last=True)
            np.testing.assert_allclose(last.transpose([0, 3, 1, 2]).numpy(), want, atol=1e-5)
            assert map_ops.convolves(x, groups) == (groups == 1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("shape", "kernel"),
                         [((2, 5, 6, 7), 3), ((1, 2, 1, 3), 5), ((3, 9, 8, 40), 9), ((2, 4, 4, 2), 1)])
def test_depthwise(shape, kernel, bias):
    arrays = [RNG.standard_normal(s).astype("float32")
              for s in [shape, (shape[3], 1, kernel, kernel), (shape[3],)][:3 if bias else 2]]

    def theirs(x, w, b=None):
        y = F.conv2d(x.transpose([0, 3, 1, 2]), w, b, padding=kernel // 2, groups=shape[3])
        return y.transpose([0, 2, 3, 1])

    for frozen in [(), (0,), (1,)]:
        close(both(lambda x, w, b=None: map_ops.depthwise(x, w, b), theirs, arrays, frozen), 5e-6)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9, 11])
@pytest.mark.parametrize("chans", [1, 5, 17, 40, 64, 150])
def test_depthwise_on_every_remainder_of_its_blocks(chans, kernel):
    """Against float64: maps within the kernel and beyond, channels and columns that fill no block."""
    half = kernel // 2
    for height, width in [(1, 1), (1, 13), (2, 5), (5, 2), (13, 1), (5, 13), (13, 8), (30, 17)]:
        shapes = [(2, height, width, chans), (2, height, width, chans), (chans, 1, kernel, kernel), (chans,)]
        x, dy, w, b = (RNG.standard_normal(s).astype("float32").astype("float64") for s in shapes)
        tensors = [paddle.to_tensor(a.astype("float32"), stop_gradient=False) for a in (x, w, b)]
        y = map_ops.depthwise(*tensors)
        y.backward(paddle.to_tensor(dy.astype("float32")))

        def around(a):
            return np.pad(a, [(0, 0), (half, half), (half, half), (0, 0)])

        want_y, want_dx, want_dw = b + np.zeros_like(x), np.zeros_like(around(x)), np.zeros_like(w)
        for i, j in np.ndindex(kernel, kernel):
            window = np.s_[:, i:i + height, j:j + width]
            want_y += around(x)[window] * w[:, 0, i, j]
            want_dx[window] += dy * w[:, 0, i, j]
            want_dw[:, 0, i, j] = (around(x)[window] * dy).sum((0, 1, 2))
        close([(y.numpy(), want_y), (tensors[0].grad.numpy(), want_dx[:, half:half + height, half:half + width])])
        for tensor, want in zip(tensors[1:], [want_dw, dy.sum((0, 1, 2))]):
            np.testing.assert_allclose(tensor.grad.numpy(), want, rtol=0, atol=2e-6 * (2 * height * width) ** 0.5)


def test_depthwise_keeps_nan_where_it_was():
    x = RNG.standard_normal((1, 9, 20, 17)).astype("float32")
    x[0, 4, 10, 3] = np.nan
    weight = paddle.to_tensor(RNG.standard_normal((17, 1, 5, 5)).astype("float32"))
    found = np.isnan(map_ops.depthwise(paddle.to_tensor(x), weight, None).numpy())
    want = np.zeros_like(found)
    want[0, 2:7, 8:13, 3] = True
    np.testing.assert_array_equal(found, want)


def test_depthwise_of_no_images():
    weight = paddle.ones([3, 1, 3, 3])
    assert map_ops.depthwise(paddle.zeros([0, 4, 5, 3]), weight, None).shape == [0, 4, 5, 3]


def test_a_view_with_strides_is_read_as_it_looks():
    x = paddle.to_tensor(RNG.standard_normal((2, 6, 4, 5)).astype("float32")).transpose([0, 2, 3, 1])
    copy = paddle.to_tensor(x.numpy())
    np.testing.assert_array_equal(map_ops.cycle_shift(x, 1).numpy(), map_ops.cycle_shift(copy, 1).numpy())
