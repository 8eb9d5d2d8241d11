"""Data-parallel processes: rank, world size and collective operations; the identity on one process."""
import paddle
import paddle.distributed as dist

from passl_mixer.ops.gradients import apply


def init() -> None:
    """Join the group of ``paddle.distributed.launch``; does nothing on one process."""
    if world_size() > 1 and not dist.is_initialized():
        dist.init_parallel_env()


def rank() -> int:
    """Rank of this process, 0 to world_size - 1."""
    return dist.get_rank()


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size()


class _AllGather:
    """Gathers forward; backward, every process sends the others the gradients of their rows."""

    @staticmethod
    def forward(ctx, x):
        return all_gather_no_grad(x)

    @staticmethod
    def gradients(ctx, dy):
        return [apply(_OwnRows, [dy])]

    plain_gradients = gradients


class _OwnRows:
    """The rows of this process in the sum of all processes' tensors; its gradient is gathered."""

    @staticmethod
    def forward(ctx, dy):
        total = dy.clone()
        dist.all_reduce(total)
        rows = dy.shape[0] // world_size()
        return total[rank() * rows:(rank() + 1) * rows].clone()

    @staticmethod
    def gradients(ctx, ddx):
        return [all_gather(ddx)]

    plain_gradients = gradients


def all_gather(x):
    """Rows of all processes, in order of rank, with gradient.

    The gradient of a process' rows is the sum of their gradients in all processes' losses. If every process computes
    the loss of the gathered batch, and the gradients of parameters are averaged over processes, the result is the
    gradient of that loss.

    Args:
        x: [B, ...], the same shape on every process.
    Returns:
        [world_size * B, ...].
    """
    return apply(_AllGather, [x]) if world_size() > 1 else x


def all_gather_no_grad(x):
    """Rows of all processes, in order of rank, without gradient: [B, ...] -> [world_size * B, ...]."""
    if world_size() == 1:
        return x.detach()
    parts = []
    dist.all_gather(parts, x.detach())
    return paddle.concat(parts)


def broadcast(x, source: int = 0):
    """Overwrite ``x`` [...], of any shape, in place with its value on process ``source``; returns ``x``."""
    if world_size() > 1:
        with paddle.no_grad():
            dist.broadcast(x, src=source)
    return x


def broadcast_state(layer) -> None:
    """Copy the parameters and buffers of rank 0 to every process."""
    if world_size() > 1:
        for value in layer.state_dict().values():
            broadcast(value)


def maximum(numbers: list) -> list:
    """The largest of each number over processes. Returns when all have called it, after one read from the device.

    Args:
        numbers: floats, the same count on every process; exchanged as float32.
    """
    return _reduced(numbers, dist.ReduceOp.MAX)


def mean(numbers: list) -> list:
    """The mean of each number over processes; otherwise as ``maximum``."""
    return [total / world_size() for total in _reduced(numbers, dist.ReduceOp.SUM)]


def _reduced(numbers: list, op) -> list:
    if world_size() == 1:
        return numbers
    reduced = paddle.to_tensor(numbers, dtype="float32")
    dist.all_reduce(reduced, op=op)
    return reduced.tolist()


BUCKET = 8 * 2 ** 20      # elements of a bucket: 32 MiB of float32


@paddle.no_grad()
def average_gradients(parameters) -> None:
    """Replace every gradient by its mean over processes, in place; does nothing on one process.

    They are exchanged in buckets: a network has hundreds of small ones, and every exchange waits for all processes.
    """
    if world_size() == 1:
        return
    bucket, size = [], 0
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if bucket and (size + parameter.size > BUCKET or parameter.grad.dtype != bucket[0].dtype):
            _average(bucket)
            bucket, size = [], 0
        bucket.append(parameter.grad)
        size += parameter.size
    if bucket:
        _average(bucket)


def _average(gradients: list) -> None:
    """Mean over processes of tensors of one dtype, in place, by one exchange."""
    if len(gradients) == 1:
        dist.all_reduce(gradients[0])
        gradients[0].scale_(1.0 / world_size())
        return
    flat = paddle.concat([gradient.reshape([-1]) for gradient in gradients])
    dist.all_reduce(flat)
    flat.scale_(1.0 / world_size())
    for gradient, mean in zip(gradients, flat.split([gradient.size for gradient in gradients])):
        gradient.copy_(mean.reshape(gradient.shape), False)
