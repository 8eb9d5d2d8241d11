"""The operator table: every implementation of every operator is held to its reference by the same tests."""
import numpy as np
import paddle
import pytest
from helpers.marks import needs_native
from operator_calls import CASES, Case, arrays_of, assert_close, each, flat, outcome, strided, tensors_of

from passl_mixer import ops
from passl_mixer.ops import native, table

PADDLE_2 = paddle.__version__.startswith("2.")
CALLS = [pytest.param(name, case, id=f"{name} {case.inputs} {case.options}".replace("None", "-"))
         for name, cases in CASES.items() for case in cases]


def expected_of(name: str, case: Case, arrays=None) -> dict:
    """What the reference gives in float64."""
    inputs = tensors_of(case, arrays_of(case) if arrays is None else arrays, "float64")
    return outcome(ops.TABLE[name].reference, case, inputs)


def native_of(name: str, case: Case):
    """The native implementation that a call takes, or None."""
    inputs = tensors_of(case, arrays_of(case), "float32")
    chosen = table.choose(ops.TABLE[name], [*inputs, *case.options])
    return None if chosen is ops.TABLE[name].reference else chosen


def test_every_operator_has_cases():
    assert set(CASES) == set(ops.TABLE)
    assert all(CASES.values())
    assert all(callable(getattr(ops, name)) for name in ops.TABLE)


@needs_native
def test_every_native_implementation_is_reached_by_a_case():
    for name, operator in ops.TABLE.items():
        reached = {native_of(name, case) for case in CASES[name]}
        assert {implementation.run for implementation in operator.columns["native"]} <= reached, name


@needs_native
@pytest.mark.parametrize(("name", "case"), CALLS)
@pytest.mark.parametrize("make", [paddle.to_tensor, strided], ids=["dense", "strided"])
def test_native(name, case, make):
    if native_of(name, case) is None:
        pytest.skip("the reference computes this call")
    got = outcome(ops.TABLE[name], case, tensors_of(case, arrays_of(case), "float32", make))
    assert_close(got, expected_of(name, case), case.tolerance or 1e-7)


@pytest.mark.parametrize(("name", "case"), CALLS)
def test_the_reference_in_single_precision(name, case):
    """With and without the native kernels: ``PASSL_MIXER_NATIVE=0`` means this."""
    got = outcome(ops.TABLE[name].reference, case, tensors_of(case, arrays_of(case), "float32"))
    assert_close(got, expected_of(name, case), 1e-5)


@pytest.mark.parametrize(("name", "case"), CALLS)
def test_gpu(name, case):
    """What a GPU computes by, on tensors of a CPU."""
    for implementation in ops.TABLE[name].columns["gpu"]:
        got = outcome(implementation.run, case, tensors_of(case, arrays_of(case), "float64"))
        assert_close(got, expected_of(name, case), 1e-9)


class Traced(paddle.nn.Layer):
    """One call as a network: its first tensors are what comes in, as one list."""

    def __init__(self, name: str, case: Case, inputs: list):
        super().__init__()
        self.operator, self.options = ops.TABLE[name], case.options
        self.counts = [None if value is None else len(value) if isinstance(value, list) else 0 for value in inputs]

    def forward(self, leaves):
        values, at = [], 0
        for count in self.counts:
            if count is None:
                values.append(None)
            elif count == 0:
                values.append(leaves[at])
                at += 1
            else:
                values.append(list(leaves[at:at + count]))
                at += count
        return self.operator(*values, *self.options)


@pytest.mark.filterwarnings("ignore:Tensor do not have 'place':UserWarning")
@pytest.mark.parametrize(("name", "case"), [pytest.param(name, case, id=f"{name} {i}")
                                            for name, cases in CASES.items() for i, case in enumerate(cases[:4])])
def test_program(name, case):
    """What static programs compute by, run as a program."""
    if len(case.inputs[0]) > 8 and PADDLE_2:
        pytest.skip("its programs transpose at most eight axes")
    inputs = tensors_of(case, arrays_of(case), "float32")
    program = paddle.jit.to_static(Traced(name, case, inputs), full_graph=True)
    got = outcome(lambda *values: program(flat(list(values[:len(inputs)]))), case, inputs)
    assert_close(got, expected_of(name, case), 1e-5)


@pytest.mark.parametrize(("name", "case"), CALLS)
def test_no_images(name, case):
    """An empty batch is not for the native kernels; Paddle 2.6 refuses some of them."""
    first = case.inputs[0][0] if isinstance(case.inputs[0], list) else case.inputs[0]

    def emptied(shape, i):
        if isinstance(shape, list):
            return [emptied(one, i) for one in shape]
        batch = shape is not None and (i == 0 or shape == first or (name, i) == ("weigh_branches", 1))
        return (0, *shape[1:]) if batch else shape

    empty = case._replace(inputs=[emptied(shape, i) for i, shape in enumerate(case.inputs)])

    def shapes(function):
        try:
            return [list(y.shape) for y in flat(function(*tensors_of(empty, arrays_of(empty), "float32"),
                                                         *case.options))]
        except (ValueError, RuntimeError) as error:       # Paddle's own
            return type(error)
    got = shapes(ops.TABLE[name])
    assert got == shapes(ops.TABLE[name].reference)
    if not PADDLE_2:
        assert isinstance(got, list)


@needs_native
@pytest.mark.parametrize(("name", "case"), CALLS)
def test_nan(name, case):
    """NaN where the reference has NaN, and nowhere else.

    Paddle's ReLU, max-pooling and, of 16 numbers and more, softmax lose it; the kernels do not.
    """
    if native_of(name, case) is None:
        pytest.skip("the reference computes this call")
    arrays = arrays_of(case)
    first = flat(arrays)[0]
    first.flat[[0, first.size // 2]] = np.nan

    def bad(function):
        with paddle.no_grad():
            results = flat(function(*tensors_of(case, each(arrays, np.copy), "float32"), *case.options))
        return np.concatenate([np.isnan(y.numpy()).reshape(-1) for y in results])
    got, expected = bad(ops.TABLE[name]), bad(ops.TABLE[name].reference)
    if "relu" in case.options or name in ("max_pool2d", "scaled_softmax"):
        assert (got | expected == got).all()
    else:
        np.testing.assert_array_equal(got, expected)
    assert got.any() or "relu" in case.options or name in ("take", "move_groups")      # it may be moved out


@needs_native
@pytest.mark.parametrize(("name", "case"), CALLS)
def test_other_types_are_not_native(name, case):
    """Neither float64, nor one tensor of another type among those of float32."""
    inputs = tensors_of(case, arrays_of(case), "float64")
    assert table.choose(ops.TABLE[name], [*inputs, *case.options]) is ops.TABLE[name].reference
    inputs = tensors_of(case, arrays_of(case), "float32")
    for i in range(len(inputs)):
        mixed = [each(value, lambda t: t.astype("float64")) if i == at else value for at, value in enumerate(inputs)]
        if len(flat(inputs)) > 1 and inputs[i] is not None:
            assert table.choose(ops.TABLE[name], [*mixed, *case.options]) is ops.TABLE[name].reference


def test_columns(monkeypatch):
    x = paddle.ones([2, 3])
    operator = ops.TABLE["activate"]
    assert table.column_of(operator, (x, "gelu")) == ("native" if native.load() is not None else None)
    assert table.column_of(operator, (x.astype("float64"), "gelu")) is None
    monkeypatch.setattr(native, "load", lambda: None)
    assert table.column_of(operator, (x, "gelu")) is None
    assert not ops.prefers_nhwc(x)
