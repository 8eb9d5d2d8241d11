"""Convolution of maps, in either layout, with zeros around the map.

On a CPU by native kernels: matrix products of patches, and kernels of their own for depth-wise convolutions and for
groups of two channels along one axis (Wave-MLP).
"""
import ctypes

import paddle
import paddle.nn.functional as F

from passl_mixer.errors import BadInput
from passl_mixer.ops import native
from passl_mixer.ops.axes import permute
from passl_mixer.ops.convolution_kernels import FIRST, LAST, Depthwise, InBfloat16, PairMix, conv_gradients
from passl_mixer.ops.gradients import apply
from passl_mixer.ops.memory import empty
from passl_mixer.ops.native import call, dense
from passl_mixer.ops.products import linear
from passl_mixer.ops.table import Implementation, Operator


def conv2d(x, weight, bias=None, *, stride: int = 1, padding=0, groups: int = 1, data_format: str = "NCHW"):
    """Two-dimensional convolution, zeros around the map.

    Args:
        x: [B, groups * I, H, W], or [B, H, W, groups * I] with the channels last.
        weight: [O, I, kernel height, kernel width], in either layout.
        bias: [O], or None.
        stride: positions between outputs, along both axes.
        padding: zeros at every edge, or the pair (along the height, along the width).
        groups: number of parts of the channels that are convolved apart.
        data_format: "NCHW", or "NHWC" where the channels are last.
    Returns:
        [B, O, h, w] or [B, h, w, O], where h = floor((H + 2 padding - kernel height) / stride) + 1, and w likewise.
    Raises:
        BadInput: if maps are too small for a kernel to give a single output.
    """
    return CONV2D(x, weight, bias, stride, padding, groups, data_format)


@paddle.jit.not_to_static
def _check_sides(sides, kernel, stride: int, padding) -> None:
    """Raise ``BadInput`` for maps that give no output: Paddle's kernels give an empty map, and then end the process.

    Unknown sides, -1 or symbols in a program, pass.
    """
    if any(isinstance(side, int) and side > 0 and side + 2 * zeros - length <= -stride
           for side, zeros, length in zip(sides, _pair(padding), kernel)):
        raise BadInput(f"maps of {sides[0]} x {sides[1]} positions are too small for a kernel of {kernel[0]} x "
                       f"{kernel[1]} with padding {padding}; give larger images")


def _paddle_conv2d(x, weight, bias, stride, padding, groups, data_format):
    if isinstance(stride, int) and x.ndim == weight.ndim == 4:
        _check_sides(x.shape[2:] if data_format == "NCHW" else x.shape[1:3], weight.shape[2:], stride, padding)
    return F.conv2d(x, weight, bias, stride=stride, padding=padding, groups=groups, data_format=data_format)


def _conv2d(x, weight, bias, stride, padding, groups, data_format):
    """Of maps with the channels first: Paddle's kernels for others are slow or wrong on a CPU."""
    if data_format == "NCHW":
        return _paddle_conv2d(x, weight, bias, stride, padding, groups, data_format)
    y = _paddle_conv2d(permute(x, FIRST), weight, bias, stride, padding, groups, "NCHW")
    return permute(y, LAST)


def _pair(padding) -> list:
    return [padding, padding] if isinstance(padding, int) else list(padding)


def _fits(x, weight, bias, stride, padding, groups, data_format) -> bool:
    """Whether the arguments fit each other, and the kernel the padded map.

    Where it does not, C and Python round the number of outputs in different ways.
    """
    if not (isinstance(stride, int) and (isinstance(padding, int) or len(padding) == 2)):
        return False
    if x.ndim != 4 or weight.ndim != 4 or 0 in x.shape or 0 in weight.shape:
        return False
    channels, sides = (x.shape[1], x.shape[2:]) if data_format == "NCHW" else (x.shape[3], x.shape[1:3])
    outputs, inputs, *kernel = weight.shape
    return (channels == groups * inputs and outputs % groups == 0 and (bias is None or bias.shape == [outputs])
            and stride > 0 and all(zeros >= 0 and side + 2 * zeros >= length
                                   for side, zeros, length in zip(sides, _pair(padding), kernel)))


class _Conv2D:
    """Of [B, C, H, W], without groups."""

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding):
        ctx.x, ctx.weight, ctx.stride, ctx.padding = x, weight, stride, padding
        sides = [(side + 2 * padding - kernel) // stride + 1 for side, kernel in zip(x.shape[2:], weight.shape[2:])]
        y = empty([x.shape[0], weight.shape[0], *sides])
        call("convolution", dense(x), dense(weight), None if bias is None else dense(bias), y,
             _sizes(x, weight, stride, padding))
        return y

    @staticmethod
    def gradients(ctx, dy):
        x, weight = ctx.x, ctx.weight
        gradients = [empty(x.shape) if ctx.needs_grad[0] else None, empty(weight.shape),
                     empty([weight.shape[0]]) if ctx.needs_grad[2] else None]
        call("convolution_gradient", dense(x), dense(weight), dense(dy), *gradients,
             _sizes(x, weight, ctx.stride, ctx.padding))
        return gradients

    @staticmethod
    def plain_gradients(ctx, dy):
        return (*conv_gradients(ctx.x, ctx.weight, dy, stride=ctx.stride, padding=ctx.padding, groups=1),
                lambda: dy.sum([0, 2, 3]))


def _sizes(x, weight, stride: int, padding: int):
    return (ctypes.c_int64 * 9)(*x.shape, weight.shape[0], *weight.shape[2:], stride, padding)


def _accepts_products(x, weight, bias, stride, padding, groups, data_format) -> bool:
    return (groups == 1 and _fits(x, weight, bias, stride, padding, groups, data_format)
            and len(set(_pair(padding))) == 1 and bool(native.load().has_products()))


def _by_products(x, weight, bias, stride, padding, groups, data_format):
    x = x if data_format == "NCHW" else permute(x, FIRST)
    y = apply(_Conv2D, [x, weight, bias], stride, _pair(padding)[0])
    return y if data_format == "NCHW" else permute(y, LAST)


def _accepts_depthwise(x, weight, bias, stride, padding, groups, data_format) -> bool:
    if (groups == 1 and weight.shape[0] != 1) or not _fits(x, weight, bias, stride, padding, groups, data_format):
        return False
    channels, inputs, height, width = weight.shape
    return (groups == channels and inputs == stride == 1 and height == width and height % 2 == 1
            and _pair(padding) == [height // 2, height // 2])


def _by_depthwise(x, weight, bias, stride, padding, groups, data_format):
    y_bhwc = apply(Depthwise, [x if data_format == "NHWC" else permute(x, LAST), weight, bias])
    return y_bhwc if data_format == "NHWC" else permute(y_bhwc, FIRST)


def _accepts_linear(x, weight, bias, stride, padding, groups, data_format) -> bool:
    return (data_format == "NHWC" and groups == stride == 1 and weight.shape[2:] == [1, 1]
            and _fits(x, weight, bias, stride, padding, groups, data_format) and _pair(padding) == [0, 0])


def _by_linear(x, weight, bias, stride, padding, groups, data_format):
    return linear(x, permute(weight.reshape(weight.shape[:2]), [1, 0]), bias)


def _accepts_pair_mix(x, weight, bias, stride, padding, groups, data_format) -> bool:
    if data_format != "NHWC" or bias is not None or not _fits(x, weight, bias, stride, padding, groups, data_format):
        return False
    channels, inputs, height, width = weight.shape
    return (inputs == 2 and groups == channels and 1 in (height, width) and height * width % 2 == 1 and stride == 1
            and _pair(padding) == [height // 2, width // 2])


def _by_pair_mix(x, weight, bias, stride, padding, groups, data_format):
    return apply(PairMix, [x, weight])


def _accepts_bf16(x, weight, bias, stride, padding, groups, data_format) -> bool:
    call = (x, weight, bias, stride, padding, groups, data_format)
    return groups == 1 and _fits(*call) and not _accepts_linear(*call)


def _in_bf16(x, weight, bias, stride, padding, groups, data_format):
    x_bhwc = x if data_format == "NHWC" else permute(x, LAST)
    y_bhwc = apply(InBfloat16, [x_bhwc, weight, bias], stride, _pair(padding))
    return y_bhwc if data_format == "NHWC" else permute(y_bhwc, FIRST)


CONV2D = Operator("conv2d", 3, _conv2d, gpu=_paddle_conv2d, native=[
    Implementation(_accepts_depthwise, _by_depthwise), Implementation(_accepts_linear, _by_linear),
    Implementation(_accepts_pair_mix, _by_pair_mix), Implementation(_accepts_products, _by_products)],
    bf16=[Implementation(_accepts_bf16, _in_bf16)])
