"""Key maps of timm's and the official ResMLP to ``passl_mixer.backbones.resmlp``.

The two have the same arrays under other names; timm keeps alpha and beta as [1, 1, C]. Token-mixing weights keep
their [out, in]: ours multiply from the left. Sources: timm/models/mlp_mixer.py; facebookresearch/deit,
resmlp_models.py.
"""
from typing import Dict, List, NamedTuple, Tuple

import numpy

from passl_mixer.weights.keymap import Row, conv, count, head, linear, size


class Names(NamedTuple):
    """A source's names of the parts of a network, and the axes before the channels of alpha and beta."""

    stem: str
    tokens: str
    mlp: str
    scales: Tuple[str, str]
    leading: Tuple[int, ...]


TIMM = Names("stem.proj", "linear_tokens", "mlp_channels", ("ls1", "ls2"), (1, 1))
OFFICIAL = Names("patch_embed.proj", "attn", "mlp", ("gamma_1", "gamma_2"), ())


def _affine(name: str, width: int, leading: Tuple[int, ...]) -> List[Row]:
    return [Row(f"{name}.{part}", f"{name}.{part}", (*leading, width), flat=True) for part in ("alpha", "beta")]


def _rows(arrays: Dict[str, numpy.ndarray], names: Names) -> List[Row]:
    width, in_chans, patch = (size(arrays, f"{names.stem}.weight", axis) for axis in range(3))
    result = conv(names.stem, "stem", in_chans, width, patch, bias=True)
    tokens = size(arrays, f"blocks.0.{names.tokens}.weight", 0)
    hidden = size(arrays, f"blocks.0.{names.mlp}.fc1.weight", 0)
    for i in range(count(arrays, r"blocks\.(\d+)\.")):
        block = f"blocks.{i}"
        result += _affine(f"{block}.norm1", width, names.leading)
        result += [Row(f"{block}.{names.tokens}.weight", f"{block}.token_mixing.weight", (tokens, tokens)),
                   Row(f"{block}.{names.tokens}.bias", f"{block}.token_mixing.bias", (tokens,))]
        result += _affine(f"{block}.norm2", width, names.leading)
        result += linear(f"{block}.{names.mlp}.fc1", f"{block}.mlp.fc1", width, hidden)
        result += linear(f"{block}.{names.mlp}.fc2", f"{block}.mlp.fc2", hidden, width)
        result += [Row(f"{block}.{theirs}", f"{block}.{ours}", (width,))
                   for theirs, ours in zip(names.scales, ("gamma_1", "gamma_2"))]
    return result + _affine("norm", width, names.leading) + head(arrays, width)


def timm_rows(arrays: Dict[str, numpy.ndarray]) -> List[Row]:
    """Rows of a timm ResMLP, its sizes from the shapes of ``arrays``."""
    return _rows(arrays, TIMM)


def official_rows(arrays: Dict[str, numpy.ndarray]) -> List[Row]:
    """Rows of an official ResMLP, its sizes from the shapes of ``arrays``."""
    return _rows(arrays, OFFICIAL)
