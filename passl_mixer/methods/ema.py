"""Second networks that follow the first by an exponential moving average (MoCo's key encoder, BYOL's target).

Which tensors: trainable parameters only. Paddle lists BatchNorm's running ``_mean`` and ``_variance`` among
``parameters()``; averaging them too would be another method (EMAN, arXiv:2101.07525). Here, as in the
official MoCo and BYOL, the second network keeps running statistics of the batches it sees itself.
"""
import copy

import paddle


def frozen_copy(layer):
    """A deep copy of a layer whose parameters the optimiser does not get and gradients do not reach."""
    twin = copy.deepcopy(layer)
    for parameter in twin.parameters():
        parameter.trainable = False
    return twin


@paddle.no_grad()
def ema_update(target, online, momentum: float) -> None:
    """``target = momentum * target + (1 - momentum) * online``, per trainable parameter of ``online``.

    To be called after the optimiser's step: between forward and backward it would corrupt gradients silently.

    Args:
        target: layer that follows; made by ``frozen_copy(online)``.
        online: layer that is trained.
        momentum: in [0, 1]; 1 leaves the target as it is.
    """
    followers = dict(target.named_parameters())
    for name, parameter in online.named_parameters():
        if parameter.trainable:
            followers[name].scale_(momentum).add_(parameter * (1.0 - momentum))
