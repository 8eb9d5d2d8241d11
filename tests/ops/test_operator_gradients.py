"""Every operator under ``paddle.grad``: any part of its inputs, and twice; against Paddle's in float64."""
import gc
import itertools
import math

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from helpers.marks import needs_native
from paddle import nn

from passl_mixer import ops
from passl_mixer.layers import batch_norm
from passl_mixer.layers.batch_norm import SyncBatchNorm
from passl_mixer.ops import gradients
from passl_mixer.ops.activations import GELUS

pytestmark = needs_native
MAP, CHANNEL = (2, 4, 5, 6), (6,)


def _fixed(norm, x, weight, bias):
    norm.eval()
    for name, value in (("_mean", 0.3), ("_variance", 1.7)):
        getattr(norm, name).set_value(paddle.full([6], value))
    del norm._parameters["weight"], norm._parameters["bias"]
    norm.weight, norm.bias = weight, bias
    return norm(x)


def _synchronised(x, weight, bias, data_format):
    holder = SyncBatchNorm(nn.BatchNorm2D(weight.shape[0], data_format=data_format))
    del holder._parameters["weight"], holder._parameters["bias"]
    holder.weight, holder.bias = weight, bias
    return holder(x)


def _batch(x, weight, bias, data_format):
    start = [paddle.full(weight.shape, value, x.dtype) for value in (0.0, 1.0)]
    return F.batch_norm(x, *start, weight, bias, training=True, data_format=data_format)


def _trained(x, weight, bias, other=None, *, channels_last, relus):
    statistics = [paddle.full(weight.shape, value) for value in (0.0, 1.0)]
    return ops.batch_norm(x, weight, bias, *statistics, other, training=True, momentum=0.9, epsilon=1e-5,
                          data_format="NHWC" if channels_last else "NCHW", pre_act="relu" if relus[0] else None,
                          post_act="relu" if relus[1] else None)


def _trained_by_paddle(x, weight, bias, other=None, *, channels_last, relus):
    y = _batch(F.relu(x) if relus[0] else x, weight, bias, "NHWC" if channels_last else "NCHW")
    y = y if other is None else y + other
    return F.relu(y) if relus[1] else y


def _image_norm(x, weight, bias):
    size = math.prod(x.shape[1:])
    one, none = paddle.ones([size], x.dtype), paddle.zeros([size], x.dtype)
    return F.layer_norm(x.reshape([-1, size]), [size], one, none, 1e-5).reshape(x.shape) * weight + bias


def _convolution(x_bhwc, weight, bias=None, **options):
    y = F.conv2d(x_bhwc.transpose([0, 3, 1, 2]), weight, bias, **options)
    return y.transpose([0, 2, 3, 1])


def _quarters(x_bhwc, first_axes):
    return paddle.concat(ops.TABLE["shift_quarters"].reference(x_bhwc, first_axes), axis=-1)


def _depthwise(x, weight, bias):
    return ops.conv2d(x, weight, bias, padding=1, groups=6, data_format="NHWC")


def _weighed(a, b, c, *shares):
    return sum(branch * share.unsqueeze([1, 2]) for branch, share in zip((a, b, c), shares))


def _unfolded(amplitude, phase):
    return paddle.concat([amplitude * paddle.cos(phase), amplitude * paddle.sin(phase)], -1)


def _windows(x_bhwc, parts, heads, side, shifts):
    batch, height, width, channels = x_bhwc.shape
    x = paddle.roll(x_bhwc, [-shift for shift in shifts], [1, 2])
    x = x.reshape([batch, height // side, side, width // side, side, parts, heads, channels // parts // heads])
    x = x.transpose([5, 0, 1, 3, 6, 2, 4, 7])
    return x.reshape([parts, batch, -1, heads, side * side, channels // parts // heads]).unbind(0)


def _weighed_squares(tensors):
    return paddle.add_n([(k + 1) * t * t for k, t in enumerate(tensors)])


def _pool(x):
    return ops.max_pool2d(x, 3, stride=2, padding=1)


def _bn(channels_last, relus):
    options = {"channels_last": channels_last, "relus": relus}
    return lambda *t: _trained(*t, **options), lambda *t: _trained_by_paddle(*t, **options)


LINEAR = [(2, 5, 7), (7, 4), (4,)]
TOKENS = [(2, 5, 7), (3, 5), (3,)]
BCHW = (2, 6, 4, 5)
# name: (ours, Paddle's, shapes of the inputs)
CASES = {
    "gelu": (lambda x: ops.activate(x, "gelu"), F.gelu, [(3, 40)]),
    "gelu_tanh": (lambda x: ops.activate(x, "gelu_tanh"), lambda x: F.gelu(x, True), [(3, 40)]),
    "layer_norm": (lambda *t: ops.layer_norm(*t, 1e-5), lambda x, w, b: F.layer_norm(x, [7], w, b, 1e-5),
                   [(2, 5, 7), (7,), (7,)]),
    "linear": (ops.linear, F.linear, LINEAR),
    "token_linear": (ops.token_linear, lambda x, w, b: paddle.matmul(w, x) + b.unsqueeze(-1), TOKENS),
    "linear_gelu": (lambda *t: ops.linear(*t, "gelu"), lambda *t: F.gelu(F.linear(*t)), LINEAR),
    "token_linear_gelu": (lambda *t: ops.token_linear(*t, "gelu_tanh"),
                          lambda x, w, b: F.gelu(paddle.matmul(w, x) + b.unsqueeze(-1), True), TOKENS),
    "image_norm": (lambda *t: ops.group_norm1(*t, 1e-5), _image_norm, [MAP, CHANNEL, CHANNEL]),
    "batch_norm": (*_bn(True, (False, False)), [MAP, CHANNEL, CHANNEL]),
    "batch_norm of maps": (*_bn(False, (False, True)), [BCHW, CHANNEL, CHANNEL]),
    "batch_norm after ReLU": (*_bn(True, (True, False)), [MAP, CHANNEL, CHANNEL]),
    "batch_norm and a sum": (*_bn(False, (False, True)), [BCHW, CHANNEL, CHANNEL, BCHW]),
    "BatchNorm2D in evaluation": (
        lambda *t: _fixed(batch_norm.BatchNorm2D(6, data_format="NHWC"), *t),
        lambda x, w, b: (x - 0.3) / math.sqrt(1.7 + 1e-5) * w + b, [MAP, CHANNEL, CHANNEL]),
    "SyncBatchNorm": (lambda *t: _synchronised(*t, "NCHW"), lambda *t: _batch(*t, "NCHW"), [BCHW, CHANNEL, CHANNEL]),
    "SyncBatchNorm of rows": (lambda *t: _synchronised(*t, "NHWC"), lambda *t: _batch(*t, "NHWC"),
                              [MAP, CHANNEL, CHANNEL]),
    "halves": (lambda x: ops.halves(x)[0] * ops.halves(x)[1], lambda x: x[..., :3] * x[..., 3:], [MAP]),
    "product": (ops.multiply, lambda a, b: a * b, [(3, 8), (3, 8)]),
    "unfold_wave": (ops.unfold_wave, _unfolded, [MAP, MAP]),
    "pair_mix": (lambda x, w: ops.conv2d(x, w, padding=[0, 1], groups=3, data_format="NHWC"),
                 lambda x, w: _convolution(x, w, padding=[0, 1], groups=3), [MAP, (3, 2, 1, 3)]),
    "wave_mix": (ops.wave_mix, lambda a, p, w: _convolution(_unfolded(a, p), w, padding=[1, 0], groups=6),
                 [MAP, MAP, (6, 2, 3, 1)]),
    "permute": (lambda x: ops.permute(x, [2, 0, 3, 1]), lambda x: x.transpose([2, 0, 3, 1]), [MAP]),
    "take": (lambda x: ops.take(x, [1, 3, 3, 0, 1], 1),
             lambda x: x.index_select(paddle.to_tensor([1, 3, 3, 0, 1]), 1), [MAP]),
    "move_groups": (lambda x: ops.move_groups(x, 1, [-1, 0, 1]),
                    lambda x: ops.TABLE["move_groups"].reference(x, 1, [-1, 0, 1]), [MAP]),
    "shift_quarters": (lambda x: paddle.concat(ops.shift_quarters(x, [1, 2, 0]), -1),
                       lambda x: _quarters(x, [1, 2, 0]), [(2, 4, 3, 12)]),
    "shift_quarters of one": (lambda x: ops.shift_quarters(x, [2])[0], lambda x: _quarters(x, [2]), [(2, 4, 3, 8)]),
    "cycle_shift": (lambda x: ops.cycle_shift(x, 2), lambda x: ops.TABLE["cycle_shift"].reference(x, 2), [MAP]),
    "branch_mean": (lambda *t: ops.branch_mean(list(t)), lambda *t: paddle.add_n(list(t)).mean([1, 2]), [MAP] * 3),
    "weigh_branches": (lambda *t: ops.weigh_branches(list(t[:3]), list(t[3:])), _weighed, [MAP] * 3 + [(2, 6)] * 3),
    "conv2d": (lambda *t: ops.conv2d(*t, stride=2, padding=1), lambda *t: F.conv2d(*t, stride=2, padding=1),
               [(2, 3, 8, 7), (4, 3, 3, 3), (4,)]),
    "conv2d without bias": (lambda x, w: ops.conv2d(x, w, stride=4, padding=2),
                            lambda x, w: F.conv2d(x, w, stride=4, padding=2), [(2, 3, 17, 19), (4, 3, 7, 7)]),
    "depthwise": (_depthwise, lambda *t: _convolution(*t, padding=1, groups=6), [MAP, (6, 1, 3, 3), (6,)]),
    "max_pool": (_pool, lambda x: F.max_pool2d(x, 3, 2, 1), [(2, 3, 7, 6)]),
    "affine": (ops.affine, lambda x, s, b: x * s + b, [MAP, CHANNEL, CHANNEL]),
    "affine without shift": (ops.affine, lambda x, s: x * s, [MAP, CHANNEL]),
    "add_scaled": (ops.add_scaled, lambda r, x, s: r + x * s, [MAP, MAP, CHANNEL]),
    "softmax": (lambda x: ops.softmax(x, 1), lambda x: F.softmax(x, 1), [(2, 3, 4)]),
    "gelu by Paddle": (lambda x: ops.TABLE["activate"].reference(x, "gelu_tanh"), lambda x: F.gelu(x, True), [(3, 40)]),
    "scaled_softmax": (lambda x, b: ops.scaled_softmax(x, b, 0.3), lambda x, b: F.softmax(0.3 * x + b),
                       [(2, 3, 4), (3, 4)]),
    "split_windows": (lambda x: _weighed_squares(ops.split_windows(x, 3, 2, 2, [1, 0])),
                      lambda x: _weighed_squares(_windows(x, 3, 2, 2, [1, 0])), [(1, 4, 2, 12)]),
    "join_windows": (lambda x: ops.join_windows(x, 4, 2, 2, [1, 0]),
                     lambda x: ops.TABLE["join_windows"].reference(x, 4, 2, 2, [1, 0]), [(1, 2, 2, 4, 3)]),
    "to_regions": (lambda x: ops.to_regions(x, 3, 1, 1),
                   lambda x: paddle.concat([x[:, 3:], x[:, :3], x[:, 3:], x[:, :1]], 1)[:, :6].reshape(
                       [2, 2, 3, 5, 6]).transpose([0, 1, 3, 2, 4]).reshape([2, 2, 5, 18]), [(2, 4, 5, 6)]),
    "from_regions": (lambda x: ops.from_regions(x, 2, 2, 3, 0), lambda x: x.reshape([2, 4, 4, 3])[:, :, :3],
                     [(2, 4, 2, 6)]),
    "roll": (lambda x: ops.roll(x, [1, -2], [1, 2]), lambda x: paddle.roll(x, [1, -2], [1, 2]), [MAP]),
}


def arrays_of(shapes, seed: int = 0) -> list:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def tensors(arrays, dtype: str) -> list:
    return [paddle.to_tensor(a.astype(dtype), stop_gradient=False) for a in arrays]


def loss(function, inputs):
    """A loss whose gradient with respect to the output depends on the output."""
    y = function(*inputs)
    weights = np.random.default_rng(9).standard_normal(y.shape)
    return (paddle.to_tensor(weights.astype(str(y.numpy().dtype))) * y * (1.0 + y)).sum()


def close(found, wanted, tolerance):
    assert found is not None
    assert list(found.shape) == list(wanted.shape)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=tolerance * max(1.0, np.abs(wanted).max()))


def parts(count: int) -> list:
    """All parts of the inputs, or, of many inputs, some."""
    every = [part for size in range(1, count + 1) for part in itertools.combinations(range(count), size)]
    return every if count <= 3 else [part for part in every if len(part) in (1, count)] + [(0, 2), (1, count - 1)]


def references(name: str) -> list:
    """The gradients of Paddle's operators in float64, by the ordinary backward pass."""
    _, theirs, shapes = CASES[name]
    inputs = tensors(arrays_of(shapes), "float64")
    loss(theirs, inputs).backward()
    return [t.grad.numpy() for t in inputs]


@pytest.mark.parametrize("name", CASES)
def test_any_part_of_the_inputs(name):
    ours, _, shapes = CASES[name]
    inputs, wanted = tensors(arrays_of(shapes), "float32"), references(name)
    for part in parts(len(shapes)):
        for gradient, i in zip(paddle.grad(loss(ours, inputs), [inputs[i] for i in part]), part):
            close(gradient, wanted[i], 2e-5)
    total = loss(ours, inputs)
    for part in (parts(len(shapes))[-1], parts(len(shapes))[0]):       # one graph, two passes, the second of a part
        for gradient, i in zip(paddle.grad(total, [inputs[i] for i in part], retain_graph=True), part):
            close(gradient, wanted[i], 2e-5)
    for gradient, want in zip(paddle.grad(2.0 * total, inputs, retain_graph=True), wanted):
        close(gradient, 2.0 * want, 2e-5)
    total.backward()
    loss(ours, inputs).backward()           # added to the first
    for t, want in zip(inputs, wanted):
        close(t.grad, 2.0 * want, 2e-5)


def hessian_times(name: str, directions, epsilon: float = 1e-6) -> list:
    """Central differences of Paddle's first gradients, in float64."""
    _, theirs, shapes = CASES[name]
    found = []
    for sign in (1, -1):
        moved = [a + sign * epsilon * d for a, d in zip(arrays_of(shapes), directions)]
        inputs = tensors(moved, "float64")
        loss(theirs, inputs).backward()
        found.append([t.grad.numpy() for t in inputs])
    return [(plus - minus) / (2 * epsilon) for plus, minus in zip(*found)]


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_gradients(name):
    ours, _, shapes = CASES[name]
    for part in (range(len(shapes)), [0], [len(shapes) - 1]):
        directions = [d if i in part else 0.0 * d for i, d in enumerate(arrays_of(shapes, 5))]
        wanted = hessian_times(name, directions)
        inputs = tensors(arrays_of(shapes), "float32")
        first = paddle.grad(loss(ours, inputs), [inputs[i] for i in part], create_graph=True)
        along = sum((g * paddle.to_tensor(directions[i].astype("float32"))).sum() for g, i in zip(first, part))
        for gradient, want in zip(paddle.grad(along, inputs, retain_graph=True), wanted):
            close(gradient, want, 2e-4)
        along.backward()
        for t, want in zip(inputs, wanted):
            close(t.grad, want, 2e-4)


def test_a_gradient_of_a_gradient_leaves_nothing_behind():
    ours, _, shapes = CASES["linear_gelu"]
    inputs = tensors(arrays_of(shapes), "float32")

    def calls() -> int:
        gc.collect()
        return sum(isinstance(thing, (gradients.Call, gradients.Kept)) for thing in gc.get_objects())

    before = calls()
    for again in (lambda y: y.backward(), lambda y: paddle.grad(y, inputs), lambda y: None):
        (slope,) = paddle.grad(loss(ours, inputs), inputs[:1], create_graph=True)     # two of three inputs pruned
        again(slope.square().sum())
        del slope
        paddle.grad(loss(ours, inputs), inputs[1:2])
        assert calls() == before


@pytest.mark.parametrize("name", ["linear", "gelu", "permute"])
def test_backward_twice_over_one_graph_is_refused(name):
    ours, _, shapes = CASES[name]
    total = loss(ours, tensors(arrays_of(shapes), "float32"))
    total.backward(retain_graph=True)
    with pytest.raises(OSError, match=r"backward\(\) was called twice on one graph"):      # Paddle's, around ours
        total.backward()


def test_no_gradient_costs_no_layer():
    ours, _, shapes = CASES["linear_gelu"]
    inputs = tensors(arrays_of(shapes), "float32")
    with paddle.no_grad():
        assert ours(*inputs).stop_gradient
    for t in inputs:
        t.stop_gradient = True
    assert ours(*inputs).stop_gradient


@pytest.mark.parametrize("act", GELUS)
@pytest.mark.parametrize("fused", [False, True])
def test_gelu_over_all_of_float32(act, fused):
    sizes = np.concatenate([np.logspace(-30, 30, 2001), np.linspace(0, 20, 20001), [3e38]])
    numbers = np.unique(np.concatenate([-sizes, sizes])).astype("float32")
    x = numbers.astype("float64")
    with np.errstate(over="ignore", invalid="ignore"):
        if act == "gelu":
            gate = np.vectorize(math.erfc)(-x / math.sqrt(2)) / 2
            rest = x * np.exp(-x ** 2 / 2) / math.sqrt(2 * math.pi)
        else:
            u = math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)
            gate = 1 / (1 + np.exp(-2 * u))
            slope_of_u = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x ** 2)
            rest = np.where(np.abs(x) < 50, 2 * x * gate / (1 + np.exp(2 * u)) * slope_of_u, 0.0)
    value, slope = x * gate, gate + rest
    ends = np.array([-np.inf, np.inf, np.nan], "float32")           # the limits, and NaN stays NaN
    found = {}
    for name, values in (("numbers", numbers), ("ends", ends)):
        inputs = paddle.to_tensor(values, stop_gradient=False)
        if fused:       # the bias alone moves the product with an empty row
            weight, row = paddle.zeros([1, len(values)]), paddle.zeros([1, 1])
            y = ops.linear(row, weight, inputs, act)
        else:
            y = ops.activate(inputs, act)
        y.sum().backward()
        found[name] = y.numpy().reshape([-1]), inputs.grad.numpy()
    np.testing.assert_allclose(found["numbers"][0] / np.maximum(np.abs(x), 1), value / np.maximum(np.abs(x), 1),
                               rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["numbers"][0][x < -20], 0.0, rtol=0, atol=1e-30)
    np.testing.assert_allclose(found["numbers"][1], slope, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["ends"][0], [0.0, np.inf, np.nan], atol=1e-30)
    np.testing.assert_allclose(found["ends"][1], [0.0, 1.0, np.nan], atol=1e-9)
