"""Initial values of parameters that several families share."""
import inspect
import math
from typing import Callable, Optional

import paddle
from paddle import nn


def attr(init: Optional[Callable]):
    """Parameter attribute of an initialiser; None keeps Paddle's default."""
    return None if init is None else paddle.ParamAttr(initializer=init)


def torch_uniform(fan_in: int) -> nn.initializer.Initializer:
    """PyTorch's default for convolution weights and biases: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = 1.0 / math.sqrt(fan_in)
    return nn.initializer.Uniform(-bound, bound)


def scaled_truncated_normal(std: float) -> nn.initializer.Initializer:
    """Normal cut at two of its deviations, with deviation ``std`` after the cut (which leaves 0.8796)."""
    wide = std / 0.87962566103423978
    # Paddle 2.6 cuts at two deviations without being told; 3.x takes absolute limits.
    takes_limits = "a" in inspect.signature(nn.initializer.TruncatedNormal.__init__).parameters
    limits = {"a": -2 * wide, "b": 2 * wide} if takes_limits else {}
    return nn.initializer.TruncatedNormal(std=wide, **limits)
