"""The index of backbones: every registered name in one table.

Named variants are the published networks at 224 px; the ``nano`` ones are ours, for images of 28 to 36 px.
"""
import fnmatch

from passl_mixer.backbones.conv_mlp import ConvMLP
from passl_mixer.backbones.cycle_mlp import CycleMLP
from passl_mixer.backbones.mlp_mixer import MlpMixer
from passl_mixer.backbones.resnet import ResNet
from passl_mixer.registry import BACKBONES

# Free-form: every option from the configuration.
BACKBONES.add("MlpMixer", MlpMixer)
BACKBONES.add("ConvMLP", ConvMLP)
BACKBONES.add("CycleMLP", CycleMLP)
BACKBONES.add("ResNet", ResNet)

# Tolstikhin et al. 2021, table 1.   class     width           depth          patch
BACKBONES.add("mlp_mixer_s32", MlpMixer, embed_dim=512, num_blocks=8, patch_size=32)
BACKBONES.add("mlp_mixer_s16", MlpMixer, embed_dim=512, num_blocks=8, patch_size=16)
BACKBONES.add("mlp_mixer_b32", MlpMixer, embed_dim=768, num_blocks=12, patch_size=32)
BACKBONES.add("mlp_mixer_b16", MlpMixer, embed_dim=768, num_blocks=12, patch_size=16)
BACKBONES.add("mlp_mixer_l32", MlpMixer, embed_dim=1024, num_blocks=24, patch_size=32)
BACKBONES.add("mlp_mixer_l16", MlpMixer, embed_dim=1024, num_blocks=24, patch_size=16)
BACKBONES.add("mlp_mixer_h14", MlpMixer, embed_dim=1280, num_blocks=32, patch_size=14)
BACKBONES.add("mlp_mixer_nano", MlpMixer, embed_dim=128, num_blocks=4, patch_size=4, img_size=32)

# Li et al. 2021, the official code's convmlp.py.
BACKBONES.add("conv_mlp_s", ConvMLP, stem_channels=64, num_conv_blocks=2, embed_dims=(128, 256, 512),
              depths=(2, 4, 2), mlp_ratios=(2, 2, 2))
BACKBONES.add("conv_mlp_m", ConvMLP, stem_channels=64, num_conv_blocks=3, embed_dims=(128, 256, 512),
              depths=(3, 6, 3), mlp_ratios=(3, 3, 3))
BACKBONES.add("conv_mlp_l", ConvMLP, stem_channels=96, num_conv_blocks=3, embed_dims=(192, 384, 768),
              depths=(4, 8, 3), mlp_ratios=(3, 3, 3))
BACKBONES.add("conv_mlp_nano", ConvMLP, stem_channels=32, num_conv_blocks=1, embed_dims=(64, 128, 192),
              depths=(1, 2, 1), mlp_ratios=(2, 2, 2), stem_stride=2)

# Chen et al. 2021, the official code's cycle_mlp.py.
BACKBONES.add("cycle_mlp_b1", CycleMLP, embed_dims=(64, 128, 320, 512), depths=(2, 2, 4, 2),
              mlp_ratios=(4, 4, 4, 4))
BACKBONES.add("cycle_mlp_b2", CycleMLP, embed_dims=(64, 128, 320, 512), depths=(2, 3, 10, 3),
              mlp_ratios=(4, 4, 4, 4))
BACKBONES.add("cycle_mlp_b3", CycleMLP, embed_dims=(64, 128, 320, 512), depths=(3, 4, 18, 3),
              mlp_ratios=(8, 8, 4, 4))
BACKBONES.add("cycle_mlp_b4", CycleMLP, embed_dims=(64, 128, 320, 512), depths=(3, 8, 27, 3),
              mlp_ratios=(8, 8, 4, 4))
BACKBONES.add("cycle_mlp_b5", CycleMLP, embed_dims=(96, 192, 384, 768), depths=(3, 4, 24, 3),
              mlp_ratios=(4, 4, 4, 4))
BACKBONES.add("cycle_mlp_nano", CycleMLP, embed_dims=(48, 96, 128), depths=(2, 2, 2), mlp_ratios=(4, 4, 4),
              stem_stride=2)

# He et al. 2015, table 1.
BACKBONES.add("resnet18", ResNet, depth=18)
BACKBONES.add("resnet50", ResNet, depth=50)


def build_backbone(cfg):
    """Build a backbone.

    Args:
        cfg: a registered name, or a mapping with ``name`` and options of that backbone's constructor.
    Returns:
        The backbone, an ``nn.Layer`` from images [B, 3, H, W] to features [B, num_features].
    Raises:
        BadInput: unknown name or option, wrong type, sizes that do not fit.
    """
    return BACKBONES.build(cfg)


def list_backbones(pattern: str = "*") -> list:
    """Registered names that match a shell pattern such as ``"cycle_mlp_*"``, in order of registration."""
    return [name for name in BACKBONES.names() if fnmatch.fnmatchcase(name, pattern)]
