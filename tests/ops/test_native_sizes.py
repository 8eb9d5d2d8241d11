"""Sizes at the edge of what a kernel can do: nothing ends the process, and what cannot be done is refused.

C is called past the checks of ``native.call``, with tensors of more elements than any of these sizes needs.
"""
import ctypes
import itertools

import numpy as np
import paddle
import pytest
from helpers.marks import needs_native

from passl_mixer.ops import native
from passl_mixer.ops.native import checks, signatures

pytestmark = needs_native

FUNCTIONS = checks.functions(native.load()) if native.load() else {}
TABLE = signatures.signatures()
ROOM = 4096
SMALL = {"kernel": 3, "units": 1, "chans": 4, "cols": 4, "along": 1, "direction": 1,
         **dict.fromkeys(("transposed_a", "transposed_b", "bias_of_rows"), 1)}       # 2 where not named
ARRAYS = {"convolution": [2, 2, 4, 4, 2, 3, 3, 1, 1], "max_pool": [2, 4, 4, 2, 2, 2, 0], "permute": [2, 2],
          **{f"bf16_convolution{of}": [2, 2, 4, 4, 2, 3, 3, 1, 1, 1] for of in ("", "_input", "_weight")}}
needs_products = pytest.mark.skipif(not native.has_products(), reason="this Paddle brings no MKL")


def integers(values):
    return (ctypes.c_int64 * len(values))(*values)


def code_of(name: str, numbers: dict, arrays: dict, fill: float = 0.0, at=None) -> tuple:
    """``(return code, name -> tensor as it is after)`` of a function called with these integers, arrays and places."""
    tensors, passed = {}, []
    for p in TABLE[name]:
        if p.kind in checks.DTYPES:
            tensors[p.name] = np.full(ROOM, fill, {"uint8": "uint8", "bits32": "int32"}.get(p.kind, "float32"))
            if p.name == "at" and at is not None:
                tensors["at"] = at
            passed.append(tensors[p.name].ctypes.data)
        elif p.kind == "list":
            tensors[p.name] = np.full([2, ROOM], fill, "float32")
            passed.append((ctypes.c_void_p * 2)(*(part.ctypes.data for part in tensors[p.name])))
        elif p.kind == "int64":
            passed.append(integers(arrays.get(p.name, [0] * 8)))
        else:
            passed.append(0.5 if p.kind == "float" else numbers[p.name])
    return FUNCTIONS[name].compiled(*passed), tensors


def small(name: str) -> dict:
    numbers = {p.name: SMALL.get(p.name, 2) for p in TABLE[name] if p.kind == "int"}
    return {**numbers, "axes": 2} if name == "permute" else numbers


def sizes_of(name: str) -> list:
    return ARRAYS.get(name.removesuffix("_gradient"))


@pytest.mark.parametrize("name", TABLE)
def test_a_size_of_0_is_nothing_to_do_or_refused(name):
    if name.startswith("convolution") and not native.has_products():
        pytest.skip("this Paddle brings no MKL")
    if name.startswith("bf16_") and not native.has_bf16():
        pytest.skip(f"no bfloat16 on this CPU: {native.bf16_status()}")
    sizes = sizes_of(name)
    arrays = {"sizes": sizes, "steps": [2, 1]} if sizes else {}
    assert code_of(name, small(name), arrays)[0] == 0
    for zero in small(name):
        assert code_of(name, {**small(name), zero: 0}, arrays)[0] in (0, checks.BAD_SIZES), zero
    for place in range(len(sizes or ())):
        changed = [0 if i == place else size for i, size in enumerate(sizes)]
        assert code_of(name, small(name), {**arrays, "sizes": changed})[0] in (0, checks.BAD_SIZES), place


@pytest.mark.parametrize(("name", "sums"), [
    ("bias_gradient", "dbias"), ("bias_gelu_erf_gradient", "dbias"), ("layer_norm_gradient", "dweight"),
    ("layer_norm_gradient", "dbias"), ("affine_gradient", "dscale"), ("image_norm_gradient", "dweight"),
    ("batch_norm_gradient", "dweight"), ("depthwise_weights_gradient", "dweight"),
    ("pair_mix_weight_gradient", "dweight"),
    pytest.param("convolution_gradient", "dweight", marks=needs_products),
    pytest.param("convolution_gradient", "dbias", marks=needs_products)])
def test_sums_over_no_rows_are_0(name, sums):
    first = next(n for n in ("rows", "images", "outer", "batch", None) if n is None or n in small(name))
    numbers = {**small(name), first: 0, "units": 0}
    sizes = sizes_of(name)
    code, tensors = code_of(name, numbers, {"sizes": [0, *sizes[1:]]} if sizes else {}, fill=7.0)
    assert code == 0
    result = tensors[sums]
    assert result[0] == 0.0
    count = int((result == 0.0).sum())
    assert (result[:count] == 0.0).all()
    assert (result[count:] == 7.0).all()
    assert count < ROOM


# ---- windows ----

GRID = list(itertools.product((1, 2, 3, 5), (1, 2, 3, 4, 7), (1, 2, 3), (0, 1, 2)))       # side, kernel, stride, pad


def window_count(side: int, kernel: int, stride: int, pad: int) -> int:
    return (side + 2 * pad - kernel) // stride + 1


def test_pooling_has_as_many_windows_as_floor_division_says():
    for side, kernel, stride, pad in GRID:
        count = window_count(side, kernel, stride, pad)
        for height, width in ((side, 6), (6, side)):
            other = window_count(6, kernel, stride, pad)
            sizes = {"sizes": [1, height, width, 1, kernel, stride, pad]}
            fits = count > 0 and other > 0 and pad < kernel
            code, tensors = code_of("max_pool", {}, sizes, fill=255)
            assert code == (0 if fits else checks.BAD_SIZES), sizes
            assert (tensors["at"] < kernel * kernel).sum() == (count * other if fits else 0)
            assert code_of("max_pool_gradient", {}, sizes, at=tensors["at"])[0] == code, sizes


@needs_products
def test_convolution_has_as_many_outputs_as_floor_division_says():
    for side, kernel, stride, pad in GRID:
        count = window_count(side, kernel, stride, pad)
        for name in ("convolution", "convolution_gradient"):
            sizes = [2, 1, side, 6, 1, kernel, 1, stride, pad]
            code, tensors = code_of(name, {}, {"sizes": sizes}, fill=7.0)
            assert code == (0 if count > 0 else checks.BAD_SIZES), (name, sizes)
            if name == "convolution":
                written = 2 * max(count, 0) * window_count(6, 1, stride, pad)
                assert (tensors["y"][written:] == 7.0).all()


@pytest.mark.parametrize("sizes", [[1, 4, 4, 1, 16, 1, 8], [1, 4, 4, 1, 2, 2, 2], [1, 4, 4, 1, 2, 2, -1],
                                   [-1, 4, 4, 1, 2, 2, 0], [1, 4, 4, 1, 2, 0, 0], [1, 4, 4, 1, 0, 1, 0]])
def test_pooling_that_is_none(sizes):
    assert code_of("max_pool", {}, {"sizes": sizes})[0] == checks.BAD_SIZES
    assert code_of("max_pool_gradient", {}, {"sizes": sizes})[0] == checks.BAD_SIZES


@pytest.mark.parametrize("kernel", [0, 2, 4, -1])
def test_a_depthwise_kernel_that_is_not_odd(kernel):
    for name in ("depthwise", "depthwise_weights_gradient"):
        assert code_of(name, {**small(name), "kernel": kernel}, {})[0] == checks.BAD_SIZES


# ---- axes and places ----

def test_axes_of_a_permutation():
    x = np.arange(2 * 3 * 2 * 2 * 3 * 2 * 2 * 2, dtype="float32").reshape(2, 3, 2, 2, 3, 2, 2, 2)
    axes = (7, 2, 5, 0, 3, 6, 1, 4)
    steps, expected = [x.strides[axis] // 4 for axis in axes], np.ascontiguousarray(x.transpose(axes))
    y = paddle.empty(expected.shape)
    native.call("permute", paddle.to_tensor(x), y, list(expected.shape), steps, 8)
    np.testing.assert_array_equal(y.numpy(), expected)


@pytest.mark.parametrize(("sizes", "steps", "code"), [
    ([1] * 9, [1] * 9, checks.BAD_SIZES), ([2, 0, 3], [0, 3, 1], 0), ([0, 2, 3], [1, 0, 0], 0), ([], [], 0),
    ([2, 3], [1, 3], checks.BAD_SIZES), ([2, 3], [-1, 2], checks.BAD_SIZES), ([-2, -3], [1, 2], checks.BAD_SIZES)])
def test_axes_that_do_not_fit(sizes, steps, code):
    assert code_of("permute", {"axes": len(sizes)}, {"sizes": sizes, "steps": steps})[0] == code


@pytest.mark.parametrize("places", [[0, 2], [0, -1]])
def test_places_outside_an_axis(places):
    for name in ("take", "take_gradient"):
        assert code_of(name, small(name), {"index": places})[0] == checks.BAD_SIZES


def test_shares_that_are_no_quarters():
    for name in ("shift_quarters", "shift_quarters_gradient"):
        assert code_of(name, {**small(name), "chans": 6}, {})[0] == checks.BAD_SIZES
        assert code_of(name, small(name), {"first": [1, 3]})[0] == checks.BAD_SIZES
