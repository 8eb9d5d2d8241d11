"""The index of backbones: every registered name in one table.

Named variants are the published networks at 224 px; the ``nano`` ones are ours, for images of 28 to 36 px.
"""
import collections.abc
import fnmatch

from passl_mixer.backbones.as_mlp import ASMLP
from passl_mixer.backbones.conv_mixer import ConvMixer
from passl_mixer.backbones.conv_mlp import ConvMLP
from passl_mixer.backbones.cycle_mlp import CycleMLP
from passl_mixer.backbones.gmlp import GMLP
from passl_mixer.backbones.hire_mlp import HireMLP
from passl_mixer.backbones.mlp_mixer import MlpMixer
from passl_mixer.backbones.pretrained import load_pretrained
from passl_mixer.backbones.resmlp import ResMLP
from passl_mixer.backbones.resnet import ResNet
from passl_mixer.backbones.s2_mlp_v1 import S2MLPv1
from passl_mixer.backbones.s2_mlp_v2 import S2MLPv2
from passl_mixer.backbones.swin import Swin
from passl_mixer.backbones.vip import ViP
from passl_mixer.backbones.vit import ViT
from passl_mixer.backbones.wave_mlp import WaveMLP
from passl_mixer.registry import BACKBONES

# Free-form: every option from the configuration.
BACKBONES.add("MlpMixer", MlpMixer)
BACKBONES.add("ConvMixer", ConvMixer)
BACKBONES.add("ConvMLP", ConvMLP)
BACKBONES.add("CycleMLP", CycleMLP)
BACKBONES.add("HireMLP", HireMLP)
BACKBONES.add("WaveMLP", WaveMLP)
BACKBONES.add("S2MLPv1", S2MLPv1)
BACKBONES.add("S2MLPv2", S2MLPv2)
BACKBONES.add("ResNet", ResNet)
BACKBONES.add("ViP", ViP)
BACKBONES.add("ASMLP", ASMLP)
BACKBONES.add("ViT", ViT)
BACKBONES.add("Swin", Swin)
BACKBONES.add("ResMLP", ResMLP)
BACKBONES.add("GMLP", GMLP)

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

# Trockman and Kolter 2022, table 1 and the official README.
BACKBONES.add("conv_mixer_1536_20", ConvMixer, embed_dim=1536, num_blocks=20, kernel_size=9, patch_size=7)
BACKBONES.add("conv_mixer_768_32", ConvMixer, embed_dim=768, num_blocks=32, kernel_size=7, patch_size=7, act="relu")
BACKBONES.add("conv_mixer_1024_20", ConvMixer, embed_dim=1024, num_blocks=20, kernel_size=9, patch_size=14)
BACKBONES.add("conv_mixer_nano", ConvMixer, embed_dim=256, num_blocks=6, kernel_size=5, patch_size=4)

# Touvron et al. 2021, table 3; initial layer scales of the official code's resmlp_models.py (b24: of timm).
BACKBONES.add("resmlp_s12", ResMLP, embed_dim=384, num_blocks=12, layer_scale_init=0.1)
BACKBONES.add("resmlp_s24", ResMLP, embed_dim=384, num_blocks=24, layer_scale_init=1e-5)
BACKBONES.add("resmlp_s36", ResMLP, embed_dim=384, num_blocks=36, layer_scale_init=1e-6)
BACKBONES.add("resmlp_b24", ResMLP, embed_dim=768, num_blocks=24, layer_scale_init=1e-6)
BACKBONES.add("resmlp_b24_8", ResMLP, embed_dim=768, num_blocks=24, layer_scale_init=1e-6, patch_size=8)
BACKBONES.add("resmlp_nano", ResMLP, embed_dim=128, num_blocks=5, layer_scale_init=0.1, patch_size=4, img_size=32)

# Liu et al. 2021, arXiv:2105.08050, table 1.
BACKBONES.add("gmlp_ti16", GMLP, embed_dim=128, num_blocks=30, mlp_ratio=6)
BACKBONES.add("gmlp_s16", GMLP, embed_dim=256, num_blocks=30, mlp_ratio=6)
BACKBONES.add("gmlp_b16", GMLP, embed_dim=512, num_blocks=30, mlp_ratio=6)
BACKBONES.add("gmlp_nano", GMLP, embed_dim=96, num_blocks=6, mlp_ratio=6, patch_size=4, img_size=32)

# Guo et al. 2021, the official code's hire_mlp.py.
BACKBONES.add("hire_mlp_tiny", HireMLP, embed_dims=(64, 128, 320, 512), depths=(2, 2, 4, 2))
BACKBONES.add("hire_mlp_small", HireMLP, embed_dims=(64, 128, 320, 512), depths=(3, 4, 10, 3))
BACKBONES.add("hire_mlp_base", HireMLP, embed_dims=(64, 128, 320, 512), depths=(4, 6, 24, 3))
BACKBONES.add("hire_mlp_large", HireMLP, embed_dims=(96, 192, 384, 768), depths=(4, 6, 24, 3))
BACKBONES.add("hire_mlp_nano", HireMLP, embed_dims=(48, 96, 128), depths=(2, 2, 2), mlp_ratios=(4, 4, 4),
              region_sizes=(4, 3, 2), shifts=((0, 2), (0, 1), (0, 1)), stem_stride=2)

# Yu et al. 2021 (S2-MLP).
BACKBONES.add("s2_mlp_v1_wide", S2MLPv1, embed_dim=768, num_blocks=12, patch_size=16)
BACKBONES.add("s2_mlp_v1_deep", S2MLPv1, embed_dim=384, num_blocks=36, patch_size=16)
BACKBONES.add("s2_mlp_v1_nano", S2MLPv1, embed_dim=128, num_blocks=4, patch_size=4)

# Yu et al. 2021 (S2-MLPv2): Small/7 and Medium/7.
BACKBONES.add("s2_mlp_v2_small", S2MLPv2, patch_sizes=(7, 2), embed_dims=(192, 384), depths=(4, 14))
BACKBONES.add("s2_mlp_v2_medium", S2MLPv2, patch_sizes=(7, 2), embed_dims=(256, 512), depths=(7, 17))
BACKBONES.add("s2_mlp_v2_nano", S2MLPv2, patch_sizes=(2, 2), embed_dims=(64, 128), depths=(2, 3))

# Hou et al. 2021, the official code's models/vip.py; the segment dims there follow from 224 px and the patch size.
BACKBONES.add("vip_s14", ViP, patch_size=14, embed_dims=(384, 384, 384, 384), depths=(4, 3, 8, 3),
              transitions=(False, False, False, False))
BACKBONES.add("vip_s7", ViP, patch_size=7, embed_dims=(192, 384, 384, 384), depths=(4, 3, 8, 3),
              transitions=(True, False, False, False))
BACKBONES.add("vip_m7", ViP, patch_size=7, embed_dims=(256, 256, 512, 512), depths=(4, 3, 14, 3),
              transitions=(False, True, False, False))
BACKBONES.add("vip_l7", ViP, patch_size=7, embed_dims=(256, 512, 512, 512), depths=(8, 8, 16, 4),
              transitions=(True, False, False, False))
BACKBONES.add("vip_nano", ViP, patch_size=4, embed_dims=(112,), depths=(6,), transitions=(False,), mlp_ratios=(3,),
              img_size=32)

# Tang et al. 2021, the official code's wavemlp.py: t_star is its WaveMLP_T_dw (T* of the paper).
BACKBONES.add("wave_mlp_t_star", WaveMLP, depths=(2, 2, 4, 2), phase="depthwise")
BACKBONES.add("wave_mlp_t", WaveMLP, depths=(2, 2, 4, 2))
BACKBONES.add("wave_mlp_s", WaveMLP, depths=(2, 3, 10, 3), norms=("group", "group"))
BACKBONES.add("wave_mlp_m", WaveMLP, depths=(3, 4, 18, 3), mlp_ratios=(8, 8, 4, 4), norms=("group", "none"))
BACKBONES.add("wave_mlp_b", WaveMLP, embed_dims=(96, 192, 384, 768), depths=(2, 2, 18, 2),
              norms=("group", "none"))
BACKBONES.add("wave_mlp_nano", WaveMLP, embed_dims=(48, 96, 128), depths=(2, 2, 2), mlp_ratios=(4, 4, 4),
              norms=("group", "group"), stem_stride=2)

# Lian et al. 2021, the official code's configs.
BACKBONES.add("as_mlp_t", ASMLP, embed_dim=96, depths=(2, 2, 6, 2))
BACKBONES.add("as_mlp_s", ASMLP, embed_dim=96, depths=(2, 2, 18, 2))
BACKBONES.add("as_mlp_b", ASMLP, embed_dim=128, depths=(2, 2, 18, 2))
BACKBONES.add("as_mlp_nano", ASMLP, embed_dim=48, depths=(2, 4), patch_size=2)

# He et al. 2015, table 1.
BACKBONES.add("resnet18", ResNet, depth=18)
BACKBONES.add("resnet50", ResNet, depth=50)

# Touvron et al. 2020, arXiv:2012.12877, table 1.
BACKBONES.add("vit_ti_16", ViT, embed_dim=192, num_blocks=12, num_heads=3, patch_size=16)
BACKBONES.add("vit_s_16", ViT, embed_dim=384, num_blocks=12, num_heads=6, patch_size=16)
BACKBONES.add("vit_b_16", ViT, embed_dim=768, num_blocks=12, num_heads=12, patch_size=16)
BACKBONES.add("vit_b_32", ViT, embed_dim=768, num_blocks=12, num_heads=12, patch_size=32)
# Radford et al. 2021, arXiv:2103.00020, table 19: the image tower of CLIP ViT-B/32, without its projection.
BACKBONES.add("vit_b_32_clip", ViT, embed_dim=768, num_blocks=12, num_heads=12, patch_size=32, act="quick_gelu",
              pre_norm=True, stem_bias=False)
BACKBONES.add("vit_nano", ViT, embed_dim=96, num_blocks=5, num_heads=3, patch_size=4, img_size=32)

# Liu et al. 2021, arXiv:2103.14030, section 3.3.
BACKBONES.add("swin_t", Swin, embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=7)
BACKBONES.add("swin_nano", Swin, embed_dim=40, depths=(2, 2, 2), num_heads=(2, 4, 8), window_size=4, patch_size=2)


def build_backbone(cfg):
    """Build a backbone.

    Args:
        cfg: a registered name, or a mapping with ``name``, options of that backbone's constructor and, for any
            backbone, ``pretrained``: a run folder, a checkpoint of ours, or a weight file of any format and origin
            that ``passl_mixer.weights`` reads.
    Returns:
        The backbone, an ``nn.Layer`` from images [B, 3, H, W] to features [B, num_features].
    Raises:
        BadInput: unknown name or option, wrong type, sizes that do not fit, weights of another network.
    """
    if not isinstance(cfg, collections.abc.Mapping) or "pretrained" not in cfg:
        return BACKBONES.build(cfg)
    options = {key: value for key, value in cfg.items() if key != "pretrained"}
    backbone = BACKBONES.build(options)
    if cfg["pretrained"] is not None:
        load_pretrained(backbone, options, cfg["pretrained"])
    return backbone


def list_backbones(pattern: str = "*") -> list:
    """Registered names that match a shell pattern such as ``"cycle_mlp_*"``, in order of registration."""
    return [name for name in BACKBONES.names() if fnmatch.fnmatchcase(name, pattern)]
