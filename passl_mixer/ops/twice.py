"""Functions of Paddle whose gradients Paddle cannot differentiate (3.3.1, 2.6.2), with gradients that it can.

They are the eager references of softmax, GELU, LayerNorm and the norm of whole images. In programs and on GPUs the
operators are Paddle's own; there a second derivative raises Paddle's "doesn't have any grad op".
"""
from typing import Callable, Sequence

import paddle

from passl_mixer.ops.gradients import apply


def differentiable_twice(function: Callable, inputs: Sequence, gradients: Callable):
    """``function(*inputs)`` with Paddle's first gradient, and a second one where that is needed.

    Args:
        function: of tensors to a tensor, by Paddle's operators.
        inputs: tensors.
        gradients: ``gradients(*inputs, dy)`` gives for each input its gradient by differentiable operators, or a
            function without arguments that gives it.
    """
    return apply(_ByPaddle, inputs, function, gradients)


def _own_graph(function: Callable, inputs: Sequence) -> tuple:
    """Copies of the inputs that share their memory, and the function of them, with a graph of their own."""
    copies = [x.detach() for x in inputs]
    for copy in copies:
        copy.stop_gradient = False
    with paddle.enable_grad():
        return copies, function(*copies)


class _ByPaddle:
    """The first gradient is Paddle's, by a pass through a graph that holds nothing else."""

    @staticmethod
    def forward(ctx, *arguments):
        *inputs, function, gradients = arguments
        if not any(ctx.needs_grad):
            return function(*inputs)
        ctx.inputs, ctx.function, ctx.by_operators = inputs, function, gradients
        ctx.graph = _own_graph(function, inputs)
        return ctx.graph[1].detach()

    @staticmethod
    def gradients(ctx, dy):
        copies, y = ctx.graph or _own_graph(ctx.function, ctx.inputs)
        ctx.graph = None                        # one graph serves one pass
        paddle.autograd.backward([y], [dy])
        return [copy.grad for copy in copies]

    @staticmethod
    def plain_gradients(ctx, dy):
        return ctx.by_operators(*ctx.inputs, dy)
