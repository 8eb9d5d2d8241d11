"""The projector and predictor of self-supervised methods: Linear - norm - ReLU, repeated, and a last Linear.

The published heads, as configuration entries (``name: mlp`` beside each):

| head | options |
|---|---|
| SimCLR v1 (paper) | layers: 2, out: 128, norm: bn, last_norm: true, init_std: 0.01 |
| SimCLR v2 (repository default) | layers: 3, out: 128, norm: bn, last_norm: true, init_std: 0.01 |
| MoCo v1 | layers: 1, out: 128, norm: null |
| MoCo v2 | layers: 2, out: 128, norm: null |
| BYOL, both heads | layers: 2, hidden: 4096, out: 256, norm: bn, hidden_bias: true, last_bias: false |
| CLIP, image projection | layers: 1, out: 512, norm: null, last_bias: false, init_std: in_features ** -0.5 |
| SimSiam, projector | layers: 3, hidden: 2048, out: 2048, norm: bn, last_norm: true, last_affine: false |
| SimSiam, predictor | layers: 2, hidden: 512, out: 2048, norm: bn |
| MoCo v3 | hidden: 4096, out: 256, norm: bn, last_norm: true, last_affine: false, and |
| ... ViT | layers: 3 (projector), 2 (predictor) |
| ... ResNet | layers: 2 (both); predictor last_norm: false, last_bias: false in place of the last norm |

MoCo, SimSiam and MoCo v3 start from PyTorch's default, which is ours; BYOL from Haiku's truncated normal of
deviation 1 / sqrt(inputs) and zero biases, which no option gives. SimSiam's projector for CIFAR-10 has layers: 2
(appendix D).

Sources: SimCLR arXiv:2002.05709 and google-research/simclr ``model_util.py``; MoCo arXiv:1911.05722,
2003.04297 and facebookresearch/moco ``builder.py``; BYOL arXiv:2006.07733 and deepmind-research
``byol/utils/networks.py``; SimSiam arXiv:2011.10566 and facebookresearch/simsiam ``builder.py``; MoCo v3
arXiv:2104.02057 and facebookresearch/moco-v3 ``builder.py``.
"""
from typing import Optional

from paddle import nn

from passl_mixer.errors import BadInput
from passl_mixer.layers.batch_norm import BatchNorm1D


class MLPHead(nn.Layer):
    """Multi-layer perceptron on pooled features, [B, in_features] -> [B, out].

    Args:
        in_features: width of the features.
        layers: number of linear maps, >= 1.
        hidden: width between them; null takes ``in_features``, as SimCLR and MoCo do.
        out: width of the output.
        norm: normalisation before each ReLU: "bn" (BatchNorm), "ln" (LayerNorm) or null (none).
        last_norm: normalise the output too, with a scale but no shift (SimCLR).
        last_affine: whether that norm has its scale; false: neither scale nor shift (SimSiam, MoCo v3).
        hidden_bias: biases of all linear maps but the last; null: only where no norm follows, as its shift
            does the same.
        last_bias: bias of the last linear map; null: only without ``last_norm``.
        init_std: weights from N(0, init_std^2) and zero biases (SimCLR: 0.01); null: weights and biases
            uniform in +-1/sqrt(fan_in), the PyTorch default that MoCo uses.
    Raises:
        BadInput: impossible sizes, an unknown norm, ``last_norm`` without ``norm``, or ``last_affine: false``
            without ``last_norm``.
    """

    def __init__(self, in_features: int, *, layers: int = 2, hidden: Optional[int] = None, out: int = 128,
                 norm: Optional[str] = "bn", last_norm: bool = False, last_affine: bool = True,
                 hidden_bias: Optional[bool] = None, last_bias: Optional[bool] = None,
                 init_std: Optional[float] = None):
        super().__init__()
        hidden = in_features if hidden is None else hidden
        if min(in_features, layers, hidden, out) < 1:
            raise BadInput(f"an mlp head needs in_features, layers, hidden and out >= 1, got {in_features}, "
                           f"{layers}, {hidden}, {out}")
        if norm not in ("bn", "ln", None):
            raise BadInput(f"an mlp head's norm is 'bn', 'ln' or null, got {norm!r}")
        if last_norm and norm is None:
            raise BadInput("an mlp head with last_norm: true needs norm: bn or norm: ln")
        if not last_affine and not last_norm:
            raise BadInput("an mlp head with last_affine: false needs last_norm: true")
        if init_std is not None and init_std <= 0:
            raise BadInput(f"an mlp head's init_std is positive or null, got {init_std}")
        self.in_features, self.hidden, self.out_features, self.norm = in_features, hidden, out, norm
        # Before a norm a bias does nothing that its shift does not do.
        hidden_bias = norm is None if hidden_bias is None else hidden_bias
        last_bias = not last_norm if last_bias is None else last_bias
        steps, width = [], in_features
        for _ in range(layers - 1):
            steps.append(_linear(width, hidden, hidden_bias, init_std))
            steps += [_norm(norm, hidden)] if norm else []
            steps.append(nn.ReLU())
            width = hidden
        steps.append(_linear(width, out, last_bias, init_std))
        steps += [_norm(norm, out, scale=last_affine, shift=False)] if last_norm else []
        self.bias_options = {"hidden_bias": hidden_bias, "last_bias": last_bias}
        self.mlp = nn.Sequential(*steps)

    def forward(self, features):
        """Embeddings [B, out] of features [B, in_features]; not L2-normalised."""
        return self.mlp(features)


def _linear(width_in: int, width_out: int, bias: bool, std: Optional[float]) -> nn.Linear:
    if std is None:
        bound = width_in ** -0.5
        weight_attr, bias_attr = nn.initializer.Uniform(-bound, bound), nn.initializer.Uniform(-bound, bound)
    else:
        weight_attr, bias_attr = nn.initializer.Normal(0.0, std), nn.initializer.Constant(0.0)
    return nn.Linear(width_in, width_out, weight_attr=weight_attr, bias_attr=bias_attr if bias else False)


def _norm(kind: str, width: int, scale: bool = True, shift: bool = True) -> nn.Layer:
    cls = BatchNorm1D if kind == "bn" else nn.LayerNorm
    return cls(width, weight_attr=None if scale else False, bias_attr=None if shift else False)
