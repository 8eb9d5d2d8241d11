"""Mixed precision as a parameter of the training step: autocast around the forward, loss scaling for float16.

float32 and bfloat16 need no scaling; float16 gradients underflow, so the loss is multiplied by a factor that halves
when a gradient overflows (that step is skipped) and doubles after ``growth_interval`` good steps (Micikevicius et al.
2018, arXiv:1710.03740, section 3.2). Not run on a GPU yet; the scaling logic is tested on the CPU.
"""
from typing import Optional

import paddle

from passl_mixer.autocast import autocast


class Precision:
    """Autocast and loss scale of a run.

    Args:
        dtype: ``bfloat16``, ``float16`` or None (float32), from ``autocast_dtype``.
        initial_scale: first loss scale, used with float16 only; > 0.
        growth_interval: good steps before the scale doubles; > 0.
    """

    def __init__(self, dtype: Optional[str], *, initial_scale: float = 2.0**15, growth_interval: int = 2000):
        self.dtype = dtype
        self.scaled = dtype == "float16"
        self.scale = initial_scale if self.scaled else 1.0
        self.growth_interval = growth_interval
        self.good_steps = 0

    def autocast(self):
        """Context manager for the forward pass and the loss."""
        return autocast(self.dtype)

    @paddle.no_grad()
    def unscale(self, parameters) -> bool:
        """Divide the gradients by the scale; returns False when one is not finite and the step must be skipped."""
        if not self.scaled:
            return True
        gradients = [p.grad for p in parameters if p.grad is not None]
        finite = bool(paddle.stack([paddle.isfinite(g).all() for g in gradients]).all())
        if not finite:
            self.scale, self.good_steps = self.scale / 2, 0
            return False
        for gradient in gradients:
            gradient.scale_(1.0 / self.scale)
        self.good_steps += 1
        if self.good_steps == self.growth_interval:
            self.scale, self.good_steps = self.scale * 2, 0
        return True

    def state(self) -> dict:
        """The loss scale and its age, for a checkpoint."""
        return {"scale": self.scale, "good_steps": self.good_steps}

    def load(self, state: dict) -> None:
        """Continue from ``state()`` of an earlier run."""
        self.scale, self.good_steps = float(state["scale"]), int(state["good_steps"])
