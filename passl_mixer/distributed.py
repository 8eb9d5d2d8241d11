"""Processes that train together: rank, size and the exchanges of methods and training. Identity on one process."""
import paddle
import paddle.distributed as dist

from passl_mixer.ops.gradients import apply


def init() -> None:
    """Join the group that ``paddle.distributed.launch`` described; nothing when there is one process."""
    if world_size() > 1 and not dist.is_initialized():
        dist.init_parallel_env()


def rank() -> int:
    """This process, in [0, world_size)."""
    return dist.get_rank()


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size()


class _AllGather:
    """Gather forward; backward, every process sends the others the gradients of their rows."""

    @staticmethod
    def forward(ctx, x):
        return all_gather_no_grad(x)

    @staticmethod
    def gradients(ctx, dy):
        return [apply(_OwnRows, [dy])]

    plain_gradients = gradients


class _OwnRows:
    """The sum of all processes' tensors, and of that the rows of this process; its gradient is gathered."""

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

    The gradient of a process' rows is the sum of what all processes' losses say about them. So when every
    process computes the loss of the gathered batch and gradients of parameters are then averaged over
    processes, the result is the gradient of that loss.

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
    """Overwrite ``x`` in place with the value of process ``source``; returns ``x``."""
    if world_size() > 1:
        with paddle.no_grad():
            dist.broadcast(x, src=source)
    return x


def broadcast_state(layer) -> None:
    """Give every process the parameters and buffers of the first."""
    if world_size() > 1:
        for value in layer.state_dict().values():
            broadcast(value)


def maximum(numbers: list) -> list:
    """The largest of each number over processes; returns when all have called it, after one read from the device.

    Args:
        numbers: floats, as many on every process; float32 on the way.
    """
    return _reduced(numbers, dist.ReduceOp.MAX)


def mean(numbers: list) -> list:
    """The mean of each number over processes; as ``maximum`` otherwise."""
    return [total / world_size() for total in _reduced(numbers, dist.ReduceOp.SUM)]


def _reduced(numbers: list, op) -> list:
    if world_size() == 1:
        return numbers
    found = paddle.to_tensor(numbers, dtype="float32")
    dist.all_reduce(found, op=op)
    return found.tolist()


BUCKET = 8 * 2 ** 20      # numbers that travel together: 32 MiB of float32


@paddle.no_grad()
def average_gradients(parameters) -> None:
    """Replace every gradient by its mean over processes, in place; nothing on one process.

    Gradients travel in buckets, since a network has hundreds of small ones and every exchange waits for all processes.
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
