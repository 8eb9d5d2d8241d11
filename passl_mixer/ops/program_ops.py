"""Operations on maps in static programs for a CPU, in the forms that Paddle's CPU kernels are quick at.

A product of [B, H, W, C] with [B, 1, 1, C] takes Paddle's CPU twenty times as long as one of two whole maps (measured,
8 x 56 x 56 x 64: 11.4 ms and 0.5 ms, the repetition included), and a mean over positions twelve times as long as a
product with 1 / (H * W). Eager networks have the compiled passes of ``map_ops`` instead, GPUs no such trouble. The
shift of CycleMLP has a form of its own (``deploy/cycle_mlp.py``).

Shapes: maps [B, H, W, C]; H, W and C known when the program is traced, B perhaps not.
"""
import paddle
import paddle.nn.functional as F

from passl_mixer.ops.twice import flatten


def in_cpu_program() -> bool:
    """Whether a static program is being traced for the CPU."""
    return not paddle.in_dynamic_mode() and paddle.get_device() == "cpu"


def map_mean(x_bhwc):
    """Mean over positions, [B, C]."""
    _, height, width, _ = x_bhwc.shape
    share = paddle.full([1, height * width], 1.0 / (height * width), x_bhwc.dtype)
    return paddle.matmul(share, flatten(x_bhwc, 1, 2)).squeeze(1)


def pad_axis(x, axis: int, before: int, after: int):
    """Zeros before and after a tensor along an axis.

    In programs by concatenation: where oneDNN pads anything but [B, C, H, W] it throws or damages the memory of the
    process (Paddle 3.3.1 and 2.6.2). A padded map is quicker by ``F.pad`` where the network does without oneDNN there
    (CycleMLP, ``export.py``).
    """
    if not (before or after):
        return x
    if not in_cpu_program():
        sides = [0] * (2 * x.ndim)
        sides[2 * axis], sides[2 * axis + 1] = before, after
        return F.pad(x, sides)
    shape = x.shape

    def zeros(length: int) -> list:
        return [paddle.zeros([*shape[:axis], length, *shape[axis + 1:]], x.dtype)] if length else []
    return paddle.concat([*zeros(before), x, *zeros(after)], axis=axis)


def scale_map(x_bhwc, share_bc):
    """Every channel of every image multiplied by its share [B, C]."""
    _, height, width, _ = x_bhwc.shape
    return x_bhwc * paddle.tile(share_bc.unsqueeze([1, 2]), [1, height, width, 1])
