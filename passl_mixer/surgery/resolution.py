"""Adaptation of networks with token mixing of one image size to another size: MLP-Mixer, ResMLP, gMLP.

``passl_mixer.backbones.token_maps`` describes the two schemes with their sources and adapts the arrays.
docs/resolution.md has measured accuracies before fine-tuning.
"""
import copy
import fnmatch
from typing import Sequence, Union

import numpy as np
import paddle

from passl_mixer.backbones.token_maps import REFUSALS, TOKEN_ARRAYS, adapt
from passl_mixer.errors import BadInput
from passl_mixer.layers.checks import image_pair, patch_grid


def _family(backbone) -> str:
    """Class name of a backbone that can be resized; raises ``BadInput`` for others."""
    name = type(backbone).__name__
    if name in REFUSALS:
        raise BadInput(REFUSALS[name])
    if getattr(backbone, "img_size", None) is None:
        raise BadInput(f"{name} takes any image size and needs no resizing; give it the larger images as they are")
    if name not in TOKEN_ARRAYS:
        raise BadInput(f"no rule for resizing a {name}; there is one for {', '.join(TOKEN_ARRAYS)}")
    return name


def resize_tokens(backbone, img_size: Union[int, Sequence[int]], *, scheme: str = "interpolate"):
    """A copy of a backbone for another image size, with adapted token mixing.

    Args:
        backbone: a MlpMixer, ResMLP or GMLP; left as it is.
        img_size: the new height and width in pixels, one integer or a pair; multiples of the patch size.
        scheme: "interpolate" (any size), or "blocks" (integer multiples K of the old size), see
            ``passl_mixer.backbones.token_maps``. In blocks, a Mixer gets K^2 times the token hidden width, the
            ``token_hidden`` to build such a network with.
    Returns:
        A backbone of the same class, options and mode; its weights are the same except those of the token mixing.
    Raises:
        BadInput: a family that cannot be resized or needs no resizing, or a size that does not fit.
    """
    family, new_size = _family(backbone), image_pair(img_size)
    grid = patch_grid(new_size, backbone.feature_strides[0])
    parameters = dict(backbone.named_parameters())
    arrays = {name: p.astype("float32").numpy() for name, p in parameters.items()
              if any(fnmatch.fnmatchcase(name, pattern) for pattern in TOKEN_ARRAYS[family])}
    adapted = adapt(arrays, family, backbone.grid, grid, scheme)
    resized = copy.deepcopy(backbone)
    resized.img_size, resized.grid = new_size, grid
    layers = dict(resized.named_sublayers())
    for name, array in adapted.items():
        path, _, attribute = name.rpartition(".")
        old = parameters[name]
        new = layers[path].create_parameter(list(array.shape), dtype=old.dtype)
        new.set_value(paddle.to_tensor(array.astype(np.float32)).astype(old.dtype))
        new.stop_gradient = old.stop_gradient
        setattr(layers[path], attribute, new)
    return resized
