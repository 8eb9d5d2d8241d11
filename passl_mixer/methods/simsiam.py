"""SimSiam (arXiv:2011.10566; facebookresearch/simsiam ``builder.py``).

One network: no target, no negatives. Each view passes it by itself, as in the official code, so that BatchNorm
sees B images. The official ``--fix-pred-lr`` keeps the predictor's learning rate constant: ``optim.fixed_lr:
["predictor.*"]``; without it the predictor follows the schedule. The official SGD decays biases and norms too:
``optim.decay_vectors: true``.
"""
from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl_mixer.errors import BadInput
from passl_mixer.heads import build_predictor, require_projector
from passl_mixer.metrics import feature_std


def negative_cosine(p1, z2, p2, z1):
    """SimSiam's loss: negative cosine similarity of predictions and embeddings, the mean of both directions.

    Args:
        p1: predictions from the first views, [B, D]; need not be normalised.
        z2: embeddings of the second views, [B, D].
        p2: predictions from the second views, [B, D].
        z1: embeddings of the first views, [B, D].
    Returns:
        Scalar float32 in [-1, 1]: mean over B of -(cos(p1, z2) + cos(p2, z1)) / 2. Nothing is
        detached here; the caller detaches the embeddings.
    Raises:
        BadInput: the shapes differ or are not [B, D].
    Source: Chen and He 2020, arXiv:2011.10566, equations 1 and 2.
    """
    shapes = [list(t.shape) for t in (p1, z2, p2, z1)]
    if len(shapes[0]) != 2 or any(s != shapes[0] for s in shapes):
        raise BadInput(f"negative_cosine needs four [B, D] tensors of one shape, got {shapes}")
    with paddle.amp.auto_cast(enable=False):
        p1, z2, p2, z1 = (F.normalize(t.astype("float32"), axis=1) for t in (p1, z2, p2, z1))
        return -0.5 * ((p1 * z2).sum(axis=1) + (p2 * z1).sum(axis=1)).mean()


class SimSiam(nn.Layer):
    """The network predicts its own embedding of the other view; the embedding gets no gradient.

    Args:
        backbone: encoder, [B, 3, H, W] -> [B, num_features].
        head: projector, [B, num_features] -> [B, D]; the paper's ImageNet form is in ``heads/mlp.py``.
        predictor: an mlp head entry; its ``out`` is D. Options left out (null: all) are those of the paper's
            bottleneck: two layers, D / 4 hidden units, the projector's norm, a bias in the last layer only.
    Raises:
        BadInput: a classifier as head, or a predictor that does not fit.
    """

    num_views = 2

    def __init__(self, backbone, head, *, predictor: Optional[dict] = None):
        super().__init__()
        require_projector(head, "simsiam")
        self.backbone, self.head = backbone, head
        bottleneck = {"layers": 2, "hidden": max(1, head.out_features // 4), "norm": head.norm}
        self.predictor = build_predictor({**bottleneck, **(predictor or {})}, head, "simsiam")

    @property
    def encoder(self):
        return self.backbone

    def forward(self, views, labels=None):
        """``{"loss", "feature_std"}`` of two views [B, 3, H, W]; labels are not used."""
        features = self.backbone(views[0])
        z1, z2 = self.head(features), self.head(self.backbone(views[1]))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        return {"loss": negative_cosine(p1, z2.detach(), p2, z1.detach()), "feature_std": feature_std(features)}

    def after_step(self, step: int, total_steps: int) -> None:
        """Nothing is kept between steps."""

    def check_batch(self, batch_size: int, step_size: Optional[int] = None) -> None:
        """Refuse a batch that BatchNorm cannot normalise; ``step_size`` is not looked at.

        Raises:
            BadInput: a forward pass on fewer than 2 images.
        """
        if batch_size < 2:
            raise BadInput(f"simsiam normalises over the batch: a batch of {batch_size} is too small; "
                           "set data.batch_size (per device, accumulation step) to 2 or more")

    def trainable_parameters(self) -> list:
        """``[(structured name, parameter)]`` for the optimiser."""
        return [(name, p) for name, p in self.named_parameters() if p.trainable]
