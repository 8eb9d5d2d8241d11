"""Exponential moving average (EMA) of a network: MoCo's key encoder, BYOL's target.

Only trainable parameters are averaged. Paddle lists BatchNorm's running ``_mean`` and ``_variance`` among
``parameters()``; averaging them too would be another method (EMAN, arXiv:2101.07525). As in the official MoCo and BYOL,
the averaged network keeps running statistics of the batches it sees itself.
"""
import copy

import paddle


def frozen_copy(layer):
    """A deep copy of a layer with all parameters frozen."""
    twin = copy.deepcopy(layer)
    for parameter in twin.parameters():
        parameter.trainable = False
    return twin


@paddle.no_grad()
def ema_update(target, online, momentum: float) -> None:
    """``target = momentum * target + (1 - momentum) * online``, per trainable parameter of ``online``.

    Call it after the optimiser's step: between forward and backward it would corrupt gradients silently.

    Args:
        target: the averaged layer, made by ``frozen_copy(online)``.
        online: the trained layer.
        momentum: in [0, 1]; 1 leaves the target as it is.
    """
    averaged = dict(target.named_parameters())
    for name, parameter in online.named_parameters():
        if parameter.trainable:
            averaged[name].scale_(momentum).add_(parameter * (1.0 - momentum))
