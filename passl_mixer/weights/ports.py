"""Key maps of ports to other frameworks: PaddleViT and PASSL (Paddle), Google's MLP-Mixer (flax).

The Paddle ports have the reference's structure, some under other names; PyTorch's [out, in] is [in, out] there.
Google's networks use the tanh approximation of GELU: build ours with ``act: gelu_tanh``.
Sources: BR-IDL/PaddleViT, PaddlePaddle/PASSL v1.1, google-research/big_vision big_vision/models/mlp_mixer.py
(its ``load`` maps the names of older files to today's).
"""
import re
from typing import Callable, Dict, List, Sequence, Tuple

import numpy

from passl_mixer.weights.keymap import Row, count, size

# (beginning of the reference's name, of the port's)
PADDLEVIT_MIXER = (("stem.proj.", "patch_embed.patch_embed."), ("blocks.", "mixer_layers."))
PASSL_MIXER = (("stem.", "backbone.stem."), ("blocks.", "backbone.blocks."), ("norm.", "backbone.norm."),
               ("head.", "head.fc_cls."))
# Ends of BatchNorm's names in PyTorch and in Paddle.
STATISTICS = ((".running_mean", "._mean"), (".running_var", "._variance"))


def _renamed(name: str, beginnings, ends) -> str:
    for old, new in beginnings:
        if name.startswith(old):
            name = new + name[len(old):]
            break
    for old, new in ends:
        if name.endswith(old):
            return name[:-len(old)] + new
    return name


def in_paddle(reference_rows: Callable, beginnings: Sequence[Tuple[str, str]] = ()) -> Callable:
    """The key map of a Paddle port, from that of its PyTorch reference.

    Args:
        reference_rows: key map of the reference, from a state dict to its rows.
        beginnings: pairs of prefixes, in the reference and in the port.
    Returns:
        The key map of the port.
    """
    back = tuple((new, old) for old, new in beginnings), tuple((new, old) for old, new in STATISTICS)

    def port_rows(arrays: Dict[str, numpy.ndarray]) -> List[Row]:
        as_reference = {_renamed(name, *back): value.T if value.ndim == 2 else value for name, value in arrays.items()}
        result = []
        for row in reference_rows(as_reference):
            row = row._replace(theirs=_renamed(row.theirs, beginnings, STATISTICS))
            is_matrix = len(row.shape) == 2
            result.append(row._replace(shape=row.shape[::-1], transpose=not row.transpose) if is_matrix else row)
        return result

    return port_rows


def google_names(arrays: Dict[str, numpy.ndarray]) -> Dict[str, numpy.ndarray]:
    """Rename Google's older MLP-Mixer names (``Mixer/encoderblock_0/...``) to today's; others stay as they are."""
    if not any(name.startswith("Mixer/") for name in arrays):
        return arrays
    norms: Dict[str, set] = {}
    for name in arrays:
        match = re.match(r"(Mixer/encoderblock_\d+/)LayerNorm_(\d+)/", name)
        if match:
            norms.setdefault(match.group(1), set()).add(int(match.group(2)))

    def renamed(name):
        match = re.match(r"(Mixer/encoderblock_\d+/)LayerNorm_(\d+)(/.*)", name)
        if match:  # numbered among all layers of a block there, among its LayerNorms here
            place = sorted(norms[match.group(1)]).index(int(match.group(2)))
            name = f"{match.group(1)}LayerNorm_{place}{match.group(3)}"
        name = re.sub(r"^Mixer/encoder_norm/", "pre_head_layer_norm/", name)
        name = re.sub(r"^embedding/", "stem/", name)
        name = re.sub(r"^Mixer/encoderblock_(\d+)/", r"MixerBlock_\1/", name)
        return re.sub(r"_mixing_phase_0/(kernel|bias)([12])$",
                      lambda m: f"_mixing/Dense_{int(m.group(2)) - 1}/{m.group(1)}", name)

    # The older dense layers have axes of length 1 around theirs.
    return {renamed(name): value.squeeze() if "_mixing_phase_0/" in name else value for name, value in arrays.items()}


def _dense(theirs: str, ours: str, inputs: int, outputs: int, transpose: bool = False) -> List[Row]:
    return [Row(f"{theirs}/kernel", f"{ours}.weight", (inputs, outputs), transpose=transpose),
            Row(f"{theirs}/bias", f"{ours}.bias", (outputs,))]


def _layer_norm(theirs: str, ours: str, width: int) -> List[Row]:
    return [Row(f"{theirs}/scale", f"{ours}.weight", (width,)), Row(f"{theirs}/bias", f"{ours}.bias", (width,))]


def google_rows(arrays: Dict[str, numpy.ndarray]) -> List[Row]:
    """Rows of one of Google's MLP-Mixers, in today's names,, its sizes from the shapes of ``arrays``."""
    patch, in_chans, width = (size(arrays, "stem/kernel", axis) for axis in (0, 2, 3))
    tokens, hidden = (size(arrays, "MixerBlock_0/token_mixing/Dense_0/kernel", axis) for axis in (0, 1))
    channel_hidden = size(arrays, "MixerBlock_0/channel_mixing/Dense_0/kernel", 1)
    num_classes = size(arrays, "head/kernel", 1) if "head/kernel" in arrays else 0
    result = [Row("stem/kernel", "stem.weight", (patch, patch, in_chans, width), axes=(3, 2, 0, 1)),
              Row("stem/bias", "stem.bias", (width,))]
    for i in range(count(arrays, r"MixerBlock_(\d+)/")):
        theirs, ours = f"MixerBlock_{i}", f"blocks.{i}"
        result += _layer_norm(f"{theirs}/LayerNorm_0", f"{ours}.norm1", width)
        # Kernels are [in, out]; our token mixing keeps [out, in].
        result += _dense(f"{theirs}/token_mixing/Dense_0", f"{ours}.token_mlp.fc1", tokens, hidden, transpose=True)
        result += _dense(f"{theirs}/token_mixing/Dense_1", f"{ours}.token_mlp.fc2", hidden, tokens, transpose=True)
        result += _layer_norm(f"{theirs}/LayerNorm_1", f"{ours}.norm2", width)
        result += _dense(f"{theirs}/channel_mixing/Dense_0", f"{ours}.channel_mlp.fc1", width, channel_hidden)
        result += _dense(f"{theirs}/channel_mixing/Dense_1", f"{ours}.channel_mlp.fc2", channel_hidden, width)
    return result + _layer_norm("pre_head_layer_norm", "norm", width) + _dense("head", "head.fc", width, num_classes)
