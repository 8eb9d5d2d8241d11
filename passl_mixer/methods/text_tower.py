"""CLIP's text encoder (arXiv:2103.00020, section 2.4; openai/CLIP ``model.py``).

A causal transformer of pre-norm blocks (Radford et al. 2019, GPT-2). The embedding of a caption is its feature at the
end mark after the last norm, projected without bias. Initial biases are the official code's: zero in attention,
PyTorch's default in the MLPs.

Shapes: B captions, N tokens, C = width, h heads.
"""
import paddle
from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput
from passl_mixer.layers.attention import SelfAttention, check_block
from passl_mixer.layers.basic import LayerNorm, Linear
from passl_mixer.layers.checks import check_act, check_positive
from passl_mixer.layers.initialisers import attr, torch_uniform


def _normal(std: float):
    return nn.initializer.Normal(0.0, std)


class TextBlock(nn.Layer):
    """``x += attention(LN(x)); x += mlp(LN(x))``, with a mask over the attention.

    Args:
        width: channels C.
        num_layers: blocks of the transformer, which scale the initial weights.
        num_heads: attention heads; divides ``width``.
        act: activation of the MLP.
    """

    def __init__(self, width: int, num_layers: int, num_heads: int, act: str):
        super().__init__()
        inner = _normal(width ** -0.5 * (2 * num_layers) ** -0.5)      # maps that write into the residual stream
        self.act = check_act(act)
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)
        self.attention = SelfAttention(width, num_heads)
        self.fc1 = Linear(width, 4 * width, init=_normal((2 * width) ** -0.5), bias_init=torch_uniform(width))
        self.fc2 = Linear(4 * width, width, init=inner, bias_init=torch_uniform(4 * width))
        _normal(width ** -0.5)(self.attention.qkv.weight)
        inner(self.attention.proj.weight)

    def forward(self, x_bnc, mask_nn):
        """[B, N, C] to the same; ``mask_nn`` [N, N] is added to the attention scores."""
        x_bnc = x_bnc + self.attention(self.norm1(x_bnc), mask_nn)
        return x_bnc + self.fc2(ops.activate(self.fc1(self.norm2(x_bnc)), self.act))


class TextTransformer(nn.Layer):
    """Transformer from the token ids of captions to embeddings.

    Args:
        vocab_size: number of tokens; the last of them is the end mark.
        context_length: most tokens of a caption, both marks included.
        width: channels C of a token; a multiple of ``num_heads``. CLIP ViT-B/32: 512.
        num_layers: blocks. CLIP: 12.
        num_heads: attention heads. CLIP: width / 64.
        out_features: width of the embedding.
        act: "quick_gelu" as OpenAI's weights, or "gelu", "gelu_tanh", "relu".
    Raises:
        BadInput: sizes that do not fit each other, or an unknown activation.
    """

    def __init__(self, *, vocab_size: int, out_features: int, context_length: int = 77, width: int = 512,
                 num_layers: int = 12, num_heads: int = 8, act: str = "quick_gelu"):
        super().__init__()
        check_positive(vocab_size=vocab_size, context_length=context_length, width=width, num_layers=num_layers,
                       num_heads=num_heads, out_features=out_features)
        check_block(width, num_heads, 4)
        self.vocab_size, self.context_length, self.out_features = vocab_size, context_length, out_features
        self.token = nn.Embedding(vocab_size, width, weight_attr=attr(_normal(0.02)))
        # Not called "position": the paper decays it, unlike ViT's (see ``optim.EXCLUDE``).
        self.places = self.create_parameter([context_length, width], attr=attr(_normal(0.01)))
        self.blocks = nn.LayerList([TextBlock(width, num_layers, num_heads, act) for _ in range(num_layers)])
        self.norm = LayerNorm(width)
        self.projection = Linear(width, out_features, bias=False, init=_normal(width ** -0.5))

    def forward(self, ids_bn):
        """Embeddings of captions, not normalised.

        Args:
            ids_bn: int [B, N], N <= context_length; every row has the end mark, ``vocab_size - 1``. Ids after it
                do not matter.
        Returns:
            [B, out_features].
        Raises:
            BadInput: another shape, too many tokens, or (checked on the CPU only) a row without end mark.
        """
        is_end = self._check(ids_bn)
        x_bnc = self.token(ids_bn) + self.places[:ids_bn.shape[1]]
        tokens = paddle.arange(ids_bn.shape[1])
        hidden = paddle.full([1], float("-inf"), x_bnc.dtype)
        mask_nn = paddle.where(tokens.unsqueeze(0) > tokens.unsqueeze(1), hidden, paddle.zeros_like(hidden))
        for block in self.blocks:
            x_bnc = block(x_bnc, mask_nn)
        at = paddle.stack([paddle.arange(ids_bn.shape[0]), is_end.astype("int32").argmax(axis=1)], axis=1)
        return self.projection(self.norm(paddle.gather_nd(x_bnc, at)))  # the norm is per token

    def _check(self, ids_bn):
        """Mask of the end marks, [B, N], after a check of the ids."""
        shape = list(ids_bn.shape)
        if len(shape) != 2 or shape[1] > self.context_length:
            raise BadInput(f"captions' tokens have shape {shape}, expected [B, at most {self.context_length}]; make "
                           "model.method.text.context_length that of the dataset")
        is_end = ids_bn == self.vocab_size - 1
        if ops.readable_at_once(ids_bn) and not bool(is_end.any(axis=1).all()):  # elsewhere the host would wait
            raise BadInput(f"a caption has no end mark {self.vocab_size - 1}; make model.method.text.vocab_size that "
                           "of the dataset's merges")
        return is_end
