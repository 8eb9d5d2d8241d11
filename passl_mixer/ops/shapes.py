"""Construction of networks without their weights."""
import contextlib

import paddle


@contextlib.contextmanager
def shapes_only():
    """Context in which layers are built in a temporary static graph: shapes are known, nothing is allocated.

    Do not use anything built inside after it: the graph is gone, and Paddle 3 crashes on its tensors.
    """
    was_dynamic = paddle.in_dynamic_mode()
    paddle.enable_static()
    try:
        with paddle.static.program_guard(paddle.static.Program(), paddle.static.Program()):
            with paddle.utils.unique_name.guard():
                yield
    finally:
        if was_dynamic:
            paddle.disable_static()


def blank_images(in_chans: int, height: int, width: int):
    """A batch of one image of zeros; within ``shapes_only`` one without numbers.

    Args:
        in_chans: image channels.
        height, width: in pixels.
    Returns:
        [1, in_chans, height, width].
    """
    shape = [1, in_chans, height, width]
    return paddle.zeros(shape) if paddle.in_dynamic_mode() else paddle.static.data("images", shape, "float32")
