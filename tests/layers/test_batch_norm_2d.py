"""BatchNorm2D, whose pass on a CPU does the ReLU beside it too: its definition, and Paddle's operators."""
import numpy as np
import paddle
import pytest
from helpers.marks import needs_native

from passl_mixer.layers.batch_norm import BatchNorm2D, synchronise
from passl_mixer.ops import native

ACTS = [(None, None), ("relu", None), (None, "relu"), ("relu", "relu"), ("gelu", None), (None, "gelu_tanh")]
LAYOUTS = {False: "NCHW", True: "NHWC"}
SHAPES = [[2, 1, 1, 1], [3, 5, 1, 1], [2, 3, 4, 5], [4, 17, 7, 7], [1, 2, 130, 131], [9, 40, 33, 30], [2, 600, 9, 11]]


def norm_of(channels: int, **options) -> BatchNorm2D:
    norm, rng = BatchNorm2D(channels, **options), np.random.default_rng(1)
    norm.weight.set_value(rng.uniform(0.5, 2, [channels]).astype("float32"))
    norm.bias.set_value(rng.standard_normal([channels]).astype("float32"))
    norm._mean.set_value(rng.standard_normal([channels]).astype("float32"))
    norm._variance.set_value(rng.uniform(0.5, 2, [channels]).astype("float32"))
    return norm


def arrays(shape) -> tuple:
    rng = np.random.default_rng(0)
    return (3 * rng.standard_normal(shape) + 1).astype("float32"), rng.standard_normal(shape).astype("float32")


def everything(norm, x, grad, frozen=(), plus=None) -> list:
    """Output, gradients of input (and of what is added), weight and bias, running statistics; layout as of ``norm``."""
    last = norm.data_format == "NHWC"
    x, grad, *others = (paddle.to_tensor(a.transpose(0, 2, 3, 1) if last else a)
                        for a in (x, grad, *([] if plus is None else [plus])))
    inputs = [x, norm.weight, norm.bias, *others]
    for i, tensor in enumerate(inputs):
        tensor.stop_gradient = i in frozen
    y = norm(x, residual=others[0] if others else None)
    y.backward(grad)
    maps = [None if a is None else a.numpy().transpose(0, 3, 1, 2) if last else a.numpy()
            for a in (y, x.grad, *(other.grad for other in others))]
    return [*maps, *(t.grad if t.grad is None else t.grad.numpy() for t in inputs[1:3]),
            norm._mean.numpy(), norm._variance.numpy()]


def by_definition(norm, x, grad, plus=None) -> list:
    """The same in float64, without activations or with a ReLU before or after."""
    x, grad, other = (np.asarray(a, "float64") for a in (x, grad, 0.0 if plus is None else plus))
    weight, bias, mean, variance = (t.numpy().astype("float64")[:, None, None]
                                    for t in (norm.weight, norm.bias, norm._mean, norm._variance))
    count, axes = x.size / x.shape[1], (0, 2, 3)
    v = np.maximum(x, 0) if norm.pre_act else x
    own, square = v.mean(axes, keepdims=True)[0], v.var(axes, keepdims=True)[0]
    scale = 1 / np.sqrt(square + 1e-5)
    normed = (v - own) * scale
    y = normed * weight + bias + other
    grad = grad * (y > 0) if norm.post_act else grad
    y = np.maximum(y, 0) if norm.post_act else y
    dweight, dbias = (a.sum(axes) for a in (grad * normed, grad))
    dx = weight * scale * (grad - (dbias[:, None, None] + normed * dweight[:, None, None]) / count)
    dx = dx * (x > 0) if norm.pre_act else dx
    running = [(0.9 * old + 0.1 * new)[:, 0, 0] for old, new in ((mean, own), (variance, square))]
    return [y, dx, *([] if plus is None else [grad]), dweight, dbias, *running]


@needs_native
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("acts", ACTS[:4])
@pytest.mark.parametrize("shape", SHAPES)
def test_training_in_float64(shape, acts, channels_last, summed):
    x, grad = arrays(shape)
    if acts[1] and np.prod(shape) == 2:
        pytest.skip("two numbers lie at -1 and 1 at any rounding, and a shift puts one at 0")
    plus = np.random.default_rng(2).standard_normal(shape).astype("float32") if summed else None
    norm = norm_of(shape[1], pre_act=acts[0], post_act=acts[1], data_format=LAYOUTS[channels_last])
    want = by_definition(norm, x, grad, plus)
    root = (x.size // shape[1]) ** 0.5      # of the terms of a sum
    sizes = (1, 1, *([1] if summed else []), root, root, 1, 1)
    for found, wanted, size in zip(everything(norm, x, grad, plus=plus), want, sizes):
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6 * max(np.abs(wanted).max(), size))


@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("acts", ACTS)
@pytest.mark.parametrize("training", [True, False])
def test_as_paddle_s_operators_and_as_across_processes(monkeypatch, training, acts, channels_last, summed):
    x, grad = arrays([5, 6, 40, 30])
    plus = grad[::-1].copy() if summed else None
    options = {"pre_act": acts[0], "post_act": acts[1], "data_format": LAYOUTS[channels_last]}
    first, last, other = (norm_of(6, **options) for _ in range(3))
    spanning = paddle.nn.Sequential(other)
    synchronise(spanning)
    for norm in (first, last, spanning[0]):
        norm.training = training
    found = [everything(norm, x, grad, plus=plus) for norm in (first, spanning[0])]
    with paddle.no_grad():
        given = [None if a is None else paddle.to_tensor(a.transpose(0, 2, 3, 1) if channels_last else a)
                 for a in (x, plus)]
        quiet = first(given[0], residual=given[1]).numpy()
    monkeypatch.setattr(native, "load", lambda: None)
    want = everything(last, x, grad, plus=plus)
    for ours in found:
        for one, theirs in zip(ours, want):
            np.testing.assert_allclose(one, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())
    if not training:            # without gradients by the pass
        quiet = quiet.transpose(0, 3, 1, 2) if channels_last else quiet
        np.testing.assert_allclose(quiet, want[0], rtol=1e-5, atol=1e-5)


@needs_native
def test_a_sum_of_other_shape_is_refused():
    with pytest.raises(ValueError, match=r"a map \[2, 3, 4, 1\] .* map \[2, 3, 4, 5\]"):
        norm_of(3)(paddle.zeros([2, 3, 4, 5]), residual=paddle.zeros([2, 3, 4, 1]))


@needs_native
@pytest.mark.parametrize(("summed", "frozen"), [(False, (0,)), (False, (1,)), (False, (1, 2)), (False, (0, 2)),
                                                (True, (0,)), (True, (3,)), (True, (1, 2, 3)), (True, (0, 3)),
                                                (True, (0, 1, 2))])
def test_gradients_where_they_are_wanted(summed, frozen):
    x, grad = arrays([2, 3, 4, 5])
    after, plus, inputs = ("relu", grad, (0, 3, 1, 2)) if summed else (None, None, (0, 1, 2))
    all_of_them, some = (everything(norm_of(3, post_act=after), x, grad, which, plus) for which in ((), frozen))
    for place, whole, part in zip(inputs, all_of_them[1:], some[1:]):
        assert (part is None) == (place in frozen)
        if part is not None:
            np.testing.assert_array_equal(part, whole)


@needs_native
@pytest.mark.parametrize("training", [True, False])
def test_what_is_not_a_number_stays_so(training):
    x, _ = arrays([2, 3, 4, 5])
    x[1, 2, 3, 4] = np.nan
    for acts in ACTS[:4]:
        norm = norm_of(3, pre_act=acts[0], post_act=acts[1])
        norm.training = training
        with paddle.no_grad():          # Paddle's own ReLU makes it 0
            y = norm(paddle.to_tensor(x)).numpy()
        np.testing.assert_array_equal(np.isnan(y).any((0, 2, 3)), [False, False, True])
        assert np.isnan(y[1, 2, 3, 4])


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("acts", ACTS)
def test_the_norm_that_spans_processes_keeps_layout_and_activations(acts, channels_last):
    x, grad = arrays([3, 4, 6, 5])
    options = {"pre_act": acts[0], "post_act": acts[1], "data_format": LAYOUTS[channels_last]}
    model = paddle.nn.Sequential(norm_of(4, **options))
    synchronise(model)
    assert type(model[0]) is not BatchNorm2D
    for found, wanted in zip(everything(model[0], x, grad), everything(norm_of(4, **options), x, grad)):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
