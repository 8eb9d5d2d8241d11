"""BYOL (arXiv:2006.07733; deepmind-research ``byol/byol_experiment.py``).

Each view passes the networks by itself, as in the official code, so that BatchNorm sees B images. The target
network normalises with the statistics of its own batch too (train mode). It starts as a copy of the online
network.
"""
import math
from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl_mixer.errors import BadInput
from passl_mixer.heads import build_predictor, require_projector
from passl_mixer.methods.ema import ema_update, frozen_copy
from passl_mixer.metrics import feature_std


def regression_loss(p1, z2, p2, z1):
    """BYOL's loss: squared distance of normalised predictions and targets, in both directions.

    Args:
        p1: predictions from the first views, [B, D]; need not be normalised.
        z2: target embeddings of the second views, [B, D].
        p2: predictions from the second views, [B, D].
        z1: target embeddings of the first views, [B, D].
    Returns:
        Scalar float32 in [0, 8]: mean over B of 4 - 2 cos(p1, z2) - 2 cos(p2, z1). Nothing is detached
        here; the caller detaches the targets.
    Raises:
        BadInput: the shapes differ or are not [B, D].
    Source: Grill et al. 2020, arXiv:2006.07733, equation 2, symmetrised.
    """
    shapes = [list(t.shape) for t in (p1, z2, p2, z1)]
    if len(shapes[0]) != 2 or any(s != shapes[0] for s in shapes):
        raise BadInput(f"regression_loss needs four [B, D] tensors of one shape, got {shapes}")
    with paddle.amp.auto_cast(enable=False):
        p1, z2, p2, z1 = (F.normalize(t.astype("float32"), axis=1) for t in (p1, z2, p2, z1))
        return (4.0 - 2.0 * (p1 * z2).sum(axis=1) - 2.0 * (p2 * z1).sum(axis=1)).mean()


def target_momentum(base: float, progress: float) -> float:
    """Momentum of the target's moving average, a cosine from ``base`` at progress 0 to 1 at progress 1."""
    return 1.0 - (1.0 - base) * (math.cos(math.pi * progress) + 1.0) / 2.0


class BYOL(nn.Layer):
    """Bootstrap your own latent: the online network predicts the target's embedding of the other view.

    The target is a moving average of the online network.

    Args:
        backbone: online encoder, [B, 3, H, W] -> [B, num_features].
        head: online projector, [B, num_features] -> [B, D].
        predictor: an mlp head entry, on the online side only; its ``out`` is D. null: two layers with the
            projector's hidden width, norm and biases.
        momentum: of the target's moving average at the start, in [0, 1]. Paper: 0.99 for 300 epochs, 0.996 for 1000.
    Raises:
        BadInput: a classifier as head, a predictor that does not fit, or a momentum out of range.
    """

    num_views = 2

    def __init__(self, backbone, head, *, predictor: Optional[dict] = None, momentum: float = 0.99):
        super().__init__()
        require_projector(head, "byol")
        if not 0 <= momentum <= 1:
            raise BadInput(f"byol's momentum must be in [0, 1], got {momentum}")
        self.backbone, self.head = backbone, head
        if predictor is None:
            predictor = {"layers": 2, "hidden": head.hidden, "norm": head.norm, **head.bias_options}
        self.predictor = build_predictor(predictor, head, "byol")
        self.target_backbone, self.target_head = frozen_copy(backbone), frozen_copy(head)
        self.momentum = momentum

    @property
    def encoder(self):
        return self.backbone

    def forward(self, views, labels=None):
        """``{"loss", "feature_std"}`` of two views [B, 3, H, W]; labels are not used."""
        features = self.backbone(views[0])
        p1, p2 = self.predictor(self.head(features)), self.predictor(self.head(self.backbone(views[1])))
        with paddle.no_grad():
            z1, z2 = (self.target_head(self.target_backbone(view)) for view in views)
        return {"loss": regression_loss(p1, z2, p2, z1), "feature_std": feature_std(features)}

    def after_step(self, step: int, total_steps: int) -> None:
        """Update the target, with the momentum of the step that ends.

        Args:
            step: steps done before it, 0 <= step < total_steps.
            total_steps: steps of the whole run.
        """
        momentum = target_momentum(self.momentum, step / total_steps)
        ema_update(self.target_backbone, self.backbone, momentum)
        ema_update(self.target_head, self.head, momentum)

    def check_batch(self, batch_size: int, step_size: Optional[int] = None) -> None:
        """Refuse a batch that BatchNorm cannot normalise; ``step_size`` is not looked at.

        Raises:
            BadInput: a forward pass on fewer than 2 images.
        """
        if batch_size < 2:
            raise BadInput(f"byol normalises over the batch: a batch of {batch_size} is too small; "
                           "set data.batch_size (per device, accumulation step) to 2 or more")

    def trainable_parameters(self) -> list:
        """``[(structured name, parameter)]`` for the optimiser: the online network's and the predictor's."""
        return [(name, p) for name, p in self.named_parameters() if p.trainable]
