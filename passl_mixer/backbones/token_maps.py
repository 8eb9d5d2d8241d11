"""Token-mixing weights of one image size, adapted to another, as arrays: MLP-Mixer, ResMLP, gMLP.

Their linear maps over tokens are maps from one grid of patches to another (or to hidden units). Two schemes:

- "blocks": the Mixer paper's appendix C, for sizes K times as large both ways: the new image is a K x K grid of tiles
  of the old size, and every tile gets a copy of the old map (block-diagonal weights, K^2 times the hidden units). The
  paper counts tokens tile by tile, a network row by row: weights and biases are permuted from one to the other.
- "interpolate", for any size: outputs and biases, seen as images over the grid, are interpolated; inputs are weighted
  means of the new grid that undo this interpolation. So the new map does to an interpolated image of tokens what the
  old one did to the image (exactly, if the grid grows), and a map that keeps constants keeps them.

The weights are where fine-tuning starts. Accuracy before it is measured in docs/resolution.md.

Shapes: S = h * w tokens in row-major order on the old grid, S' = h' * w' on the new one.
Source: "blocks": Tolstikhin et al. 2021, arXiv:2105.01601, appendix C. "interpolate": ours; undoing an interpolation
    by its pseudo-inverse is Beyer et al. 2022, arXiv:2212.08013, section 3.4, who do so for patch embeddings.
"""
import fnmatch
import math
from typing import Dict, Optional, Sequence, Tuple, Union

import numpy as np

from passl_mixer.errors import BadInput, nearest
from passl_mixer.layers.checks import image_pair, patch_grid

Grid = Tuple[int, int]
SCHEMES = ("interpolate", "blocks")
# What each axis of a token-mixing array is, by the class of the backbone and the pattern of the name. Axes of tokens:
# "in" is read, "out" is written; "hidden" are the units between them.
TOKEN_ARRAYS = {
    "MlpMixer": {"blocks.*.token_mlp.fc1.weight": ("hidden", "in"), "blocks.*.token_mlp.fc1.bias": ("hidden",),
                 "blocks.*.token_mlp.fc2.weight": ("out", "hidden"), "blocks.*.token_mlp.fc2.bias": ("out",)},
    "ResMLP": {"blocks.*.token_mixing.weight": ("out", "in"), "blocks.*.token_mixing.bias": ("out",)},
    "GMLP": {"blocks.*.gate.token_mixing.weight": ("out", "in"), "blocks.*.gate.token_mixing.bias": ("out",)},
}
REFUSALS = {"ViP": "a ViP cannot be resized: its maps along height and width also mix channels, in as many segments as "
                   "the grid has rows, so another grid is another network; build it with the new img_size and train it"}


def interpolation(old: int, new: int) -> np.ndarray:
    """Cubic interpolation of ``old`` samples at ``new`` >= ``old`` places (pixel centres, edges repeated).

    Returns:
        [new, old], float64; rows sum to 1; the identity if the lengths agree.
    Source: Keys 1981, "Cubic convolution interpolation for digital image processing", with a = -1/2.
    """
    place = (np.arange(new) + 0.5) * old / new - 0.5
    matrix = np.zeros((new, old))
    for step in range(-1, 3):
        sample = np.floor(place).astype(int) + step
        d = np.abs(place - sample)
        near, far = 1.5 * d ** 3 - 2.5 * d ** 2 + 1, -0.5 * d ** 3 + 2.5 * d ** 2 - 4 * d + 2
        np.add.at(matrix, (np.arange(new), np.clip(sample, 0, old - 1)), np.where(d <= 1, near, far))
    return matrix


def resampling(old: Grid, new: Grid) -> np.ndarray:
    """Linear map of images on one grid to images on another, separable in rows and columns.

    A growing side is interpolated; a shrinking one gets the least-squares inverse of that, so that there and back
    changes nothing.

    Returns:
        [S', S], float64; rows sum to 1.
    """
    return np.kron(*(interpolation(a, b) if b >= a else np.linalg.pinv(interpolation(b, a)) for a, b in zip(old, new)))


def _interpolate(array: np.ndarray, axes: Sequence[str], old: Grid, new: Grid) -> np.ndarray:
    for axis, kind in enumerate(axes):
        if kind != "hidden":
            # Written maps are resampled; what is read is first brought back to the old grid.
            matrix = resampling(old, new) if kind == "out" else resampling(new, old).T
            array = np.moveaxis(np.tensordot(matrix, array, axes=(1, axis)), 0, axis)
    return array


def row_major(grid: Grid, factor: int) -> np.ndarray:
    """Row-major positions of tokens counted tile by tile.

    Args:
        grid: (h, w) of a tile.
        factor: K, tiles along each side.
    Returns:
        [K^2 * h * w], int: entry t * h * w + i is the place of token i of tile t among all tokens, row by row.
    """
    (h, w), k = grid, factor
    return np.arange(k * h * k * w).reshape(k, h, k, w).transpose(0, 2, 1, 3).reshape(-1)


def _blocks(array: np.ndarray, axes: Sequence[str], old: Grid, factor: int) -> np.ndarray:
    tiles = factor ** 2
    result = np.tile(array, tiles) if len(axes) == 1 else np.kron(np.eye(tiles), array)
    for axis, kind in enumerate(axes):
        if kind != "hidden":
            result = np.take(result, np.argsort(row_major(old, factor)), axis)
    return result


def _block_factor(old: Grid, new: Grid) -> int:
    """K, or 0 where the new grid is not K times the old one both ways."""
    factor = new[0] // old[0]
    return factor if (old[0] * factor, old[1] * factor) == tuple(new) else 0


def adapt(arrays: Dict[str, np.ndarray], family: str, old: Grid, new: Grid, scheme: str) -> Dict[str, np.ndarray]:
    """Adapt token-mixing arrays to another grid.

    Args:
        arrays: parameters under our structured names; those that do not mix tokens are ignored.
        family: class name of the backbone, one of ``TOKEN_ARRAYS``.
        old: (h, w) of the arrays.
        new: (h', w') of the result.
        scheme: "interpolate" or "blocks", see the top of this file.
    Returns:
        The adapted arrays by name, float64.
    Raises:
        BadInput: unknown scheme, or blocks between grids of which one is not a multiple of the other.
    """
    if scheme not in SCHEMES:
        raise BadInput(f"unknown scheme {scheme!r}{nearest(str(scheme), SCHEMES)}")
    factor = _block_factor(old, new)
    if scheme == "blocks" and not factor:
        raise BadInput(f"scheme 'blocks' cannot make a grid of {new[0]} x {new[1]} tokens from one of {old[0]} x "
                       f"{old[1]}; give an img_size 2, 3, ... times as large both ways, or scheme='interpolate'")
    adapted = {}
    for pattern, axes in TOKEN_ARRAYS[family].items():
        for name in fnmatch.filter(arrays, pattern):
            array = np.asarray(arrays[name], dtype=np.float64)
            adapted[name] = (_blocks(array, axes, old, factor) if scheme == "blocks"
                             else _interpolate(array, axes, old, new))
    return adapted


def adapt_token_arrays(arrays: Dict[str, np.ndarray], backbone, *,
                       from_size: Union[int, Sequence[int], None] = None,
                       scheme: Optional[str] = None) -> Dict[str, np.ndarray]:
    """Adapt weights that were trained at one image size to a backbone of another.

    Args:
        arrays: parameters under our structured names, as ``convert_state_dict`` gives them for the backbone.
        backbone: the network to load them into; weights that fit already are not changed.
        from_size: pixels the weights were trained at, one integer or (height, width); by default a square.
        scheme: as for ``resize_tokens``; by default "blocks" where a Mixer's ``token_hidden`` is K^2 times that of the
            weights at K times the size, else "interpolate".
    Returns:
        A new mapping: token-mixing arrays adapted to ``backbone.img_size``, float32, the others as they are.
    Raises:
        BadInput: the weights' number of tokens does not fit ``from_size``, is no square, or the scheme does not fit;
            a family that cannot be resized, if ``from_size`` says that it would have to be.
    """
    family = type(backbone).__name__
    if family in REFUSALS and from_size is not None and image_pair(from_size) != backbone.img_size:
        raise BadInput(REFUSALS[family])
    axes = {name: kinds for pattern, kinds in TOKEN_ARRAYS.get(family, {}).items()
            for name in fnmatch.filter(arrays, pattern)}
    written = [name for name, kinds in axes.items() if kinds == ("out",)]
    if not written:
        return dict(arrays)
    old = _old_grid(len(arrays[written[0]]), backbone, from_size)
    if old == tuple(backbone.grid):
        return dict(arrays)
    hidden = [name for name, kinds in axes.items() if kinds == ("hidden",)]
    if scheme is None:
        factor = _block_factor(old, backbone.grid)
        grown = bool(hidden) and factor > 1 and \
            backbone.state_dict()[hidden[0]].shape[0] == factor ** 2 * len(arrays[hidden[0]])
        scheme = "blocks" if grown else "interpolate"
    adapted = adapt(arrays, family, old, backbone.grid, scheme)
    return {**arrays, **{name: array.astype(np.float32) for name, array in adapted.items()}}


def _old_grid(tokens: int, backbone, from_size) -> Grid:
    patch = backbone.feature_strides[0]
    if from_size is not None:
        grid = patch_grid(image_pair(from_size), patch)
        if grid[0] * grid[1] != tokens:
            raise BadInput(f"the weights mix {tokens} tokens, an image of {grid[0] * patch} x {grid[1] * patch} pixels "
                           f"has {grid[0] * grid[1]} patches of {patch}; change from_size")
        return grid
    if tokens == backbone.grid[0] * backbone.grid[1]:
        return tuple(backbone.grid)
    side = math.isqrt(tokens)
    if side ** 2 != tokens:
        raise BadInput(f"the weights mix {tokens} tokens, which is no square grid; give from_size, the height and "
                       "width in pixels that they were trained at")
    return side, side
