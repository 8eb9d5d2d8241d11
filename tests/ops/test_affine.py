"""A factor and a summand per channel by the native kernels: what Paddle's operators and float64 give."""
import numpy as np
import paddle
import pytest
from helpers.gradients import assert_close, run_with_gradients
from helpers.marks import needs_native

from passl_mixer import ops

pytestmark = needs_native
RNG = np.random.default_rng(0)
# the operator, the same in operators, and which inputs have the shape of x
FORMS = {
    "scale": (ops.affine, lambda x, a: x * a, (True, False)),
    "scale and shift": (ops.affine, lambda x, a, b: x * a + b, (True, False, False)),
    "residual": (ops.add_scaled, lambda r, x, a: r + x * a, (True, True, False)),
}
SHAPES = [(3, 5, 7), (1, 1), (6, 3), (4, 9, 11, 24), (2, 70, 130, 16), (70000, 8)]


def arrays_of(form, shape) -> list:
    return [RNG.standard_normal(shape if whole else shape[-1:]).astype("float32") + 1 for whole in FORMS[form][2]]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients(form, shape):
    ours, theirs, _ = FORMS[form]
    arrays = arrays_of(form, shape)
    found = run_with_gradients(ours, arrays)
    assert_close(found, run_with_gradients(theirs, [a.astype("float64") for a in arrays]))
    if np.prod(shape) < 1e4:        # Paddle's own sums lose digits on long ones
        assert_close(found, run_with_gradients(theirs, arrays), 2e-6)


@pytest.mark.parametrize("form", FORMS)
def test_frozen_inputs(form):
    ours, theirs, whole = FORMS[form]
    arrays = arrays_of(form, (40, 30, 20))
    for frozen in [(0,), (1,), (len(whole) - 1,), tuple(range(1, len(whole))), tuple(range(len(whole) - 1))]:
        assert_close(*(run_with_gradients(form, arrays, frozen=frozen) for form in (ours, theirs)), 5e-6)
    with paddle.no_grad():
        inputs = [paddle.to_tensor(a, stop_gradient=False) for a in arrays]
        assert ours(*inputs).stop_gradient


@pytest.mark.parametrize("form", FORMS)
def test_not_finite_stays_not_finite(form):
    ours, theirs, _ = FORMS[form]
    arrays = arrays_of(form, (3, 50))
    arrays[0][1, ::7], arrays[1][..., 3] = np.nan, np.inf
    for got, want in zip(run_with_gradients(ours, arrays), run_with_gradients(theirs, arrays)):
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))


def test_sums_of_many_rows_lose_no_digits():
    """Ones of one sign: sums in float32 alone would be 1e-4 off."""
    x = np.full((1000003, 1), 0.1, "float32")
    tensors = [paddle.to_tensor(a, stop_gradient=False) for a in (x, x[0], x[0])]
    ops.affine(*tensors).sum().backward()
    assert_close([t.grad for t in tensors[1:]], [[x.sum(dtype="float64")], [float(len(x))]])


def test_the_same_at_every_run():
    arrays = arrays_of("scale and shift", (8, 500, 24))
    first = run_with_gradients(ops.affine, arrays)
    for _ in range(3):
        for one, other in zip(first, run_with_gradients(ops.affine, arrays)):
            np.testing.assert_array_equal(one, other)


def test_views_with_strides():
    x = paddle.to_tensor(RNG.standard_normal((3, 8, 6)).astype("float32")).transpose([0, 2, 1])
    scale = paddle.to_tensor(RNG.standard_normal(8).astype("float32"))
    np.testing.assert_allclose(ops.affine(x, scale).numpy(), x.numpy() * scale.numpy(), rtol=1e-6)
    np.testing.assert_allclose(ops.add_scaled(x, x, scale).numpy(), x.numpy() * (1 + scale.numpy()), rtol=1e-5,
                               atol=1e-6)


def test_the_gradient_of_the_residual_is_a_tensor_of_its_own():
    """Paddle adds the gradients of other uses into the first one it got, which must not be the one of the sum."""
    x, scale = (paddle.to_tensor(RNG.standard_normal(s).astype("float32"), stop_gradient=False) for s in [(5, 6), (6,)])
    residual = x * 2
    y = ops.add_scaled(residual, x, scale)
    y.retain_grads()
    (y + residual * 5).sum().backward()
    np.testing.assert_array_equal(y.grad.numpy(), np.ones([5, 6], "float32"))
    np.testing.assert_allclose(x.grad.numpy(), np.broadcast_to(12 + scale.numpy(), [5, 6]), rtol=1e-6)
