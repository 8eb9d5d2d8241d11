"""Products in bfloat16 on a CPU: rounded inputs, exact sums. NumPy rounds; they are held to Paddle's float64."""
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from helpers.marks import needs_bf16
from operator_calls import CASES, arrays_of, flat, strided, tensors_of

from passl_mixer import ops
from passl_mixer.errors import BadInput
from passl_mixer.ops import bfloat16, native, table

pytestmark = [needs_bf16, pytest.mark.filterwarnings("ignore:amp_guard can only be enabled")]
PRODUCTS = ("linear", "token_linear", "mlp", "token_mlp", "matmul", "conv2d")
ROUNDING = 2.0 ** -8        # of one number to bfloat16, relative


def rounded(x: np.ndarray) -> np.ndarray:
    """Numbers rounded to bfloat16, the nearest, ties to even: eight bits of float32's mantissa."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(np.rint(mantissa * 256) / 256, exponent)


def autocast(on: bool = True):
    return paddle.amp.auto_cast(enable=on, dtype="bfloat16")


def takes_bf16(name: str, case) -> bool:
    """Whether an implementation of the column computes in bfloat16, not one of the native ones after it."""
    operator = ops.TABLE[name]
    inputs = [*tensors_of(case, arrays_of(case), "float32"), *case.options]
    with autocast():
        chosen = table.choose(operator, inputs)
    own = operator.columns["bf16"][:len(operator.columns["bf16"]) - len(operator.columns["native"])]
    return chosen in [implementation.run for implementation in own]


CALLS = [pytest.param(name, case, id=f"{name} {case.inputs} {case.options}".replace("None", "-"))
         for name in PRODUCTS for case in CASES[name]]


def outcome(function, case, inputs, dy_seed: int = 1) -> list:
    """Results and gradients as arrays; the gradient of the result is given, rounded to bfloat16."""
    y = function(*inputs, *case.options)
    dy = rounded(np.random.default_rng(dy_seed).standard_normal(y.shape))
    paddle.autograd.backward([y], [paddle.to_tensor(dy.astype(str(y.numpy().dtype)))])
    return [y.numpy(), *(t.grad.numpy() for t in flat(inputs))]


@pytest.mark.parametrize("make", [paddle.to_tensor, strided], ids=["dense", "strided"])
@pytest.mark.parametrize(("name", "case"), CALLS)
def test_rounded_inputs_and_exact_sums(name, case, make):
    """With inputs that bfloat16 holds, a product differs from float64's by the rounding of float32 sums alone.

    Hidden units and activations between two products are rounded once more, and so are gradients at an activation.
    """
    if not takes_bf16(name, case):
        pytest.skip("another implementation computes this call")
    arrays = [None if a is None else rounded(a) for a in arrays_of(case)]
    expected = outcome(ops.TABLE[name].reference, case, tensors_of(case, arrays, "float64"))
    with autocast():
        got = outcome(ops.TABLE[name], case, tensors_of(case, arrays, "float32", make))
    hidden = name.endswith("mlp") or case.options[0] in ("gelu", "gelu_tanh", "relu", "quick_gelu")
    for one, other in zip(got, expected):
        assert one.dtype == np.float32
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=(2 * ROUNDING if hidden else 2e-6) * scale)


@pytest.mark.parametrize(("name", "case"), CALLS)
def test_inputs_are_rounded_to_nearest(name, case):
    if not takes_bf16(name, case):
        pytest.skip("another implementation computes this call")
    arrays = arrays_of(case, seed=3)
    biases = [i for i, a in enumerate(arrays) if a is not None and a.ndim == 1]
    narrow = [a if a is None or i in biases else rounded(a.astype(np.float32)) for i, a in enumerate(arrays)]
    with autocast():
        got, expected = (outcome(ops.TABLE[name], case, tensors_of(case, numbers, "float32"))
                         for numbers in (arrays, narrow))
    for one, other in zip(got, expected):
        np.testing.assert_array_equal(one, other)
    plain = outcome(ops.TABLE[name], case, tensors_of(case, arrays, "float32"))
    assert not np.array_equal(got[0], plain[0])            # without autocast: float32


def test_every_product_is_reached():
    assert set(PRODUCTS) == {name for name, operator in ops.TABLE.items()
                             if len(operator.columns["bf16"]) > len(operator.columns["native"])}
    for name in PRODUCTS:
        assert any(takes_bf16(name, case) for case in CASES[name]), name


def test_rounding_of_every_kind_of_number():
    bits = np.concatenate([np.arange(0, 2**32, 65521, dtype=np.uint32), np.uint32([0x7f7fffff, 0x00000001, 0x80000000,
                                                                                   0x3f808000, 0x3f818000])])
    x = bits.view(np.float32)
    x = np.concatenate([x[np.isfinite(x)], np.float32([np.inf, -np.inf])])
    got = bfloat16.narrow(paddle.to_tensor(x)).astype("float32").numpy()
    normal = np.abs(x) >= 2.0 ** -126                       # below, there are fewer bits to round to
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(got[normal], rounded(x[normal]).astype(np.float32))
    assert (np.abs(got[~normal] - x[~normal]) <= 2.0 ** -134).all()
    odd = np.uint32([0x7f800001, 0x7fffffff, 0xff800001]).view(np.float32)
    assert np.isnan(bfloat16.narrow(paddle.to_tensor(odd)).astype("float32").numpy()).all()


def test_nan_and_infinity_go_through():
    x = paddle.ones([4, 8])
    x[1, 2], x[2, 3] = float("nan"), float("inf")
    with autocast():
        y = ops.mlp(x, paddle.ones([8, 16]), paddle.zeros([16]), paddle.ones([16, 8]), paddle.zeros([8]), "gelu")
    y = y.numpy()
    assert np.isfinite(y[[0, 3]]).all()
    assert np.isnan(y[1]).all()
    assert not np.isfinite(y[2]).any()


def test_large_products_with_every_thread():
    """The sizes of Mixer-B/16's token and channel MLPs, forward and backward, against float32 products."""
    rng = np.random.default_rng(0)

    def tensor(*shape, scale=1.0):
        t = paddle.to_tensor(rounded(rng.standard_normal(shape) * scale).astype(np.float32))
        t.stop_gradient = False
        return t
    for operator, inputs in ((ops.linear, (tensor(2, 196, 768), tensor(768, 3072, scale=0.04), tensor(3072))),
                             (ops.token_linear, (tensor(4, 196, 768), tensor(384, 196, scale=0.07), tensor(384)))):
        results = []
        for on in (False, True):
            for t in inputs:
                t.clear_gradient()
            with autocast(on):
                y = operator(*inputs)
            y.backward(paddle.to_tensor(rounded(np.random.default_rng(1).standard_normal(y.shape)).astype("float32")))
            results.append([y.numpy(), *(t.grad.numpy().copy() for t in inputs)])
        for plain, narrow in zip(*results):
            np.testing.assert_allclose(narrow, plain, rtol=0, atol=2e-5 * np.abs(plain).max())


def test_autocast_as_paddle_says_it():
    x, weight = paddle.to_tensor([[1.0 + 2.0 ** -10]]), paddle.ones([1, 1])
    assert ops.linear(x, weight).item() == 1.0 + 2.0 ** -10
    with autocast():
        assert ops.linear(x, weight).item() == 1.0
        with paddle.amp.auto_cast(enable=False):
            assert ops.linear(x, weight).item() == 1.0 + 2.0 ** -10
        assert ops.linear(x, weight).item() == 1.0
    with paddle.amp.auto_cast(dtype="float16"):             # of a GPU: float32 here
        assert ops.linear(x, weight).item() == 1.0 + 2.0 ** -10
    with paddle.amp.auto_cast(dtype="bfloat16", level="O0"):
        assert ops.linear(x, weight).item() == 1.0 + 2.0 ** -10
    assert ops.linear(x, weight).item() == 1.0 + 2.0 ** -10


def test_a_gradient_of_gradients_is_refused_in_words():
    x, weight = paddle.ones([2, 3]), paddle.ones([3, 4])
    x.stop_gradient = False
    with autocast():
        y = ops.linear(x, weight)
    with pytest.raises((BadInput, OSError),             # Paddle wraps it
                       match=r"first derivatives only on a CPU; compute in float32: train\.precision=fp32"):
        paddle.grad(y.sum(), x, create_graph=True)


def test_processors_without_it_compute_in_float32():
    """oneDNN itself says what the processor has; here it is told to know less."""
    script = ("import paddle, passl_mixer; from passl_mixer import ops; from passl_mixer.ops import native\n"
              "x = paddle.to_tensor([[1.0 + 2.0 ** -10]])\n"
              "with paddle.amp.auto_cast(dtype='bfloat16'):\n"
              "    print(native.has_bf16(), ops.linear(x, paddle.ones([1, 1])).item() > 1, native.bf16_status())\n")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True,
                          env={**os.environ, "DNNL_MAX_CPU_ISA": "AVX512_CORE"})
    assert done.stdout.strip() == ("False True the processor has no instructions for it (AVX512-BF16 or AMX)")


def test_more_shapes_than_are_kept():
    """Primitives are kept by shape; when there are too many they are made again."""
    with autocast():
        for rows in [*range(1, 450), 1, 2, 3]:
            y = ops.linear(paddle.ones([rows, 4]), paddle.ones([4, 2]))
            assert (y.numpy() == 4).all()


@needs_bf16
def test_products_from_several_threads():
    from concurrent.futures import ThreadPoolExecutor

    def sums(seed: int) -> bool:
        a = paddle.to_tensor(rounded(np.random.default_rng(seed).standard_normal((64 + seed, 32))).astype("float32"))
        expected = a.numpy().astype(np.float64) @ np.ones((32, 8))
        return all(np.allclose(bfloat16.product(bfloat16.narrow(a), bfloat16.narrow(paddle.ones([32, 8]))).numpy(),
                               expected, atol=1e-4) for _ in range(50))
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(sums, range(8)))
    assert native.has_bf16()


def test_onednn_has_quick_primitives_for_every_network():
    """oneDNN's references are a thousand times slower; its own log says which implementation it takes."""
    script = ("import sys; sys.path.insert(0, sys.argv[1])\n"
              "import paddle\n"
              "from passl_mixer import build_backbone\n"
              "from helpers.backbones import SMALL\n"
              "for name, options in SMALL.items():\n"
              "    network = build_backbone({'name': name, **options})\n"
              "    size = network.img_size or 64\n"
              "    for batch in (1, 2):\n"
              "        images = paddle.rand([batch, 3, *([size, size] if isinstance(size, int) else size)])\n"
              "        for train in (network.eval, network.train):\n"
              "            train()\n"
              "            with paddle.amp.auto_cast(dtype='bfloat16'):\n"
              "                y = network(images)\n"
              "        y.sum().backward()\n")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script, str(Path(__file__).resolve().parents[1])],
                          capture_output=True, text=True, check=True, env={**os.environ, "DNNL_VERBOSE": "1"})
    taken = {line for line in done.stdout.splitlines() if ",exec,cpu," in line}
    assert any("matmul" in line for line in taken)
    assert any("convolution" in line for line in taken)
    assert [line for line in taken if ",ref" in line] == []
