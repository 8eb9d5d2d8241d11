"""Key map of timm's Vision Transformer to ``passl_mixer.backbones.vit``.

Source: timm/models/vision_transformer.py; DeiT's files have the same names.
"""
from typing import Dict, List

import numpy

from passl_mixer.weights.keymap import Row, affine, conv, count, head, linear, size


def rows(arrays: Dict[str, numpy.ndarray]) -> List[Row]:
    """Rows of a timm ViT with a class token, its sizes from the shapes of ``arrays``."""
    width, in_chans, patch = (size(arrays, "patch_embed.proj.weight", axis) for axis in range(3))
    hidden = size(arrays, "blocks.0.mlp.fc1.weight", 0)
    result = [Row("cls_token", "class_token", (1, 1, width)),
              Row("pos_embed", "position", (1, size(arrays, "pos_embed", 1), width))]
    result += conv("patch_embed.proj", "stem", in_chans, width, patch, bias=True)
    for i in range(count(arrays, r"blocks\.(\d+)\.")):
        block = f"blocks.{i}"
        result += affine(f"{block}.norm1", f"{block}.norm1", width) + affine(f"{block}.norm2", f"{block}.norm2", width)
        result += linear(f"{block}.attn.qkv", f"{block}.attention.qkv", width, 3 * width)
        result += linear(f"{block}.attn.proj", f"{block}.attention.proj", width, width)
        result += linear(f"{block}.mlp.fc1", f"{block}.mlp.fc1", width, hidden)
        result += linear(f"{block}.mlp.fc2", f"{block}.mlp.fc2", hidden, width)
    return result + affine("norm", "norm", width) + head(arrays, width)
