"""Every registered backbone against its row: trainable parameters with a 1000-class head, GMACs, sizes."""
import runpy
from pathlib import Path

import numpy
import paddle
import pytest
from helpers.backbones import size_of
from helpers.marks import slow_but

from passl_mixer.backbones import build_backbone, list_backbones
from passl_mixer.backbones.published import PUBLISHED_TOP1
from passl_mixer.errors import BadInput
from passl_mixer.heads import build_head
from passl_mixer.surgery.macs import count_macs, count_parameters, shapes_only, summary

pytestmark = pytest.mark.filterwarnings("ignore:When training, we now always track")

# name: (parameters, GMACs, size they are counted at, strides of the feature maps). Published networks: exact
# parameters of the reference architectures; nano: ours.
ROWS = {
    "mlp_mixer_s32": (19_104_624, 1.00, 224, (32,)),
    "mlp_mixer_s16": (18_528_264, 3.78, 224, (16,)),
    "mlp_mixer_b32": (60_293_428, 3.24, 224, (32,)),
    "mlp_mixer_b16": (59_880_472, 12.60, 224, (16,)),
    "mlp_mixer_l32": (206_939_264, 11.25, 224, (32,)),
    "mlp_mixer_l16": (208_196_168, 44.55, 224, (16,)),
    "mlp_mixer_h14": (432_350_952, 120.99, 224, (14,)),
    "mlp_mixer_nano": (697_704, 0.03827, 32, (4,)),
    "conv_mlp_s": (9_022_920, 2.39, 224, (8, 16, 32)),
    "conv_mlp_m": (17_410_504, 3.93, 224, (8, 16, 32)),
    "conv_mlp_l": (42_728_440, 9.87, 224, (8, 16, 32)),
    "conv_mlp_nano": (1_156_440, 0.02335, 32, (4, 8, 16)),
    "cycle_mlp_b1": (15_155_400, 2.12, 224, (4, 8, 16, 32)),
    "cycle_mlp_b2": (26_802_504, 3.88, 224, (4, 8, 16, 32)),
    "cycle_mlp_b3": (38_385_720, 6.83, 224, (4, 8, 16, 32)),
    "cycle_mlp_b4": (51_796_552, 10.03, 224, (4, 8, 16, 32)),
    "cycle_mlp_b5": (75_747_280, 12.23, 224, (4, 8, 16, 32)),
    "cycle_mlp_nano": (1_016_688, 0.03954, 32, (2, 4, 8)),
    "conv_mixer_1536_20": (51_625_960, 51.10, 224, (7,)),
    "conv_mixer_768_32": (21_110_248, 20.68, 224, (7,)),
    "conv_mixer_1024_20": (24_383_464, 5.95, 224, (14,)),
    "conv_mixer_nano": (710_888, 0.02867, 32, (4,)),
    "resmlp_s12": (15_350_872, 3.01, 224, (16,)),
    "resmlp_s24": (30_020_680, 5.96, 224, (16,)),
    "resmlp_s36": (44_690_488, 8.91, 224, (16,)),
    "resmlp_b24": (115_736_776, 23.02, 224, (16,)),
    "resmlp_b24_8": (129_138_280, 100.23, 224, (8,)),
    "resmlp_nano": (818_728, 0.04509, 32, (4,)),
    "gmlp_ti16": (5_867_328, 1.33, 224, (16,)),
    "gmlp_s16": (19_422_656, 4.39, 224, (16,)),
    "gmlp_b16": (73_075_392, 15.72, 224, (16,)),
    "gmlp_nano": (633_160, 0.03932, 32, (4,)),
    "s2_mlp_v1_wide": (72_241_384, 13.99, 224, (16,)),
    "s2_mlp_v1_deep": (53_917_288, 10.46, 224, (16,)),
    "s2_mlp_v1_nano": (796_520, 0.04259, 32, (4,)),
    "s2_mlp_v2_small": (25_113_448, 6.90, 224, (7, 14)),
    "s2_mlp_v2_medium": (55_269_864, 16.28, 224, (7, 14)),
    "s2_mlp_v2_nano": (799_912, 0.05504, 32, (2, 4)),
    "vip_s14": (29_892_904, 6.86, 224, (14,)),
    "vip_s7": (25_114_984, 6.90, 224, (7, 14)),
    "vip_m7": (55_272_488, 16.28, 224, (7, 14)),
    "vip_l7": (87_784_936, 24.34, 224, (7, 14)),
    "vip_nano": (954_848, 0.04870, 32, (4,)),
    "hire_mlp_tiny": (18_041_672, 2.14, 224, (4, 8, 16, 32)),
    "hire_mlp_small": (33_113_848, 4.23, 224, (4, 8, 16, 32)),
    "hire_mlp_base": (58_226_856, 8.11, 224, (4, 8, 16, 32)),
    "hire_mlp_large": (95_723_944, 13.42, 224, (4, 8, 16, 32)),
    "hire_mlp_nano": (1_187_632, 0.03984, 32, (2, 4, 8)),
    "wave_mlp_t_star": (15_286_472, 2.16, 224, (4, 8, 16, 32)),
    "wave_mlp_t": (17_193_160, 2.46, 224, (4, 8, 16, 32)),
    "wave_mlp_s": (30_708_040, 4.52, 224, (4, 8, 16, 32)),
    "wave_mlp_m": (44_056_632, 7.87, 224, (4, 8, 16, 32)),
    "wave_mlp_b": (63_586_360, 10.22, 224, (4, 8, 16, 32)),
    "wave_mlp_nano": (1_146_256, 0.04646, 32, (2, 4, 8)),
    "as_mlp_t": (28_282_696, 4.35, 224, (4, 8, 16, 32)),
    "as_mlp_s": (49_594_696, 8.51, 224, (4, 8, 16, 32)),
    "as_mlp_b": (87_752_808, 15.13, 224, (4, 8, 16, 32)),
    "as_mlp_nano": (622_552, 0.04389, 32, (2, 4)),
    "resnet18": (11_689_512, 1.81, 224, (4, 8, 16, 32)),
    "resnet50": (25_557_032, 4.09, 224, (4, 8, 16, 32)),
    "vit_ti_16": (5_717_416, 1.26, 224, (16,)),
    "vit_s_16": (22_050_664, 4.6, 224, (16,)),
    "vit_b_16": (86_567_656, 17.6, 224, (16,)),
    "vit_b_32": (88_224_232, 4.41, 224, (32,)),
    "vit_b_32_clip": (88_225_000, 4.41, 224, (32,)),
    "vit_nano": (667_432, 0.04039, 32, (4,)),
    "swin_t": (28_288_354, 4.5, 224, (4, 8, 16, 32)),
    "swin_nano": (1_041_932, 0.03256, 32, (2, 4, 8)),
}
# Free-form names, whose default options are a published network's.
DEFAULTS = {
    "MlpMixer": "mlp_mixer_s16", "ConvMLP": "conv_mlp_s", "CycleMLP": "cycle_mlp_b1", "ResNet": "resnet50",
    "ConvMixer": "conv_mixer_1024_20", "ResMLP": "resmlp_s12", "GMLP": "gmlp_s16", "S2MLPv1": "s2_mlp_v1_wide",
    "S2MLPv2": "s2_mlp_v2_small", "ViP": "vip_s7", "HireMLP": "hire_mlp_tiny", "WaveMLP": "wave_mlp_t",
    "ASMLP": "as_mlp_t", "ViT": "vit_s_16", "Swin": "swin_t"}
ROWS.update({name: ROWS[published] for name, published in DEFAULTS.items()})
LIGHT = ("mlp_mixer_s16", "resnet18", "vit_ti_16")
# Families bound to the image size they are built for.
SIZE_BOUND = ("mlp", "resmlp", "gmlp", "vip", "vit")


def test_every_registered_backbone_has_a_row():
    assert sorted(ROWS) == sorted(list_backbones())


@pytest.mark.parametrize("name", slow_but(lambda name: name.endswith("_nano") or name in LIGHT, ROWS))
def test_sizes(name):
    parameters, gmacs, size, strides = ROWS[name]
    got = size_of(name)
    assert got["parameters"] == parameters
    assert got["macs"] / 1e9 == pytest.approx(gmacs, rel=0.01)
    assert got["img_size"] == (size, size)
    assert got["any_size"] is not name.lower().startswith(SIZE_BOUND)
    with shapes_only():
        backbone = build_backbone(name)
        backbone.eval()
        maps = backbone.feature_maps(paddle.static.data("images", [1, 3, size, size]))
        shapes = [tuple(m.shape) for m in maps]
    assert backbone.feature_strides == strides
    assert shapes == [
        (1, channels, size // stride, size // stride)
        for channels, stride in zip(backbone.feature_channels, strides)]
    assert paddle.in_dynamic_mode()


NANO = ["mlp_mixer_nano", "conv_mlp_nano", "cycle_mlp_nano"]


@pytest.mark.parametrize("name", slow_but(NANO, [*NANO, "mlp_mixer_s32", "conv_mlp_s", "cycle_mlp_b1", "resnet18"]))
def test_a_built_network_has_the_sizes_of_its_summary(name):
    backbone, size = build_backbone(name), ROWS[name][2]
    head = build_head({"name": "linear", "num_classes": 1000}, in_features=backbone.num_features)
    backbone.train()
    got = summary(name)
    assert count_parameters(backbone) + count_parameters(head) == got["parameters"]
    assert count_macs(backbone, size) + backbone.num_features * 1000 == got["macs"]
    assert backbone.training
    backbone.eval()
    features = backbone(paddle.zeros([1, 3, size, size])).numpy()
    assert features.shape == (1, backbone.num_features)
    assert numpy.isfinite(features).all()


def test_counts_of_one_small_mixer_by_hand():
    mixer = build_backbone({"name": "MlpMixer", "img_size": [8, 12], "patch_size": 4, "embed_dim": 10,
                            "num_blocks": 1})
    tokens, width, token_hidden, channel_hidden = 6, 10, 5, 40
    macs = 48 * width * tokens + 2 * tokens * token_hidden * width + 2 * width * channel_hidden * tokens
    assert count_macs(mixer) == macs
    mlps = 2 * tokens * token_hidden + tokens + token_hidden
    mlps += 2 * width * channel_hidden + width + channel_hidden
    assert count_parameters(mixer) == 48 * width + width + mlps + 3 * 2 * width


def test_list_backbones_takes_a_pattern():
    assert list_backbones("mlp_mixer_b*") == ["mlp_mixer_b32", "mlp_mixer_b16"]
    assert list_backbones("nothing") == []


def test_unknown_names_and_options_name_the_nearest():
    with pytest.raises(BadInput, match="did you mean 'mlp_mixer_b16'"):
        build_backbone("mlp_mixer_b61")
    with pytest.raises(BadInput, match="has no option 'dropath'; did you mean 'drop_path_rate'"):
        build_backbone({"name": "cycle_mlp_b1", "dropath": 0.1})
    with pytest.raises(BadInput, match="unknown backbone"):
        summary("resnet19")


@pytest.mark.slow
def test_the_page_of_models_is_what_the_registry_says():
    tool = runpy.run_path(str(Path(__file__).resolve().parents[2] / "tools" / "model_zoo.py"))
    assert tool["PAGE"].read_text(encoding="utf-8") == tool["page"](size_of), "run python tools/model_zoo.py"


def test_published_numbers_belong_to_registered_names():
    assert set(PUBLISHED_TOP1) <= set(list_backbones())
