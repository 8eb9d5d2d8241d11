"""MoCo v3 (arXiv:2104.02057; facebookresearch/moco-v3 ``builder.py``, ``vits.py``).

No queue: the keys of the batch, over all processes, are the negatives. Each view passes the networks by itself.
The official code updates the key encoder in every iteration before the keys are computed. This one updates it after
the optimiser's step, with the momentum of the step that follows. The sequence is the same, as both encoders are equal
at the first iteration. The key encoder keeps its own BatchNorm statistics (see ``ema.py``).

Frozen patch projection (the paper's section 4.2): some backbones have a patch projection, a ``stem`` that is one
convolution with its kernel equal to its stride (MLP-Mixer, ResMLP, gMLP, S2-MLP v1, ViP, AS-MLP, ConvMixer, ViT, Swin).
With ``freeze_stem`` it keeps its random values, and key and query encoder share it. Other backbones (ConvMLP, CycleMLP,
Hire-MLP, Wave-MLP, S2-MLP v2, ResNet) always train their stems.
Deviation: the position embedding of a ViT is left to the backbone; the paper fixes it.
"""
from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl_mixer import distributed
from passl_mixer.errors import BadInput
from passl_mixer.heads import build_predictor, require_projector
from passl_mixer.methods.byol import target_momentum
from passl_mixer.methods.cross_entropy import mean_cross_entropy
from passl_mixer.methods.ema import ema_update, frozen_copy
from passl_mixer.metrics import feature_std


def contrastive_loss(q, k, temperature: float):
    """InfoNCE: cross entropy of each query's key among the keys of all images of all processes.

    Args:
        q: queries, [B, D]; normalised here.
        k: keys, [B, D]; row i belongs to query i; normalised here, no gradient reaches them.
        temperature: divides the similarities; > 0, dimensionless.
    Returns:
        Scalar float32: 2 * temperature * mean cross entropy (nats) over this process' B queries. Equals
        2 * temperature * log(world_size * B) when all embeddings coincide.
    Raises:
        BadInput: the shapes differ or are not [B, D], or ``temperature`` is not positive.
    Source: Chen, Xie and He 2021, arXiv:2104.02057, equation 1 and algorithm 1.
    """
    if len(q.shape) != 2 or list(q.shape) != list(k.shape):
        raise BadInput(f"contrastive_loss needs two [B, D] tensors of one shape, got {list(q.shape)} and "
                       f"{list(k.shape)}")
    if not temperature > 0:
        raise BadInput(f"temperature must be positive, got {temperature}")
    with paddle.amp.auto_cast(enable=False):  # similarities / 0.2 lose too much in half precision
        q = F.normalize(q.astype("float32"), axis=1)
        k = distributed.all_gather_no_grad(F.normalize(k.astype("float32"), axis=1))  # [world_size * B, D]
        logits = paddle.matmul(q, k, transpose_y=True) / temperature
        labels = paddle.arange(q.shape[0]) + q.shape[0] * distributed.rank()
        return mean_cross_entropy(logits, labels, q, k) * (2 * temperature)


def patch_projection(backbone):
    """The patch projection of a backbone: ``stem``, if its kernel equals its stride, else None."""
    stem = getattr(backbone, "stem", None)
    if not isinstance(stem, nn.Conv2D):
        return None
    return stem if list(stem.weight.shape[2:]) == list(stem._stride) else None


class MoCoV3(nn.Layer):
    """Queries of each view against keys of the other view, which a momentum encoder makes; negatives from the batch.

    Args:
        backbone: encoder of queries, [B, 3, H, W] -> [B, num_features].
        head: projector, [B, num_features] -> [B, D]; the paper's forms are in ``heads/mlp.py``.
        predictor: an mlp head entry, on the query side only; its ``out`` is D. null: the paper's for ViT, two
            layers with the projector's hidden width and norm, the last norm with neither scale nor shift.
        momentum: of the key encoder's moving average at the start, in [0, 1]; it rises to 1 by a cosine.
        temperature: of the loss; the paper has 0.2 for ViT and 1.0 for ResNet.
        freeze_stem: keep the patch projection as it is; without effect on backbones that have none. The stem of the
            given backbone is frozen in place.
    Raises:
        BadInput: a classifier as head, a predictor that does not fit, or a temperature or momentum out of range.
    """

    num_views = 2

    def __init__(self, backbone, head, *, predictor: Optional[dict] = None, momentum: float = 0.99,
                 temperature: float = 0.2, freeze_stem: bool = True):
        super().__init__()
        require_projector(head, "moco_v3")
        if not temperature > 0 or not 0 <= momentum <= 1:
            raise BadInput(f"moco_v3 needs temperature > 0 and momentum in [0, 1], got {temperature} and "
                           f"{momentum}")
        if predictor is None:
            predictor = {"layers": 2, "hidden": head.hidden, "norm": head.norm}
            predictor.update({"last_norm": True, "last_affine": False} if head.norm else {})
        self.backbone, self.head = backbone, head
        self.predictor = build_predictor(predictor, head, "moco_v3")
        self.key_backbone, self.key_head = frozen_copy(backbone), frozen_copy(head)
        stem = patch_projection(backbone) if freeze_stem else None
        if stem is not None:
            for parameter in stem.parameters():
                parameter.trainable = False
            self.key_backbone.stem = stem  # shared: weights that are loaded later must reach both encoders
        self.momentum, self.temperature = momentum, temperature

    @property
    def encoder(self):
        return self.backbone

    def forward(self, views, labels=None):
        """``{"loss", "feature_std"}`` of two views [B, 3, H, W]; labels are not used."""
        features = self.backbone(views[0])
        q1, q2 = self.predictor(self.head(features)), self.predictor(self.head(self.backbone(views[1])))
        with paddle.no_grad():
            k1, k2 = (self.key_head(self.key_backbone(view)) for view in views)
        loss = contrastive_loss(q1, k2, self.temperature) + contrastive_loss(q2, k1, self.temperature)
        return {"loss": loss, "feature_std": feature_std(features)}

    def after_step(self, step: int, total_steps: int) -> None:
        """Update the key encoder, with the momentum of the next step, whose keys it makes.

        Args:
            step: steps done before the one that ends, 0 <= step < total_steps.
            total_steps: steps of the whole run.
        """
        momentum = target_momentum(self.momentum, (step + 1) / total_steps)
        ema_update(self.key_backbone, self.backbone, momentum)
        ema_update(self.key_head, self.head, momentum)

    def check_batch(self, batch_size: int, step_size: Optional[int] = None) -> None:
        """Refuse a batch without negatives; ``step_size`` is not looked at.

        Raises:
            BadInput: a forward pass on fewer than 2 images.
        """
        if batch_size < 2:
            raise BadInput(f"moco_v3 contrasts the images of a batch: a batch of {batch_size} has no "
                           "negatives; set data.batch_size (per device and accumulation step) to 2 or more")

    def trainable_parameters(self) -> list:
        """``[(structured name, parameter)]`` for the optimiser: the query encoder's and the predictor's."""
        return [(name, p) for name, p in self.named_parameters() if p.trainable]
