"""Small networks of every family, options that make others of them, and the sizes of the registered ones."""
import functools

import numpy as np
import paddle

from passl_mixer import build_backbone, list_backbones
from passl_mixer.registry import BACKBONES
from passl_mixer.surgery.macs import summary

# One network of every family that computes in milliseconds: options of the free-form names, for images of 16 px.
SMALL = {
    "MlpMixer": {"img_size": 16, "patch_size": 8, "embed_dim": 16, "num_blocks": 2, "drop_path_rate": 0.5},
    "ResMLP": {"img_size": 16, "patch_size": 8, "embed_dim": 16, "num_blocks": 2, "drop_path_rate": 0.5},
    "GMLP": {"img_size": 16, "patch_size": 8, "embed_dim": 16, "num_blocks": 2, "drop_path_rate": 0.5},
    "ConvMixer": {"embed_dim": 16, "num_blocks": 2, "kernel_size": 3, "patch_size": 8},
    "ConvMLP": {"stem_channels": 8, "num_conv_blocks": 2, "embed_dims": [8, 16], "depths": [1, 2], "mlp_ratios": [2, 2],
                "drop_path_rate": 0.5},
    "CycleMLP": {"embed_dims": [8, 13], "depths": [1, 2], "mlp_ratios": [2, 1.5], "drop_path_rate": 0.5},
    "HireMLP": {"embed_dims": [8, 12], "depths": [1, 1], "mlp_ratios": [2, 1.5], "region_sizes": [3, 2],
                "shifts": [[0, 2], [0, 1]], "drop_path_rate": 0.5},
    "WaveMLP": {"embed_dims": [8, 12], "depths": [1, 1], "mlp_ratios": [2, 1.5], "drop_path_rate": 0.5},
    "S2MLPv1": {"patch_size": 8, "embed_dim": 16, "num_blocks": 2, "drop_path_rate": 0.5},
    "S2MLPv2": {"patch_sizes": [2, 2], "embed_dims": [8, 12], "depths": [1, 2], "mlp_ratio": 1.5,
                "drop_path_rate": 0.5},
    "ViP": {"img_size": 16, "patch_size": 4, "embed_dims": [12, 18], "depths": [1, 2], "transitions": [True, False],
            "mlp_ratios": [3, 2], "drop_path_rate": 0.5},
    "ASMLP": {"patch_size": 2, "embed_dim": 10, "depths": [1, 2], "shift_size": 3, "mlp_ratio": 2,
              "drop_path_rate": 0.5},
    "ViT": {"img_size": 16, "patch_size": 8, "embed_dim": 12, "num_blocks": 2, "num_heads": 3, "drop_path_rate": 0.5},
    "Swin": {"patch_size": 2, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 4], "window_size": 4,
             "drop_path_rate": 0.5},
    "ResNet": {"depth": 18, "stem": "cifar"},
}
# Families that take images of any size.
ANY_SIZE = ["ConvMixer", "ConvMLP", "CycleMLP", "HireMLP", "WaveMLP", "Swin", "ResNet"]
# Forms of a family that differ in their operators.
FORMS = [*((name, {}) for name in SMALL), *(("WaveMLP", options) for options in ({"norms": ["group", "none"]},
         {"norms": ["group", "group"]}, {"phase": "depthwise"})),
         ("ConvMixer", {"act": "relu"}), ("ResMLP", {"act": "gelu_tanh"}), ("GMLP", {"act": "gelu_tanh"}),
         ("ViT", {"pool": "mean"})]
NANO = list_backbones("*_nano")
# Some families, and the network they are compared with, for tests that train every method on each.
COMPARED = [{"name": "mlp_mixer_nano"}, {"name": "conv_mlp_nano"}, {"name": "cycle_mlp_nano"},
            {"name": "resnet18", "stem": "cifar"}]

# Laying out the larger networks takes seconds: they are counted once for all tests of a run.
size_of = functools.cache(summary)


def small(name: str, *, training: bool = False, seed: int = 0, **options):
    """The small network of a family in evaluation mode, with some options in place of the table's."""
    paddle.seed(seed)
    backbone = build_backbone({"name": name, **SMALL[name], **options})
    backbone.train() if training else backbone.eval()
    return backbone


class LeavesPaddle(paddle.nn.Layer):
    """A backbone that computes in NumPy, which no program can hold."""

    in_chans, num_features = 3, 3

    def forward(self, images):
        return paddle.to_tensor(np.linalg.norm(images.numpy(), axis=(2, 3)))


def known_options(name: str, **options) -> dict:
    """Those of some options that a backbone has."""
    return {key: value for key, value in options.items() if key in BACKBONES.parameters(name)}


def random_parameters(layer, seed: int = 0, mean: float = 0.1, deviation: float = 0.3):
    """The layer with every parameter drawn anew: initial ones are too small or too regular to show a mistake."""
    rng = np.random.default_rng(seed)
    for parameter in layer.parameters():
        if parameter.stop_gradient:     # a BatchNorm's statistics
            continue
        parameter.set_value(rng.normal(mean, deviation, parameter.shape).astype("float32"))
    return layer
