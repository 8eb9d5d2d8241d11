"""Operations on maps in static programs for a CPU, in the forms that Paddle's CPU kernels are quick at.

A product of [B, H, W, C] with [B, 1, 1, C] takes Paddle's CPU twenty times as long as one of two whole maps (measured,
8 x 56 x 56 x 64: 11.4 ms and 0.5 ms, the repetition included), a slice of every third channel three times as long as
whole maps multiplied by 0 and 1, and a mean over positions twelve times as long as a product with 1 / (H * W). Eager
networks have the compiled passes of ``map_ops`` instead, GPUs no such trouble.

Shapes: maps [B, H, W, C]; H, W and C known when the program is traced, B perhaps not.
"""
import numpy as np
import paddle


def in_cpu_program() -> bool:
    """Whether a static program is being traced for the CPU."""
    return not paddle.in_dynamic_mode() and paddle.get_device() == "cpu"


def map_mean(x_bhwc):
    """Mean over positions, [B, C]."""
    _, height, width, _ = x_bhwc.shape
    share = paddle.full([1, height * width], 1.0 / (height * width), x_bhwc.dtype)
    return paddle.matmul(share, x_bhwc.flatten(1, 2)).squeeze(1)


def scale_map(x_bhwc, share_bc):
    """Every channel of every image multiplied by its share [B, C]."""
    _, height, width, _ = x_bhwc.shape
    return x_bhwc * paddle.tile(share_bc.unsqueeze([1, 2]), [1, height, width, 1])


def cycle_shift(x_bhwc, axis: int):
    """As ``map_ops.cycle_shift``: maps rolled by 0, 1 and -1, times 1 where channel and place are wanted."""
    wanted = np.stack([np.broadcast_to(np.arange(x_bhwc.shape[3]) % 3 == k, x_bhwc.shape[1:]) for k in range(3)])
    along = np.moveaxis(wanted, axis, 1)                # a view: [3, positions along the axis, .., C]
    along[1, -1], along[2, 0] = False, False            # zeros from outside
    images = [x_bhwc.shape[0], 1, 1, 1]
    masks = [paddle.tile(paddle.to_tensor(mask[None].astype("float32")), images) for mask in wanted]
    moved = [x_bhwc, paddle.roll(x_bhwc, -1, axis), paddle.roll(x_bhwc, 1, axis)]
    return paddle.add_n([map_bhwc * mask for map_bhwc, mask in zip(moved, masks)])
