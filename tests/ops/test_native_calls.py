"""Calls into C are as declared: the table against the C files, and every kind of mistake against its message."""
import ctypes
import re
import subprocess
import sys

import numpy as np
import paddle
import plugin_device
import pytest
from helpers.marks import needs_native

from passl_mixer.ops import native
from passl_mixer.ops.native import build, checks, signatures

pytestmark = needs_native

KINDS = {"const float*": "float32", "float*": "float32", "const int32_t*": "bits32", "int32_t*": "bits32",
         "const uint8_t*": "uint8", "uint8_t*": "uint8", "const uint16_t*": "bf16",
         "uint16_t*": "bf16", "const int64_t*": "int64", "const float*const*": "list",
         "float*const*": "list",
         "int64_t": "int", "float": "float"}
TABLE = signatures.signatures()


# ---- the table against the C files ----

def parameters_of(text: str) -> list:
    """``(name, kind)`` of a C parameter list."""
    if text.strip() == "void":
        return []
    return [(name, KINDS[re.sub(r"\s*\*\s*", "*", re.sub(r"\brestrict\b", "", kind)).strip()])
            for kind, name in (re.fullmatch(r"\s*(.*?)(\w+)\s*", part, re.DOTALL).groups() for part in text.split(","))]


def prototypes() -> dict:
    """Name -> parameters of every function of the C files that is not static, those that macros make included.

    What the files on oneDNN call of each other is left out.
    """
    result = {}
    for source in build.SOURCES:
        text = re.sub(r"/\*.*?\*/", " ", source.read_text(encoding="utf-8").replace("\\\n", " "), flags=re.DOTALL)
        functions = re.findall(r"^int (?!onednn_)(\w+)\(([^)]*)\)\s*\{", text, re.MULTILINE)
        result.update((name, parameters_of(parameters)) for name, parameters in functions)
        for macro, parameters in re.findall(r"^#define (\w+)\(NAME, \w+\)\s+int NAME\(([^)]*)\)", text, re.MULTILINE):
            for name in re.findall(rf"^{macro}\((\w+), \w+\)$", text, re.MULTILINE):
                result[name] = parameters_of(parameters)
    return result


def test_every_function_of_the_c_files_is_declared_as_it_is():
    declared = {name: [(p.name, p.kind) for p in parameters] for name, parameters in TABLE.items()}
    assert prototypes() == {**declared, **{name: [] for name in signatures.QUESTIONS}}


def test_every_declared_function_is_in_the_library():
    for name in (*TABLE, *signatures.QUESTIONS):
        assert getattr(native.load(), name)     # an AttributeError names what is missing


# ---- mistakes ----

def ones(*shape, dtype="float32"):
    return paddle.ones(shape, dtype)


def integers(*values):
    return (ctypes.c_int64 * len(values))(*values)


LAYER_NORM = {"x": ones(2, 3), "weight": ones(3), "bias": ones(3), "y": ones(2, 3), "mean": ones(2), "rstd": ones(2),
              "rows": 2, "cols": 3, "epsilon": 1e-5}
POOL = {"x": ones(1, 4, 4, 1), "y": ones(1, 2, 2, 1), "at": ones(1, 2, 2, 1, dtype="uint8"),
        "sizes": integers(1, 4, 4, 1, 2, 2, 0)}
CONVOLUTION = {"x": ones(1, 2, 4, 4), "weight": ones(3, 2, 3, 3), "bias": None, "y": ones(1, 3, 2, 2),
               "sizes": [1, 2, 4, 4, 3, 3, 3, 1, 0]}
PERMUTE = {"x": ones(2, 3), "y": ones(3, 2), "sizes": [3, 2], "steps": [1, 3], "axes": 2}
TAKE = {"x": ones(1, 3, 2), "index": integers(2, 0), "y": ones(1, 2, 2), "outer": 1, "length": 3, "count": 2,
        "inner": 2}
MOVE = {"x": ones(1, 3, 1, 4), "y": ones(1, 3, 1, 4), "offset": [1, 0], "size": 2, "batch": 1, "height": 3, "width": 1,
        "chans": 4, "along": 1}
BACK = {"dy": [ones(1, 1, 1, 4), ones(1, 1, 1, 4)], "dx": ones(1, 1, 1, 8), "first": [1, 2], "shares": 2, "batch": 1,
        "height": 1, "width": 1, "chans": 4}
BIAS = {"z": ones(6, 2), "bias": ones(3), "rows": 6, "cols": 2, "units": 3}
RIGHT = {"layer_norm": LAYER_NORM, "max_pool": POOL, "permute": PERMUTE, "take": TAKE, "move_groups": MOVE,
         "shift_quarters_gradient": BACK, "bias_add": BIAS}
if native.has_products():
    RIGHT["convolution"] = CONVOLUTION


@pytest.mark.parametrize("name", RIGHT)
def test_what_the_mistakes_start_from_is_right(name):
    native.call(name, *RIGHT[name].values())


MISTAKES = [
    ("layer_norm", {"rows": 2.0}, TypeError, "rows is 2.0 (float), expected an int"),
    ("layer_norm", {"rows": True}, TypeError, "rows is True (bool), expected an int"),
    ("layer_norm", {"epsilon": 1}, TypeError, "epsilon is 1 (int), expected a float"),
    ("layer_norm", {"epsilon": np.float32(1)}, TypeError, "(float32), expected a float"),
    ("layer_norm", {"rows": -2, "cols": -3}, ValueError, "rows is -2, expected 0 or more"),
    ("layer_norm", {"x": None}, TypeError, "x is None, expected a tensor"),
    ("layer_norm", {"x": np.ones([2, 3], "float32")}, TypeError, "(ndarray), expected a tensor"),
    ("layer_norm", {"x": ones(2, 3, dtype="float64")}, TypeError, "paddle.float64 [2, 3], expected paddle.float32"),
    ("layer_norm", {"x": ones(2, 3, dtype="int32")}, TypeError, "x is paddle.int32 [2, 3], expected paddle.float32"),
    ("layer_norm", {"weight": ones(2)}, ValueError, "weight is paddle.float32 [2], expected 3 elements (cols)"),
    ("layer_norm", {"x": ones(3, 3)}, ValueError, "x is paddle.float32 [3, 3], expected 6 elements (rows*cols)"),
    ("layer_norm", {"x": ones(3, 2).transpose([1, 0])}, ValueError, "x is a view with strides"),
    ("max_pool", {"at": ones(1, 2, 2, 1)}, TypeError, "at is paddle.float32 [1, 2, 2, 1], expected paddle.uint8"),
    ("max_pool", {"y": ones(1, 1, 1, 1)}, ValueError, "expected 4 elements (outer*out_h*out_w*chans)"),
    ("max_pool", {"sizes": integers(1, 4, 4, 1, 2, 2)}, ValueError, "sizes has 6 integers, expected 7"),
    ("max_pool", {"sizes": integers(1, 4, 4, 1, 2, 0, 0)}, ValueError, "fit together: sizes [1, 4, 4, 1, 2, 0, 0]"),
    ("max_pool", {"sizes": (ctypes.c_int32 * 7)(1, 4, 4, 1, 2, 2, 0)}, TypeError, "array of c_int, expected c_int64"),
    ("max_pool", {"sizes": [1, 4, 4, 1, 2, 2, 0.0]}, TypeError, "(list), expected a list of integers"),
    ("convolution", {"sizes": [1, 2, 4, 4, 3, 3, 3, 1]}, ValueError, "sizes has 8 integers, expected 9"),
    ("convolution", {"weight": ones(3, 2, 3, 1)}, ValueError, "54 elements (out_chans*chans*kernel_h*kernel_w)"),
    ("convolution", {"y": ones(1, 3, 4, 4)}, ValueError, "expected 12 elements (batch*out_chans*out_h*out_w)"),
    ("permute", {"axes": 9, "sizes": [1] * 9, "steps": [1] * 9}, ValueError, "axes is 9, expected 0 to 8"),
    ("permute", {"steps": [1]}, ValueError, "steps has 1 integers, expected 2 (axes)"),
    ("permute", {"steps": [1, 4]}, ValueError, "do not fit together: sizes [3, 2], steps [1, 4], axes 2"),
    ("permute", {"x": ones(2, 3, dtype="float64")}, TypeError, "expected paddle.float32 or paddle.int32"),
    ("take", {"index": integers(3, 0)}, ValueError, "do not fit together: index [3, 0], outer 1, length 3"),
    ("take", {"index": integers(0)}, ValueError, "index has 1 integers, expected 2 (count)"),
    ("move_groups", {"offset": [1]}, ValueError, "offset has 1 integers, expected 2 or more"),
    ("move_groups", {"size": 0}, ValueError, "size is 0, expected 1 or more"),
    ("move_groups", {"along": 0}, ValueError, "along is 0, expected 1 to 2"),
    ("shift_quarters_gradient", {"dy": [ones(1, 1, 1, 4)]}, ValueError, "dy has 1 tensors, expected 2 (shares)"),
    ("shift_quarters_gradient", {"dy": [ones(4), ones(8)]}, ValueError, "dy[1] is paddle.float32 [8], expected 4"),
    ("shift_quarters_gradient", {"dy": ones(8)}, TypeError, "expected a list of tensors"),
    ("shift_quarters_gradient", {"dy": integers(0, 0)}, TypeError, "array of c_long, expected c_void_p"),
    ("shift_quarters_gradient", {"first": [1, 3]}, ValueError, "do not fit together: first [1, 3]"),
    ("bias_add", {"units": 0}, ValueError, "bias is paddle.float32 [3], expected 2 elements (biases)"),
]


@pytest.mark.parametrize(("name", "change", "kind", "words"), MISTAKES)
def test_a_mistake_names_the_function_and_the_parameter(name, change, kind, words):
    if name not in RIGHT:
        pytest.skip("this Paddle brings no MKL")
    with pytest.raises(kind) as caught:
        native.call(name, *{**RIGHT[name], **change}.values())
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"{name}: ")
    assert words in str(caught.value)


def test_too_few_arguments():
    with pytest.raises(TypeError, match=r"gelu_erf_forward: got 2 arguments, expected 3: x, y, n"):
        native.call("gelu_erf_forward", ones(2), ones(2))


def test_addresses_may_stand_for_the_list_of_tensors():
    parts = [paddle.rand([1, 3, 3, 4]) for _ in range(2)]
    results = [paddle.empty([1, 3, 3, 8]) for _ in range(2)]
    addresses = (ctypes.c_void_p * 2)(*(part.data_ptr() for part in parts))
    for dy, dx in zip((parts, addresses), results):
        native.call("shift_quarters_gradient", dy, dx, [1, 2], 2, 1, 3, 3, 4)
    assert (results[0] == results[1]).all()


def test_no_memory_is_said():
    """Working rows of 2^60 bytes; the tensors are there in name only, so C is called by itself."""
    function = checks.functions(native.load())["bias_gradient"]
    assert function.compiled(None, None, 0, 2 ** 58, 0) == checks.NO_MEMORY
    assert isinstance(function._failure(checks.NO_MEMORY, ()), MemoryError)


def test_a_tensor_of_another_device(tmp_path):
    environment = plugin_device.environment(tmp_path)
    code = ("import paddle; from passl_mixer.ops import native; paddle.set_device('plugin_device'); "
            "x = paddle.ones([4]); native.call('gelu_erf_forward', x, x, 4)")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env=environment)
    assert "gelu_erf_forward: x is on Place(plugin_device:0), expected a tensor of the CPU" in done.stderr
