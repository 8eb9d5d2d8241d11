"""Multi-head self-attention: what ViT and Swin share (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

Shapes: ... any axes before (images, windows), N tokens, C channels, h heads of d = C / h channels.
"""
import math

from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import Linear


class Attend(nn.Layer):
    """``softmax(q k^T / sqrt(d) + bias) v``: a Layer without weights, whose two products ``surgery/macs.py`` counts."""

    def forward(self, q, k, v, bias=None):
        """Weighted means of the values, [..., h, N, d].

        Args:
            q: queries, [..., h, N, d].
            k: keys, of the same shape.
            v: values, of the same shape.
            bias: added to the scores, broadcast to [..., h, N, N]; None for none.
        """
        scores = ops.matmul(q, k, True)
        return ops.matmul(ops.scaled_softmax(scores, bias, 1.0 / math.sqrt(q.shape[-1])).astype(v.dtype), v)


class SelfAttention(nn.Layer):
    """Queries, keys and values by one linear map with bias, attention per head, a linear map of the heads together.

    Args:
        width: channels C in and out.
        num_heads: number of heads h; divides ``width``.
    """

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(width, 3 * width)
        self.attend = Attend()
        self.proj = Linear(width, width)

    def forward(self, x, bias=None):
        """Attention over the second-last axis of x [..., N, C], same shape; ``bias`` as in ``Attend``."""
        lead, (tokens, width) = x.shape[1:-2], x.shape[-2:]
        # The 3 C channels are q, k, v, each head by head; -1 is the batch, unknown in an exported program.
        split = self.qkv(x).reshape([-1, *lead, tokens, 3, self.num_heads, width // self.num_heads])
        first, n = list(range(len(lead) + 1)), len(lead) + 1
        q, k, v = ops.permute(split, [n + 1, *first, n + 2, n, n + 3]).unbind(axis=0)  # [..., h, N, d] each
        heads = ops.permute(self.attend(q, k, v, bias), [*first, n + 1, n, n + 2])
        return self.proj(heads.reshape([-1, *lead, tokens, width]))


def check_block(width: int, num_heads: int, mlp_ratio: float) -> None:
    """Check that the heads divide the width and that the MLP has a hidden unit.

    Args:
        width: channels of a token.
        num_heads: number of attention heads.
        mlp_ratio: hidden width of the MLP as a multiple of ``width``.
    Raises:
        BadInput: they do not fit.
    """
    if width % num_heads:
        raise BadInput(f"num_heads {num_heads} does not divide the width {width}; change num_heads or embed_dim")
    if width * mlp_ratio < 1:
        raise BadInput(f"mlp_ratio {mlp_ratio} leaves no hidden unit at width {width}; raise one of them")
