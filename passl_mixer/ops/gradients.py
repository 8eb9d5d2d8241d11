"""Operators of our own in Paddle's automatic differentiation: every input's gradient by itself, and twice.

Paddle's way is the ``PyLayer``. Where ``paddle.grad`` asks for some of its inputs only, Paddle (3.3.1 and 2.6.2)
prunes the others from the graph and then insists that the layer's backward returns None for these, but does not say
which they are. A layer with one input knows no such case: it is pruned whole or not at all. So an operator with several
inputs becomes one small layer for each input, which returns a number that stands for it, and one layer for the
operator, which takes the sum of these numbers. Backward, the operator's layer lays the gradient of its output down, and
every small layer that was not pruned takes its input's gradient from there.

A gradient of gradients (``create_graph=True``) needs these to be made of Paddle's differentiable operators, so every
operator says them twice. ``paddle.grad`` inside a layer's backward would do it from the forward pass alone, but ends
the process when the pass around it is one of ``paddle.grad`` too (segmentation fault, both versions).
"""
import functools
import weakref
from typing import Sequence

import paddle
from paddle.autograd import PyLayer

from passl_mixer.errors import BadInput


@functools.cache
def _zero():
    """One number for all calls: nothing but zeros is added to it."""
    return paddle.zeros([1], "float32")


class Kept:
    """Attributes that the forward pass of an operator notes for its gradients.

    Tensors are noted as they came, not as copies: gradients of gradients follow them. An output is noted detached.

    Args:
        needs_grad: for each input whether its gradient may be needed.
    """

    def __init__(self, needs_grad: Sequence[bool]):
        self.needs_grad = needs_grad


class Call:
    """One call of an operator, and the backward pass that is under way in it; dy is [...], of the output's shape.

    What is kept does not know the call: functions that wait for a pruned input would hold it, and it them.
    """

    def __init__(self, operator, kept: Kept):
        self.operator, self.kept = operator, kept
        self.dy, self.gradients, self.left, self.letter = None, None, 0, None
        self.zero = _zero()             # what stands for inputs, and signals that gradients are there

    def lay_down(self, dy) -> None:
        """Begin a backward pass; what one before left, whose inputs were pruned, goes."""
        self.dy, self.gradients, self.left = dy, None, sum(self.kept.needs_grad)

    def take(self, index: int):
        """One input's gradient; with the last one everything is let go."""
        if self.gradients is None:
            self.gradients = list(self.operator.gradients(self.kept, self.dy))
        gradient, self.gradients[index] = _value(self.gradients[index]), None
        self.left -= 1
        if not self.left:
            self.dy = self.gradients = None
        return gradient


def _value(gradient):
    return gradient if paddle.is_tensor(gradient) else gradient()


@paddle.jit.not_to_static               # runs as it stands where a traced network is called eagerly
def apply(operator, inputs: Sequence, *options):
    """The output of an operator, differentiable in each of its inputs.

    Args:
        operator: a class of three static methods.
            ``forward(ctx, *inputs, *options)`` gives the output, or a tuple of them where there is one input. It runs
            without recording, and notes in ``ctx``, of the class ``Kept``, what the gradients need.
            ``gradients(ctx, dy)`` gives for each input its gradient, or a function without arguments that gives it;
            anything where ``ctx.needs_grad`` is false. ``dy`` is a list where the output is a tuple. Every gradient is
            a tensor of its own, not ``dy``: Paddle adds into them.
            ``plain_gradients(ctx, dy)`` gives the same by operators that are differentiable.
        inputs: tensors; None for one that is left out.
        options: no tensors that need gradients.
    """
    recording = paddle.is_grad_enabled()
    kept = Kept([recording and t is not None and not t.stop_gradient for t in inputs])
    count = sum(kept.needs_grad)
    if count == 0:
        return operator.forward(kept, *inputs, *options)
    run = functools.partial(operator.forward, kept, *inputs, *options)      # a list of tensors would be inputs
    layers = []
    if count == 1:
        y = _Single.apply(inputs[kept.needs_grad.index(True)], operator, kept, run, layers)
    else:
        call = Call(operator, kept)
        stand_ins = [_Input.apply(t, call, i) for i, t in enumerate(inputs) if kept.needs_grad[i]]
        y = _Several.apply(paddle.add_n(stand_ins), call, run, layers)
    if paddle.is_tensor(y):         # Paddle 2.6 cannot call a hook of an output, of several, that has no gradient
        y.register_hook(functools.partial(_check_alive, *layers))
    return y


def _check_alive(layer, dy) -> None:
    """Refuse a second ``backward`` in words: Paddle lets go of a layer after its first one, and the process would end.

    Only a hook comes before the layer. ``paddle.grad`` runs copies of layers, as often as one likes.
    """
    if layer() is None:
        raise BadInput("backward() was called twice on one graph, which Paddle cannot do where an operator is not its "
                       "own; call paddle.grad(..., retain_graph=True) for all passes but the last, or compute the "
                       "loss again")


class _Single(PyLayer):
    """An operator of which one input needs a gradient."""

    @staticmethod
    def forward(ctx, x, operator, kept, run, layers):
        ctx.operator, ctx.kept = operator, kept
        layers.append(weakref.ref(ctx))
        y = run()
        if isinstance(y, tuple):            # in paddle.grad, Paddle 2.6 dies of making zeros for an unused output
            ctx.set_materialize_grads(False)
            ctx.likes = [(t.shape, t.dtype) for t in y]
        return y

    @staticmethod
    def backward(ctx, *dy):
        operator, kept = ctx.operator, ctx.kept
        dy = dy[0] if len(dy) == 1 else [
            paddle.zeros(*like) if one is None else one for one, like in zip(dy, ctx.likes)]
        # Paddle records in a backward pass if, and only if, that is to be differentiated too.
        again = paddle.is_grad_enabled()
        gradients = operator.plain_gradients(kept, dy) if again else operator.gradients(kept, dy)
        return _value(gradients[kept.needs_grad.index(True)])


class _Input(PyLayer):
    """An input of an operator with several: gives a number that stands for it."""

    @staticmethod
    def forward(ctx, x, call, index):
        ctx.call, ctx.index = call, index
        return call.zero.detach()

    @staticmethod
    def backward(ctx, signal):
        call = ctx.call
        if not paddle.is_grad_enabled():
            return call.take(ctx.index)
        dy = _Receive.apply(signal, call.letter)
        return _value(call.operator.plain_gradients(call.kept, dy)[ctx.index])


class _Several(PyLayer):
    """The operator itself; its one input is the sum of what stands for its inputs."""

    @staticmethod
    def forward(ctx, stand_ins, call, run, layers):
        ctx.call = call
        layers.append(weakref.ref(ctx))
        return run()

    @staticmethod
    def backward(ctx, dy):
        if not paddle.is_grad_enabled():
            ctx.call.lay_down(dy)
            return ctx.call.zero.detach()
        ctx.call.letter = _Letter(dy.detach())
        return _Send.apply(dy, ctx.call.letter)


class _Letter:
    """A gradient on its way from an operator's layer to those of its inputs, in a pass that is differentiated too.

    The tensor with its own graph must not be laid down: the graph holds the operator's call, and where an input is
    pruned the two would hold each other for ever. So the value is laid down, and the graph is that of the signal.
    """

    def __init__(self, value):
        self.value, self.answers = value, []


class _Send(PyLayer):
    """Gives the signal for a letter; backward, the sum of what its receivers answered."""

    @staticmethod
    def forward(ctx, dy, letter):
        ctx.letter = letter
        return paddle.zeros([1], "float32")

    @staticmethod
    def backward(ctx, signal):
        answers, ctx.letter.answers = ctx.letter.answers, []
        return paddle.add_n(answers)


class _Receive(PyLayer):
    @staticmethod
    def forward(ctx, signal, letter):
        ctx.letter = letter
        return letter.value.clone()

    @staticmethod
    def backward(ctx, answer):
        ctx.letter.answers.append(answer)
        return paddle.zeros([1], "float32")


def norm_gradients(x, weight, dy, axes: Sequence[int], sums: Sequence[int], epsilon: float, mean_of=None):
    """The gradients of ``(x - mean) / sqrt(variance + epsilon) * weight + bias`` by differentiable operators.

    Args:
        x: [...], any shape; the moments are its means over ``axes``, of all processes where ``mean_of`` takes them so.
        weight: [...], of a shape that is broadcast to that of ``x``.
        dy: gradient of the result, [...], of the shape of ``x``.
        axes: those of the moments.
        sums: those over which a scale and a shift are shared.
        epsilon: added to the variance.
        mean_of: ``mean_of(tensor)``, the mean over ``axes``, which are kept; Paddle's by default.
    Returns:
        Functions that give the gradients of x, of the scale and of the shift.
    """
    mean_of = mean_of or functools.partial(paddle.mean, axis=axes, keepdim=True)
    centred = x - mean_of(x)
    rstd = paddle.rsqrt(mean_of(centred * centred) + epsilon)
    normed = centred * rstd

    def input_gradient():
        weighted = dy * weight
        return rstd * (weighted - mean_of(weighted) - normed * mean_of(weighted * normed))

    return input_gradient, lambda: (dy * normed).sum(sums), lambda: dy.sum(sums)
