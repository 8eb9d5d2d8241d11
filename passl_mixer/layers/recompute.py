"""Blocks whose activations are computed again in the backward pass instead of being kept (``train.recompute``).

Of every block only its input is kept between forward and backward, so that memory grows with the blocks' inputs and
not with all that is computed inside of them, for the price of a second forward pass. Loss and gradients are the same
bit for bit: the second pass draws the same random numbers (drop path) under the same autocast, and leaves the running
statistics of BatchNorm alone. Autocast on a GPU was not run.

Source: Chen et al. 2016, arXiv:1604.06174, section 4.1.
"""
import contextlib

import paddle
from paddle import nn
from paddle.amp.auto_cast import amp_state

from passl_mixer.autocast import autocast
from passl_mixer.errors import BadInput
from passl_mixer.ops.gradients import apply


def set_recompute(backbone, on: bool) -> None:
    """Say whether the blocks of a backbone are computed again in the backward pass.

    Args:
        backbone: any backbone of this package; ``apply_block`` looks at what is noted here on every layer in it.
        on: false, as built, keeps every activation.
    """
    for layer in backbone.sublayers():
        layer.recompute = on


def apply_block(block, x, *options):
    """``block(x, *options)``, which every backbone's loop over blocks calls.

    Where ``set_recompute`` turned it on, and the block is training with gradients in dynamic mode, its activations are
    not kept.

    Args:
        block: a layer from one tensor to one tensor.
        x: its input, [B, ...].
        options: no tensors.
    """
    if not (getattr(block, "recompute", False) and block.training and paddle.in_dynamic_mode()
            and paddle.is_grad_enabled()):
        return block(x, *options)
    parameters = [p for p in block.parameters() if not p.stop_gradient]
    if x.stop_gradient and not parameters:
        return block(x, *options)
    return apply(_Recompute, [x, *parameters], block, options)


class _Recompute:
    """The parameters are inputs too: their gradients go the way of all others, also where ``x`` needs none."""

    @staticmethod
    def forward(ctx, x, *parameters_and_block):
        *ctx.parameters, ctx.block, ctx.options = parameters_and_block
        ctx.x, ctx.random, ctx.autocast = x, paddle.get_rng_state(), _autocast_now()
        if not ctx.autocast["enable"]:
            return ctx.block(x, *ctx.options)
        # recorded, and let go at once: in bfloat16 a pass without gradients rounds less often than one with them
        x = x.detach()
        x.stop_gradient = not ctx.needs_grad[0]
        with paddle.enable_grad():
            return ctx.block(x, *ctx.options).detach()

    @staticmethod
    def gradients(ctx, dy):
        """By ``backward`` on tensors of their own: ``paddle.grad`` cannot run inside of another one."""
        x, *copies = copies_of_all = [t.detach() for t in (ctx.x, *ctx.parameters)]
        for t, needed in zip(copies_of_all, ctx.needs_grad):
            t.stop_gradient = not needed
        after = paddle.get_rng_state()
        paddle.set_rng_state(ctx.random)
        try:
            with paddle.enable_grad(), _autocast_as(ctx.autocast), _still_statistics(ctx.block), \
                    _in_place_of(ctx.block, ctx.parameters, copies):
                y = ctx.block(x, *ctx.options)
        finally:
            paddle.set_rng_state(after)
        paddle.autograd.backward([y], [dy])
        # a parameter that the block does not use has none
        return [paddle.zeros_like(t) if t.grad is None else t.grad for t in copies_of_all]

    @staticmethod
    def plain_gradients(ctx, dy):
        raise BadInput("a gradient of gradients (create_graph=True) was requested of a backbone whose blocks are "
                       "computed again, which have first derivatives only; call set_recompute(backbone, False), or set "
                       "train.recompute=false")


@contextlib.contextmanager
def _in_place_of(block, parameters, copies):
    """The block computes with copies of its parameters, which share their memory and collect gradients apart."""
    places = {id(parameter): copy for parameter, copy in zip(parameters, copies)}
    replaced = [(layer._parameters, name, parameter) for layer in block.sublayers(include_self=True)
                for name, parameter in layer._parameters.items() if id(parameter) in places]
    for holder, name, parameter in replaced:
        holder[name] = places[id(parameter)]
    try:
        yield
    finally:
        for holder, name, parameter in replaced:
            holder[name] = parameter


def _autocast_now() -> dict:
    """The autocast that was asked for, for ``_autocast_as``; on a CPU Paddle's tracer does not know it."""
    state = amp_state() or {"enable": False}
    return {key: state[key] for key in ("enable", "level", "dtype") if key in state}


def _autocast_as(state: dict):
    return autocast(state["dtype"], state["level"]) if state["enable"] else paddle.amp.auto_cast(enable=False)


@contextlib.contextmanager
def _still_statistics(block):
    """The running statistics keep their values: a momentum of 1 is what the first forward pass has left of them."""
    norms = [layer for layer in block.sublayers(include_self=True)
             if isinstance(layer, nn.layer.norm._BatchNormBase)]
    momenta = [norm._momentum for norm in norms]
    for norm in norms:
        norm._momentum = 1.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta):
            norm._momentum = momentum
