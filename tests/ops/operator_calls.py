"""Calls of every operator of the table: shapes and options that every test of the table runs."""
from typing import NamedTuple, Sequence

import numpy as np
import paddle

LAYOUTS = ("NCHW", "NHWC")


class Case(NamedTuple):
    """One call.

    Args:
        inputs: shape of every tensor; a list of shapes for a list of tensors, None for None.
        options: what follows the tensors.
        constant: numbers of the tensors that have no gradient.
        positive: numbers of the tensors above 0.
        tolerance: of results and gradients, relative to the largest; 0: the same numbers.
    """

    inputs: Sequence
    options: tuple = ()
    constant: tuple = ()
    positive: tuple = ()
    tolerance: float = 3e-6


def _linear(x, inputs, outputs, act, bias=True):
    return Case([x, (inputs, outputs), (outputs,) if bias else None], (act,), tolerance=1e-5)


def _batch_norm(shape, training, layout, pre_act=None, post_act=None, residual=False):
    channels = (shape[1] if layout == "NCHW" else shape[-1],)
    inputs = [shape, channels, channels, channels, channels, shape if residual else None]
    return Case(inputs, (training, 0.9, 1e-5, layout, pre_act, post_act), (3, 4), (4,), 2e-5)


def _conv(shape, outputs, kernel, stride, padding, groups=1, bias=True):
    """Of [B, C, H, W], in both layouts."""
    weight = (outputs, shape[1] // groups, *kernel)
    return [Case([shape if layout == "NCHW" else (shape[0], *shape[2:], shape[1]), weight,
                  (outputs,) if bias else None], (stride, padding, groups, layout), tolerance=1e-5)
            for layout in LAYOUTS]


MAP, FLAT, NORM = (2, 4, 5, 6), (3, 7), {"tolerance": 1e-5}
BATCH_NORMS = [_batch_norm(shape, training, layout, *acts, residual)
               for training in (True, False) for layout, shape in zip(LAYOUTS, ((3, 5, 7, 4), (3, 7, 4, 5)))
               for acts, residual in (((None, None), False), (("relu", None), False), ((None, "relu"), True),
                                      (("gelu", "gelu_tanh"), True))]
CONVOLUTIONS = [case for options in [
    ((2, 3, 9, 8), 5, (3, 3), 2, 1), ((2, 3, 17, 19), 4, (7, 7), 4, 2), ((3, 5, 6, 5), 4, (1, 1), 1, 0),
    ((3, 5, 6, 5), 4, (1, 1), 2, 0, 1, False), ((2, 3, 8, 12), 8, (4, 4), 4, 0), ((2, 2, 4, 4), 3, (1, 3), 1, 2),
    ((3, 3, 2, 3), 4, (5, 5), 1, 4), ((2, 64, 15, 15), 8, (3, 3), 1, 1), ((2, 3, 4, 4), 2, (3, 3), 3, (0, 1)),
    ((2, 6, 5, 7), 6, (3, 3), 1, 1, 6), ((1, 2, 1, 3), 2, (5, 5), 1, 2, 2, False), ((2, 9, 8, 10), 9, (9, 9), 1, 4, 9),
    ((2, 6, 5, 7), 6, (3, 3), 2, 1, 6), ((2, 8, 5, 6), 4, (1, 7), 1, (0, 3), 4, False),
    ((2, 8, 6, 5), 4, (5, 1), 1, (2, 0), 4, False), ((2, 8, 6, 5), 4, (5, 1), 1, (2, 0), 4, True),
    ((2, 8, 5, 6), 4, (3, 3), 1, 1, 2)] for case in _conv(*options)]

CASES = {
    "linear": [_linear((3, 5, 7), 7, 4, None), _linear((6, 7), 7, 4, "gelu"), _linear((2, 3, 5, 7), 7, 4, "gelu_tanh"),
               _linear((40, 20, 16), 16, 48, "gelu"), _linear((2, 3, 5), 5, 3, "relu"),
               _linear((4, 5), 5, 3, None, False), _linear((2, 3, 4, 5), 5, 3, "quick_gelu", False)],
    "token_linear": [Case([(3, 5, 7), (4, 5), (4,)], (act,), **NORM) for act in (None, "gelu", "gelu_tanh", "relu")],
    "mlp": [Case([x, (7, 9), (9,), (9, 5), (5,)], (act,), **NORM) for x, act in (
        ((3, 5, 7), "gelu"), ((6, 7), "gelu_tanh"), ((2, 3, 4, 7), "gelu"), ((3, 5, 7), "relu"), ((3, 5, 7), None))],
    "token_mlp": [Case([(3, 5, 7), (9, 5), (9,), (4, 9), (4,)], (act,), **NORM)
                  for act in ("gelu", "gelu_tanh", "relu", None)],
    "matmul": [Case([(2, 3, 4, 5), (2, 3, 6, 5)], (True,), **NORM), Case([(3, 4, 5), (3, 5, 2)], (False,), **NORM)],
    "activate": [Case([(3, 41)], (act,), **NORM) for act in ("gelu", "gelu_tanh", "relu", "quick_gelu")],
    "softmax": [Case([(2, 3, 5)], (1,)), Case([FLAT], (-1,))],
    "scaled_softmax": [Case([x, bias], (scale,), tolerance=1e-5) for x, bias, scale in (
        ((2, 3, 5, 5), (3, 5, 5), 0.3), ((2, 4, 3, 49, 49), (4, 3, 49, 49), 0.2), ((70, 2, 3, 16), (2, 3, 16), 1.0),
        ((2, 6, 17), None, 0.5), ((3, 40), (40,), 0.1), ((2, 3, 5, 5), (3, 1, 5), 0.3))],
    "split_windows": [Case([x], options, tolerance=0) for x, options in (
        ((2, 4, 6, 24), (3, 2, 2, [0, 0])), ((1, 6, 3, 8), (2, 1, 3, [1, 2])), ((2, 14, 28, 16), (1, 4, 7, [3, 0])))],
    "join_windows": [Case([x], options, tolerance=0) for x, options in (
        ((2, 6, 3, 4, 5), (4, 6, 2, [1, 0])), ((2, 8, 1, 49, 4), (14, 28, 7, [3, 3])))],
    "layer_norm": [Case([(3, 5, 7), (7,), (7,)], (1e-6,), **NORM), Case([(4, 129), (129,), (129,)], (1e-5,), **NORM)],
    "group_norm1": [Case([shape, shape[-1:], shape[-1:]], (1e-5,), **NORM) for shape in (MAP, (3, 20, 7))],
    "batch_norm": [*BATCH_NORMS, _batch_norm((6, 5), True, "NCHW"), _batch_norm((6, 5), False, "NHWC")],
    "channel_sums": [Case([(3, 5, 7, 4)], ("NCHW",), (0,)), Case([(3, 7, 4, 5)], ("NHWC",), (0,)),
                     Case([(9, 4)], ("NC",), (0,))],
    "conv2d": CONVOLUTIONS,
    "max_pool2d": [Case([(2, 3, 9, 7) if layout == "NCHW" else (2, 9, 7, 3)], (*window, layout), tolerance=1e-6)
                   for layout in LAYOUTS for window in ((2, 2, 0), (3, 2, 1), (3, 1, 1), (5, 3, 2), (17, 4, 8))
                   if 7 + 2 * window[2] >= window[0]],
    "spatial_mean": [Case([(2, 3, 5, 7)], ("NCHW",)), Case([(2, 5, 7, 3)], ("NHWC",))],
    "permute": [Case([MAP], ([2, 0, 3, 1],), tolerance=0), Case([(17, 33)], ([1, 0],), tolerance=0),
                Case([(2, 1, 3, 2, 1, 2, 3, 2)], ([7, 0, 3, 1, 2, 6, 5, 4],), tolerance=0),
                Case([(2, 1, 3, 2, 1, 2, 1, 2, 2)], ([8, 7, 0, 3, 1, 2, 6, 5, 4],), tolerance=0)],
    "gather_rows": [Case([(9, 3)], (paddle.to_tensor([0, 3, 3, 8]),), tolerance=1e-6)],
    "flatten": [Case([MAP], (1, 2), tolerance=0), Case([MAP], (0, 2), tolerance=0)],
    "halves": [Case([shape], tolerance=0) for shape in ((1, 2), (3, 5, 14), (8, 196, 258))],
    "pad_axis": [Case([(2, 3, 4)], (1, 1, 0), tolerance=0), Case([MAP], (2, 2, 1), tolerance=0)],
    "take": [Case([MAP], (places, axis), tolerance=1e-6)
             for axis in (1, 2) for places in ([1], [1, 2, 3, 0], [3, 3, 0, 1, 0, 1, 2, 3])],
    "to_regions": [Case([x], options, tolerance=1e-6) for x, options in (
        ((2, 5, 6, 3), (2, 1, 1)), ((2, 6, 7, 4), (3, 2, 2)), ((1, 3, 2, 5), (4, 2, 0)), ((3, 40, 28, 8), (3, 1, 0)))],
    "from_regions": [Case([x], options, tolerance=1e-6) for x, options in (
        ((2, 3, 6, 6), (2, 1, 5, 1)), ((2, 6, 3, 12), (3, 2, 7, 2)), ((1, 3, 1, 20), (4, 2, 2, 0)),
        ((3, 14, 28, 24), (3, 1, 40, 0)))],
    "roll": [Case([MAP], ([1, -2], [1, 2]), tolerance=0)],
    "cycle_shift": [Case([shape], (axis,), tolerance=0)
                    for shape in ((2, 5, 4, 7), (1, 1, 3, 9), (3, 2, 1, 2)) for axis in (1, 2)],
    "move_groups": [Case([(2, side, side + 1, width)], (axis, offsets), tolerance=0) for axis in (1, 2)
                    for side, width, offsets in (
                        (5, 15, [-2, -1, 0, 1, 2]), (3, 7, [-1, 0, 1]), (2, 4, [3, 0, -1, 2]))],
    "shift_quarters": [Case([shape], (axes,), tolerance=0) for shape, axes in (
        ((2, 4, 3, 12), [1, 2, 0]), ((1, 1, 6, 8), [2]), ((2, 6, 1, 24), [0, 1]), ((3, 30, 28, 8), [1, 2]))],
    "branch_mean": [Case([[MAP] * 3]), Case([[MAP] * 2])],
    "weigh_branches": [Case([[MAP] * count, [(2, 6)] * count]) for count in (3, 2)],
    "affine": [Case([MAP, (6,), (6,)]), Case([(40, 7), (7,), None])],
    "add_scaled": [Case([MAP, MAP, (6,)]), Case([FLAT, FLAT, (7,)])],
    "multiply": [Case([shape, shape], tolerance=1e-6) for shape in (MAP, FLAT)],
    "unfold_wave": [Case([MAP, MAP]), Case([(1, 7), (1, 7)])],
    "wave_mix": [Case([shape, shape, (shape[3], 2, *kernel)], tolerance=1e-5) for shape, kernel in (
        (MAP, (7, 1)), (MAP, (1, 7)), ((3, 9, 11, 5), (3, 1)), ((1, 1, 8, 17), (1, 5)), ((2, 56, 13, 33), (7, 1)),
        ((2, 7, 40, 48), (1, 7)), ((2, 3, 4, 6), (1, 1)))],
}


def arrays_of(case: Case, seed: int = 0) -> list:
    """Numbers for the tensors of a call, float64; a list for a list of tensors, None for None."""
    rng = np.random.default_rng(seed)

    def numbers(shape, positive: bool):
        if shape is None:
            return None
        if isinstance(shape, list):
            return [numbers(one, positive) for one in shape]
        return np.abs(rng.standard_normal(shape)) + 0.5 if positive else rng.standard_normal(shape)
    return [numbers(shape, i in case.positive) for i, shape in enumerate(case.inputs)]


def each(value, change):
    """``change`` of every tensor or array in an argument."""
    if isinstance(value, list):
        return [each(one, change) for one in value]
    return None if value is None else change(value)


def flat(values) -> list:
    """The tensors in a list of arguments, or of results."""
    if isinstance(values, (list, tuple)):
        return [tensor for value in values for tensor in flat(value)]
    return [] if values is None else [values]


def strided(array):
    """The numbers as a tensor whose memory lies in another order, where it has more than one axis."""
    axes = list(range(array.ndim))[::-1]
    return paddle.to_tensor(np.ascontiguousarray(array.transpose(axes))).transpose(axes)


def tensors_of(case: Case, arrays: list, dtype: str, make=paddle.to_tensor) -> list:
    """Tensors of a call, leaves that need gradients but for its constants."""
    def leaf(array, constant: bool):
        tensor = make(array.astype(dtype)).detach()
        tensor.stop_gradient = constant
        return tensor
    return [each(value, lambda array, i=i: leaf(array, i in case.constant)) for i, value in enumerate(arrays)]


def outcome(function, case: Case, inputs: list) -> dict:
    """Results, gradients of a weighted sum of them, and the tensors after the call, by name."""
    results = flat(function(*inputs, *case.options))
    leaves = flat(inputs)
    if any(not t.stop_gradient for t in results):
        rng = np.random.default_rng(1)
        weighed = [(y * paddle.to_tensor(rng.standard_normal(y.shape).astype(str(y.numpy().dtype)))).sum()
                   for y in results]
        paddle.add_n(weighed).backward()
    outcomes = {f"result {i}": y for i, y in enumerate(results)}
    outcomes.update({f"gradient {i}": t.grad for i, t in enumerate(leaves) if t.grad is not None})
    outcomes.update({f"input {i}": t for i, t in enumerate(leaves)})
    return {name: tensor.numpy() for name, tensor in outcomes.items()}


def assert_close(got: dict, expected: dict, tolerance: float) -> None:
    """The same names, shapes, and numbers to ``tolerance`` of the largest."""
    assert list(got) == list(expected)
    for name, want in expected.items():
        assert got[name].shape == want.shape, name
        largest = np.abs(want[np.isfinite(want)]).max() if np.isfinite(want).any() else 0.0
        np.testing.assert_allclose(got[name], want, rtol=0, atol=tolerance * largest, err_msg=name)
