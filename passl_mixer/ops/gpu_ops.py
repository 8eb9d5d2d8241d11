"""What is done otherwise on a GPU: products with their bias in one kernel, convolutions of maps as they lie.

Not run on a GPU yet. LayerNorm, GELU and the rest are Paddle's operators there, each one kernel in either direction.
"""
import functools
from typing import Callable

import paddle
import paddle.nn.functional as F


def on_gpu(x) -> bool:
    """Whether ``x`` is, or will be when a program is being traced, on a GPU."""
    return x.place.is_gpu_place() if paddle.in_dynamic_mode() else paddle.get_device().startswith("gpu")


@functools.cache
def fused_linear() -> Callable:
    """The ``linear`` that adds the bias, and sums its gradient, in the kernel of the matrix product.

    From Paddle 3.3 on ``F.linear`` is that. Before, there is an operator for CUDA 11.6 and later, which is tried once.
    """
    if hasattr(paddle._C_ops, "linear_v2"):
        return F.linear
    with paddle.amp.auto_cast(enable=False):
        try:
            found, wanted = (_trial(linear) for linear in (paddle.incubate.nn.functional.fused_linear, F.linear))
        except Exception:                       # not in this build: whatever it raises, the plain one works
            return F.linear
    close = all(bool(paddle.allclose(one, other, rtol=1e-3, atol=1e-3)) for one, other in zip(found, wanted))
    return paddle.incubate.nn.functional.fused_linear if close else F.linear


def _trial(linear: Callable) -> list:
    """The result of a small linear map and its three gradients."""
    inputs = [paddle.linspace(-1, 1, 16).reshape([2, 8]), paddle.linspace(0, 1, 64).reshape([8, 8]),
              paddle.linspace(1, 2, 8)]
    for tensor in inputs:
        tensor.stop_gradient = False
    y = linear(*inputs)
    (y * y).sum().backward()
    return [y, *(tensor.grad for tensor in inputs)]


def conv2d(x_bhwc, weight, bias, *, stride: int, padding, groups: int):
    """Convolution of [B, H, W, C] with [O, C / groups, kernel_h, kernel_w] that transposes no map.

    On the tensor cores, in bfloat16 and float16, cuDNN works on this layout; in float32 Paddle transposes inside, as
    the caller would have to.
    """
    return F.conv2d(x_bhwc, weight, bias, stride=stride, padding=padding, groups=groups, data_format="NHWC")
