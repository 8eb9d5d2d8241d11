"""Supervised classification with label smoothing and mixup; with a frozen backbone, the linear probe.

Mixup: arXiv:1710.09412. Label smoothing: arXiv:1512.00567, section 7.
"""
from typing import Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from passl_mixer.errors import BadInput
from passl_mixer.metrics import top_k_accuracy

NUM_MIXUP_DRAWS = 4096


def smooth_one_hot(labels_b, num_classes: int, smoothing: float):
    """Smoothed targets: ``1 - smoothing`` on the label plus ``smoothing / num_classes`` on every class.

    Args:
        labels_b: class indices, [B], int64.
        num_classes: C.
        smoothing: in [0, 1).
    Returns:
        [B, C], float32; rows sum to 1.
    """
    return F.one_hot(labels_b, num_classes) * (1.0 - smoothing) + smoothing / num_classes


def soft_cross_entropy(scores_bc, targets_bc):
    """Cross entropy between class scores and target distributions.

    Args:
        scores_bc: unnormalised class scores, [B, C].
        targets_bc: target distributions, [B, C].
    Returns:
        Scalar mean loss in nats over B rows, float32.
    Raises:
        BadInput: the shapes differ or are not [B, C].
    """
    if len(scores_bc.shape) != 2 or list(scores_bc.shape) != list(targets_bc.shape):
        raise BadInput(f"soft_cross_entropy needs scores and targets of one shape [B, C], got {list(scores_bc.shape)} "
                       f"and {list(targets_bc.shape)}")
    with paddle.amp.auto_cast(enable=False):
        return -(targets_bc * F.log_softmax(scores_bc.astype("float32"))).sum(axis=1).mean()


def mix(images, targets, labels, weight, order):
    """Mixup: every image and target becomes a weighted mean of two of the batch.

    Args:
        images: [B, 3, H, W].
        targets: target distributions, [B, C].
        labels: class indices, [B].
        weight: of the image itself, in [0, 1]; one for the batch, [1].
        order: index of each image's partner, a permutation of the batch; [B], int64.
    Returns:
        ``(images, targets, labels)`` in the same shapes; a label is that of the part with the larger weight.
    Source: Zhang et al. 2018, arXiv:1710.09412.
    """
    labels = paddle.where(weight >= 0.5, labels, labels.index_select(order))
    images, targets = (weight * x + (1.0 - weight) * x.index_select(order) for x in (images, targets))
    return images, targets, labels


class Supervised(nn.Layer):
    """Supervised classification.

    Args:
        backbone: encoder, [B, 3, H, W] -> [B, num_features].
        head: classifier, [B, num_features] -> [B, C].
        label_smoothing: in [0, 1); training only.
        mixup_alpha: of Beta(alpha, alpha); 0 turns mixup off. One weight per batch, drawn on the device from
            a fixed table of 4096 draws, so that nothing is read back. Training only.
        freeze_backbone: linear probe: the backbone stays in evaluation mode and is not trained.
    Raises:
        BadInput: an option out of range.
    """

    num_views = 1

    def __init__(self, backbone, head, *, label_smoothing: float = 0.0, mixup_alpha: float = 0.0,
                 freeze_backbone: bool = False):
        super().__init__()
        if not 0.0 <= label_smoothing < 1.0:
            raise BadInput(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        if mixup_alpha < 0.0:
            raise BadInput(f"mixup_alpha must be >= 0 (0 is off), got {mixup_alpha}")
        self.backbone, self.head = backbone, head
        self.label_smoothing, self.mixup_alpha = label_smoothing, mixup_alpha
        self.freeze_backbone = freeze_backbone
        if mixup_alpha > 0.0:
            table = np.random.default_rng(0).beta(mixup_alpha, mixup_alpha, NUM_MIXUP_DRAWS)
            self.register_buffer("mixup_table", paddle.to_tensor(table.astype("float32")), persistable=False)
        if freeze_backbone:
            for parameter in backbone.parameters():
                parameter.trainable = False
            backbone.eval()

    @property
    def encoder(self):
        return self.backbone

    def train(self):
        """Set training mode; a frozen backbone stays in evaluation mode."""
        super().train()
        if self.freeze_backbone:
            self.backbone.eval()

    def forward(self, views, labels):
        """``{"loss", "accuracy"}`` of one view [B, 3, H, W] and labels [B].

        With mixup, accuracy counts the label of the part with the larger weight.

        Raises:
            BadInput: no labels.
        """
        if labels is None:
            raise BadInput("method 'supervised' needs labels; this dataset has none")
        if not (self.training and self.mixup_alpha > 0.0):
            return self.classify(views[0], labels)
        order = paddle.randperm(labels.shape[0])
        weight = self.mixup_table[paddle.randint(0, NUM_MIXUP_DRAWS, [1])]  # [1]
        return self.classify(views[0], labels, weight, order)

    def classify(self, images, labels, weight=None, order=None):
        """Loss and accuracy, after mixup with the given weight and order.

        Args:
            images: [B, 3, H, W].
            labels: class indices, [B].
            weight: as in ``mix``, [1].
            order: as in ``mix``, [B]; None: no mixup.
        Returns:
            ``{"loss", "accuracy"}``.
        """
        targets = smooth_one_hot(labels, self.head.out_features, self.label_smoothing if self.training else 0.0)
        if order is not None:
            images, targets, labels = mix(images, targets, labels, weight, order)
        if self.freeze_backbone:
            with paddle.no_grad():
                features = self.backbone(images)
        else:
            features = self.backbone(images)
        scores = self.head(features)
        return {"loss": soft_cross_entropy(scores, targets), "accuracy": top_k_accuracy(scores, labels)}

    def after_step(self, step: int, total_steps: int) -> None:
        """Nothing is kept between steps."""

    def check_batch(self, batch_size: int, step_size: Optional[int] = None) -> None:
        """Refuse an empty batch; ``step_size`` is not looked at.

        Raises:
            BadInput: no image.
        """
        if batch_size < 1:
            raise BadInput(f"a batch holds at least one image, got data.batch_size {batch_size}")

    def trainable_parameters(self) -> list:
        """``[(structured name, parameter)]`` for the optimiser."""
        return [(name, p) for name, p in self.named_parameters() if p.trainable]
