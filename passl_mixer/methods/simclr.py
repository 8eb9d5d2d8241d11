"""SimCLR (arXiv:2002.05709; google-research/simclr ``objective.py``).

The loss is the mean over 2B rows, as in the paper's equation and in most ports. The official code sums the means of
two halves, which is twice this value. With the official learning rate this has three effects: under LARS biases and
norms, which it does not adapt, take half the step; in the gradient of a matrix the decay weighs twice as much; under
SGD every step is half. Both views pass the network in one batch of 2B, as in the official code, so that BatchNorm sees
both.
"""
from typing import Optional

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl_mixer import distributed
from passl_mixer.errors import BadInput
from passl_mixer.heads import require_projector
from passl_mixer.methods.cross_entropy import mean_cross_entropy
from passl_mixer.metrics import feature_std


def nt_xent(z1, z2, temperature: float):
    """Normalised temperature-scaled cross entropy over the 2B views of a batch.

    Args:
        z1: embeddings of the first views, [B, D]; need not be normalised.
        z2: embeddings of the second views, [B, D]; row i is the same image as row i of ``z1``.
        temperature: divides the similarities; > 0, dimensionless.
    Returns:
        Scalar mean loss in nats over 2B rows, float32. Equals log(2B - 1) when all embeddings coincide.
    Raises:
        BadInput: the shapes differ or are not [B, D], or ``temperature`` is not positive.
    Source: Chen et al. 2020, arXiv:2002.05709, equation 1.
    """
    if len(z1.shape) != 2 or list(z1.shape) != list(z2.shape):
        raise BadInput(f"nt_xent needs two [B, D] tensors of one shape, got {list(z1.shape)} and "
                       f"{list(z2.shape)}")
    if not temperature > 0:
        raise BadInput(f"temperature must be positive, got {temperature}")
    batch = z1.shape[0]
    with paddle.amp.auto_cast(enable=False):  # similarities / 0.1 lose too much in half precision
        z = F.normalize(paddle.concat([z1, z2]).astype("float32"), axis=1)
        logits = paddle.matmul(z, z, transpose_y=True) / temperature  # [2B, 2B]
        logits = logits - 1e9 * paddle.eye(2 * batch)  # a view is not its own negative
        positives = paddle.arange(2 * batch).roll(batch)
        return mean_cross_entropy(logits, positives, z)


class SimCLR(nn.Layer):
    """Contrastive learning of two views of an image against the views of all other images of the batch.

    Args:
        backbone: encoder, [B, 3, H, W] -> [B, num_features].
        head: projector, [B, num_features] -> [B, D].
        temperature: of the loss; the paper's ImageNet runs use 0.1, its CIFAR-10 runs 0.5.
    Raises:
        BadInput: a classifier as head, or a temperature that is not positive.
    """

    num_views = 2

    def __init__(self, backbone, head, *, temperature: float = 0.1):
        super().__init__()
        require_projector(head, "simclr")
        if not temperature > 0:
            raise BadInput(f"simclr's temperature must be positive, got {temperature}")
        self.backbone, self.head = backbone, head
        self.temperature = temperature

    @property
    def encoder(self):
        return self.backbone

    def forward(self, views, labels=None):
        """``{"loss", "feature_std"}`` of two views [B, 3, H, W]; labels are not used."""
        features = self.backbone(paddle.concat(views))  # [2B, D]
        z1, z2 = self.head(features).chunk(2)
        loss = nt_xent(distributed.all_gather(z1), distributed.all_gather(z2), self.temperature)
        return {"loss": loss, "feature_std": feature_std(features[:views[0].shape[0]])}

    def after_step(self, step: int, total_steps: int) -> None:
        """Nothing is kept between steps."""

    def check_batch(self, batch_size: int, step_size: Optional[int] = None) -> None:
        """Refuse a batch without negatives; ``step_size`` is not looked at.

        Raises:
            BadInput: a forward pass on fewer than 2 images.
        """
        if batch_size < 2:
            raise BadInput(f"simclr contrasts the images of a batch: a batch of {batch_size} has no "
                           "negatives; set data.batch_size (per device and accumulation step) to 2 or more")

    def trainable_parameters(self) -> list:
        """``[(structured name, parameter)]`` for the optimiser."""
        return [(name, p) for name, p in self.named_parameters() if p.trainable]
