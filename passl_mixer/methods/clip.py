"""CLIP (Radford et al. 2021, arXiv:2103.00020, figure 3; openai/CLIP ``model.py``).

Images and captions are embedded into one space. Each image is matched with its caption among those of the batch, and
each caption with its image. With several processes the batch is that of all of them.

The image tower is any backbone; the paper's projection is the head {name: mlp, layers: 1, out: 512, norm: null,
last_bias: false, init_std: num_features ** -0.5}, its ViT-B/32 the backbone ``vit_b_32_clip``. Deviation: gradients
of all embeddings are computed on every process (the official code: of its own rows), which is the same sum.
"""
import math
from typing import Mapping, Optional

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl_mixer import distributed
from passl_mixer.errors import BadInput
from passl_mixer.heads import require_projector
from passl_mixer.methods.text_tower import TextTransformer
from passl_mixer.metrics import feature_std, top_k_accuracy
from passl_mixer.registry import Registry

TEXT_TOWERS = Registry("text tower")
TEXT_TOWERS.add("transformer", TextTransformer)


def similarities(image, text, scale):
    """Scaled cosines of all images with all captions.

    Args:
        image, text, scale: as in ``clip_loss``.
    Returns:
        [B, B], float32; row i is image i.
    Raises:
        BadInput: the shapes differ or are not [B, D], or ``scale`` is a number and not positive.
    """
    if len(image.shape) != 2 or list(image.shape) != list(text.shape):
        raise BadInput(f"clip_loss needs two [B, D] tensors of one shape, got {list(image.shape)} and "
                       f"{list(text.shape)}")
    if isinstance(scale, (int, float)) and not scale > 0:
        raise BadInput(f"clip_loss needs a positive scale, got {scale}")
    with paddle.amp.auto_cast(enable=False):  # cosines times 100 lose too much in half precision
        image, text = (F.normalize(e.astype("float32"), axis=1) for e in (image, text))
        return paddle.matmul(image, text, transpose_y=True) * scale


def symmetric_cross_entropy(logits_bb):
    """Mean of the cross entropies over rows and columns of logits [B, B], with the diagonal as target; scalar, nats."""
    with paddle.amp.auto_cast(enable=False):  # Paddle's cross_entropy counts no more than 64 nats a row on the CPU
        rows, columns = (paddle.logsumexp(logits_bb, axis=axis).mean() for axis in (1, 0))
        return (rows + columns) / 2 - paddle.diagonal(logits_bb).mean()


def clip_loss(image, text, scale):
    """Cross entropy of each image's caption among all captions, and of each caption's image among all images.

    Args:
        image: embeddings of images, [B, D]; need not be normalised.
        text: embeddings of captions, [B, D]; row i belongs to row i of ``image``.
        scale: multiplies the cosines; > 0, a number or a tensor [1], which may have a gradient. A tensor's value is not
            checked, so that the host does not wait for the device.
    Returns:
        Scalar float32: half the sum of the two mean cross entropies, in nats. Equals log(B) when all embeddings
        coincide.
    Raises:
        BadInput: the shapes differ or are not [B, D], or ``scale`` is a number and not positive.
    Source: Radford et al. 2021, arXiv:2103.00020, figure 3.
    """
    return symmetric_cross_entropy(similarities(image, text, scale))


class CLIP(nn.Layer):
    """Contrastive language-image pretraining: images and captions embedded into one space.

    Args:
        backbone: image encoder, [B, 3, H, W] -> [B, num_features].
        head: image projection, [B, num_features] -> [B, D].
        text: options of ``TextTransformer``: vocab_size, context_length, width, num_layers, num_heads, act;
            training fills the first two from the dataset.
        temperature_init: divides the cosines at the start; > 0, dimensionless. Paper: 0.07.
        max_scale: upper limit of the learned scale, by which they are multiplied; >= 1 / temperature_init. Paper: 100.
    Raises:
        BadInput: a classifier as head, unknown options of ``text``, or a temperature out of range.
    """

    num_views = 1

    def __init__(self, backbone, head, *, text: Mapping, temperature_init: float = 0.07, max_scale: float = 100.0):
        super().__init__()
        require_projector(head, "clip")
        if not temperature_init > 0 or not 1 / temperature_init <= max_scale < math.inf:
            raise BadInput(f"clip needs temperature_init > 0 and max_scale of at least 1 / temperature_init, got "
                           f"{temperature_init} and {max_scale}")
        self.backbone, self.head = backbone, head
        self.text = TEXT_TOWERS.build({"name": "transformer", **text}, out_features=head.out_features)
        # One dimension, hence not decayed (see ``optim.py``).
        self.logit_scale = self.create_parameter(
            [1], default_initializer=nn.initializer.Constant(-math.log(temperature_init)))
        self.max_scale = max_scale

    @property
    def encoder(self):
        return self.backbone

    def forward(self, views, token_ids):
        """Loss and metrics of a batch of images and captions.

        Args:
            views: one view, [[B, 3, H, W]].
            token_ids: of the captions, int [B, N].
        Returns:
            ``{"loss", "feature_std", "scale", "accuracy"}``; ``accuracy`` is the fraction of images whose own caption
            is the nearest of the batch.
        Raises:
            BadInput: no token ids, or others than [B, N].
        """
        if token_ids is None or len(token_ids.shape) != 2:
            got = "none" if token_ids is None else f"a tensor of shape {list(token_ids.shape)}"
            raise BadInput(f"method 'clip' needs captions' token ids [B, N], got {got}; choose an image-text dataset")
        features = self.backbone(views[0])
        scale = self.logit_scale.exp()
        logits = similarities(distributed.all_gather(self.head(features)),
                              distributed.all_gather(self.text(token_ids)), scale)
        return {"loss": symmetric_cross_entropy(logits), "feature_std": feature_std(features),
                "scale": scale.detach().squeeze(),
                "accuracy": top_k_accuracy(logits, paddle.arange(logits.shape[0]))}

    def encode_image(self, images):
        """Normalised embeddings [B, D], float32, of images [B, 3, H, W]."""
        return F.normalize(self.head(self.backbone(images)).astype("float32"), axis=1)

    def encode_text(self, ids):
        """Normalised embeddings [B, D], float32, of token ids int [B, N]."""
        return F.normalize(self.text(ids).astype("float32"), axis=1)

    @paddle.no_grad()
    def after_step(self, step: int, total_steps: int) -> None:
        """Keep the scale at ``max_scale`` or below (the paper's section 2.5)."""
        self.logit_scale.clip_(max=math.log(self.max_scale))

    def check_batch(self, batch_size: int, step_size: Optional[int] = None) -> None:
        """Refuse a batch without negatives; ``step_size`` is not looked at.

        Raises:
            BadInput: a forward pass on fewer than 2 pairs.
        """
        if batch_size < 2:
            raise BadInput(f"clip contrasts the pairs of a batch: a batch of {batch_size} has no "
                           "negatives; set data.batch_size (per device and accumulation step) to 2 or more")

    def trainable_parameters(self) -> list:
        """``[(structured name, parameter)]`` for the optimiser."""
        return [(name, p) for name, p in self.named_parameters() if p.trainable]
