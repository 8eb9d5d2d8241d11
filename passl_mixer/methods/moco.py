"""MoCo v1 and v2 (arXiv:1911.05722, 2003.04297; facebookresearch/moco ``builder.py``).

The versions differ by head, temperature and views, all in the configuration. One process suffices. The official code
updates the key encoder at the start of an iteration, this one at the end of the iteration before. The sequence is the
same: at the first iteration both encoders are equal.

BatchNorm leaks: a query can recognise its key by the statistics that their batch shares. The remedy is that of the
official CIFAR-10 notebook and needs no second GPU. Queries and keys are normalised in ``bn_splits`` groups, and the
keys are permuted before they are grouped. Networks without BatchNorm (MLP-Mixer and other LayerNorm MLPs) do not need
it. Running statistics are updated once per group. The key encoder keeps its own (see ``ema.py``). With several
processes each normalises its own images, whatever ``train.sync_batch_norm`` says.
"""
from typing import Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from passl_mixer import distributed
from passl_mixer.errors import BadInput
from passl_mixer.heads import require_projector
from passl_mixer.methods.cross_entropy import mean_cross_entropy
from passl_mixer.methods.ema import ema_update, frozen_copy
from passl_mixer.metrics import feature_std

AUTO_SPLITS = 8  # the notebook's, and of 8 GPUs


def info_nce(query, key, queue, temperature: float):
    """InfoNCE: cross entropy of each query's key among the keys of the queue.

    Args:
        query: queries, [B, D]; normalised here.
        key: keys, [B, D]; row i belongs to query i; normalised here.
        queue: keys of other images, [K, D]; rows of length 1, used as they are.
        temperature: divides the similarities; > 0, dimensionless.
    Returns:
        Scalar mean loss in nats over B queries, float32. Equals log(K + 1) when all similarities coincide.
    Raises:
        BadInput: the shapes do not fit each other, or ``temperature`` is not positive.
    Source: He et al. 2020, arXiv:1911.05722, equation 1.
    """
    shapes = [list(t.shape) for t in (query, key, queue)]
    if [len(s) for s in shapes] != [2, 2, 2] or shapes[0] != shapes[1] or shapes[0][1] != shapes[2][1]:
        raise BadInput(f"info_nce needs query [B, D], key [B, D] and queue [K, D], got {shapes}")
    if not temperature > 0:
        raise BadInput(f"temperature must be positive, got {temperature}")
    with paddle.amp.auto_cast(enable=False):  # similarities / 0.07 lose too much in half precision
        query = F.normalize(query.astype("float32"), axis=1)
        key = F.normalize(key.astype("float32"), axis=1)
        positive = (query * key).sum(axis=1, keepdim=True)  # [B, 1]
        negatives = paddle.matmul(query, queue.astype("float32"), transpose_y=True)  # [B, K]
        logits = paddle.concat([positive, negatives], axis=1) / temperature
        first = paddle.zeros([logits.shape[0]], dtype="int64")
        return mean_cross_entropy(logits, first, query, key)


def has_batch_norm(layer) -> bool:
    """Whether any part of a layer normalises over the batch."""
    return any(isinstance(part, nn.layer.norm._BatchNormBase) for part in layer.sublayers(include_self=True))


class MoCo(nn.Layer):
    """Momentum contrast: a query against its key, which a momentum encoder makes of the other view, and a queue.

    Args:
        backbone: encoder of queries, [B, 3, H, W] -> [B, num_features].
        head: projector, [B, num_features] -> [B, D].
        queue_size: K, keys kept; a multiple of the images per optimiser step.
        momentum: of the key encoder's moving average, in [0, 1).
        temperature: of the loss; v1 0.07, v2 0.2.
        bn_splits: groups of a batch that BatchNorm normalises apart; null: 1 without BatchNorm, else the largest
            number up to 8 that leaves equal groups of two or more images.
    Raises:
        BadInput: a classifier as head, or an option out of range.
    """

    num_views = 2

    def __init__(self, backbone, head, *, queue_size: int = 65536, momentum: float = 0.999,
                 temperature: float = 0.2, bn_splits: Optional[int] = None):
        super().__init__()
        require_projector(head, "moco")
        if not temperature > 0 or not 0 <= momentum < 1:
            raise BadInput(f"moco needs temperature > 0 and momentum in [0, 1), got {temperature} and "
                           f"{momentum}")
        if queue_size < 1 or (bn_splits is not None and bn_splits < 1):
            raise BadInput(f"moco needs queue_size and bn_splits >= 1, got {queue_size} and {bn_splits}")
        self.backbone, self.head = backbone, head
        self.key_backbone, self.key_head = frozen_copy(backbone), frozen_copy(head)
        self.queue_size, self.bn_splits = queue_size, bn_splits
        self.momentum, self.temperature = momentum, temperature
        self._batch_norm = has_batch_norm(backbone) or has_batch_norm(head)
        start = np.random.default_rng(0).standard_normal([queue_size, head.out_features]).astype("float32")
        start /= np.linalg.norm(start, axis=1, keepdims=True)
        self.register_buffer("queue", paddle.to_tensor(start))
        self.register_buffer("queue_pointer", paddle.zeros([1], dtype="int64"))
        self.pending: list = []  # keys of the micro-batches since the last after_step

    @property
    def encoder(self):
        return self.backbone

    def _splits(self, batch: int) -> int:
        if self.bn_splits is None:
            fitting = [s for s in range(1, AUTO_SPLITS + 1) if batch % s == 0 and batch // s >= 2]
            return max(fitting, default=1) if self._batch_norm else 1
        if self.bn_splits > 1 and (batch % self.bn_splits or batch // self.bn_splits < 2):
            raise BadInput(f"moco's bn_splits {self.bn_splits} does not cut a batch of {batch} into equal "
                           "groups of two or more; change model.method.bn_splits or data.batch_size")
        return self.bn_splits

    @paddle.no_grad()
    def _keys(self, images, splits: int):
        """Unit-length keys [B, D], float32."""
        if splits > 1:
            order = paddle.randperm(images.shape[0])
            images = images.index_select(order)
        keys = paddle.concat([self.key_head(self.key_backbone(part)) for part in images.chunk(splits)])
        if splits > 1:
            keys = keys.index_select(paddle.argsort(order))
        return F.normalize(keys.astype("float32"), axis=1)

    def forward(self, views, labels=None):
        """``{"loss", "feature_std"}`` of two views [B, 3, H, W] (query, key); labels are not used."""
        splits = self._splits(views[0].shape[0]) if self.training else 1
        parts = [self.backbone(part) for part in views[0].chunk(splits)]
        queries = paddle.concat([self.head(part) for part in parts])
        keys = self._keys(views[1], splits)
        if self.training:
            self.pending.append(keys)
        loss = info_nce(queries, keys, self.queue, self.temperature)
        return {"loss": loss, "feature_std": feature_std(paddle.concat(parts))}

    @paddle.no_grad()
    def after_step(self, step: int, total_steps: int) -> None:
        """Update the key encoder, then replace the oldest keys of the queue by those since the last call.

        The arguments are those of every method and not used. Call it once per optimiser step, also after a step
        skipped for overflow: its keys would wait for the next.
        """
        ema_update(self.key_backbone, self.backbone, self.momentum)
        ema_update(self.key_head, self.head, self.momentum)
        if not self.pending:
            return
        keys = distributed.all_gather_no_grad(paddle.concat(self.pending))
        self.pending.clear()
        self.check_batch(keys.shape[0])
        # Index arithmetic stays on the device: nothing waits for the pointer to be read.
        rows = (self.queue_pointer + paddle.arange(keys.shape[0])) % self.queue_size
        self.queue.scatter_(rows, keys)
        paddle.assign((self.queue_pointer + keys.shape[0]) % self.queue_size, self.queue_pointer)

    def check_batch(self, batch_size: int, step_size: Optional[int] = None) -> None:
        """Refuse a step whose keys do not fill the queue evenly.

        Args:
            batch_size: images of a forward pass.
            step_size: images of an optimiser step; None: ``batch_size``.
        Raises:
            BadInput: fewer than 2 images, or ``queue_size`` is not a multiple of the step's images.
        """
        if batch_size < 2:
            raise BadInput(f"moco contrasts images: a batch of {batch_size} is too small; "
                           "set data.batch_size to 2 or more")
        keys = step_size or batch_size
        if self.queue_size % keys:
            below = self.queue_size // keys * keys or keys
            raise BadInput(f"moco's queue_size {self.queue_size} is not a multiple of the batch of "
                           f"{keys} images; set model.method.queue_size to {below} or change "
                           "data.batch_size")

    def trainable_parameters(self) -> list:
        """``[(structured name, parameter)]`` for the optimiser: the query encoder's."""
        return [(name, p) for name, p in self.named_parameters() if p.trainable]
