"""Options and images that a family cannot take, and the words it says then."""
import paddle
import pytest
from helpers.backbones import small

from passl_mixer.errors import BadInput

DROP_ALL = ({"drop_path_rate": 1.0}, "drop_path_rate is 1.0")
NO_BLOCKS = ({"num_blocks": 0}, "num_blocks is 0")
NEAR_TANH = ({"act": "gelu_tan"}, "did you mean 'gelu_tanh'")
NO_IMG_SIZE = ({"img_size": 32}, "has no option 'img_size'")
PATCHES = [({"img_size": 30}, r"30 x 30 is not a multiple of patch_size 8; change img_size \(to 32 x 32, say\)"),
           ({"img_size": [32, 3]}, r"32 x 3 is not.*\(to 32 x 8, say\)"), NO_BLOCKS, DROP_ALL, NEAR_TANH]
STAGES = [({"depths": [1]}, "depths has 1"), ({"embed_dims": [3, 8]}, "at least 4"),
          ({"embed_dims": [4, 8], "mlp_ratios": [0.1, 1]}, "no hidden unit"), ({"stem_stride": 8}, "stem_stride is 8"),
          DROP_ALL]
OPTIONS = {
    "MlpMixer": [
        *PATCHES, ({"img_size": [32, 32, 3]}, "expected one positive integer or"),
        ({"img_size": "32"}, "expected an integer or a list of an integer"), ({"mlp_ratio": [4.0]}, "expected a pair"),
        ({"mlp_ratio": [0.01, 4.0]}, "no hidden unit"), ({"dropath": 1}, "has no option 'dropath'")],
    "ResMLP": [*PATCHES, ({"mlp_ratio": 0.05}, "mlp_ratio 0.05"), ({"layer_scale_init": 0.0}, "layer_scale_init is 0")],
    "GMLP": [*PATCHES, ({"mlp_ratio": 0.05}, "mlp_ratio 0.05"),
             ({"embed_dim": 9, "mlp_ratio": 3}, "gives 27 hidden channels, expected an even number")],
    "ConvMixer": [
        ({"kernel_size": 4}, "kernel_size is 4, expected an odd number; take 3 or 5"),
        ({"patch_size": 0}, "patch_size is 0"), NO_BLOCKS, ({"act": "rellu"}, "did you mean 'relu'"),
        ({"drop_path_rate": 0.1}, "has no option 'drop_path_rate'")],
    "ConvMLP": [
        ({"depths": [1]}, "embed_dims has 2, depths has 1, mlp_ratios has 2"), ({"stem_stride": 3}, "stem_stride is 3"),
        ({"stem_channels": 7}, "stem_channels 7"), NO_IMG_SIZE],
    "CycleMLP": [
        ({"mlp_ratios": [4, 4, 4]}, "mlp_ratios has 3"), ({"embed_dims": [2, 8]}, "at least 4"),
        ({"embed_dims": [], "depths": [], "mlp_ratios": []}, "embed_dims is"),
        ({"stem_stride": 8}, "stem_stride is 8")],
    "HireMLP": [
        *STAGES, ({"region_sizes": [2]}, "region_sizes has 1"), ({"shifts": [[0], [0], [0]]}, "shifts has 3"),
        ({"shifts": [[0], []]}, r"shifts is \[\[0\], \[\]\]"),
        ({"shifts": [[0], [-1]]}, r"0 \(no shift\) or above"),
        ({"shifts": [0, 1]}, "expected a list of a list of an integer"), ({"region_sizes": [2, 0]}, "region_sizes is")],
    "WaveMLP": [
        *STAGES, *(({**options, "norms": ["group", "group"]}, words) for options, words in STAGES),
        ({"phase": "depth"}, "unknown phase 'depth'.*did you mean 'depthwise'"),
        ({"norms": ["batch"]}, "expected a pair"),
        ({"norms": ["none", "batch"]}, r"norms is \['none', 'batch'\]"),
        ({"norms": ["group", "layer"]}, "'batch', 'group' or 'none'")],
    "S2MLPv1": [
        ({"embed_dim": 10}, "embed_dim is 10, expected multiples of 4 .*; take 8 or 12 for 10"),
        ({"embed_dim": 3}, "take 4 for 3"), ({"mlp_ratio": 0.01}, "no hidden unit at embed_dim 16"),
        NEAR_TANH, DROP_ALL],
    "S2MLPv2": [
        ({"embed_dims": [8, 14]}, r"embed_dims is \[8, 14\].*take 12 or 16 for 14"),
        ({"depths": [1]}, "patch_sizes has 2, embed_dims has 2, depths has 1 entries"),
        ({"patch_sizes": [2, 0]}, "patch_sizes is"), NO_IMG_SIZE],
    "ViP": [
        ({"img_size": 30}, r"img_size 30 x 30 does not fit.*sizes near it that fit: 8, 16, 24, 48"),
        ({"img_size": [24, 16]}, "square images"), ({"img_size": 28}, "halved at every transition"),
        ({"img_size": 24, "embed_dims": [12, 16]}, "divide the width of each stage; sizes near it that fit: 8, 16$"),
        ({"img_size": 24, "embed_dims": [5, 7], "patch_size": 8}, "no size fits; change embed_dims"),
        ({"img_size": 24, "segment_dims": [6, 6]}, r"segment_dims is \[6, 6\].*\[6, 3\] patches in a row"),
        ({"segment_dims": [6]},
         "embed_dims has 2, depths has 2, transitions has 2, mlp_ratios has 2, segment_dims has 1"),
        ({"transitions": [True]}, "transitions has 1"), ({"depths": [1, 1, 1]}, "depths has 3"),
        ({"embed_dims": [12]}, "embed_dims has 1"), ({"transitions": [True, True]}, "false for the last stage"),
        ({"transitions": [1, 0]}, "expected a list of true or false"), ({"embed_dims": [3, 3]}, "at least 4"),
        ({"patch_size": 0}, "patch_size is 0"), DROP_ALL],
    "ASMLP": [
        ({"shift_size": 4}, "shift_size is 4.*expected odd"), ({"shift_size": 0}, "shift_size is 0"),
        ({"mlp_ratio": 0.01}, "at least one hidden unit"), ({"depths": []}, "depths is"),
        ({"depths": [2, 0]}, "depths is"),
        ({"embed_dim": 0}, "embed_dim is 0"), ({"embed_dim": "96"}, "expected an integer"), DROP_ALL, NO_IMG_SIZE],
    "ViT": [
        ({"num_heads": 5}, "num_heads 5 does not divide the width 12"), ({"pool": "men"}, "did you mean 'mean'"),
        ({"img_size": 30}, "30 x 30 is not a multiple of patch_size 8"), ({"num_heads": 0}, "num_heads is 0"),
        ({"mlp_ratio": 0.01}, "no hidden unit"), DROP_ALL, ({"depth": 3}, "has no option 'depth'"),
        ({"act": "quickgelu"}, "did you mean 'quick_gelu'")],
    "Swin": [
        ({"num_heads": [2, 5]}, "num_heads 5 does not divide the width 16"),
        ({"depths": [2]}, "depths has 1, num_heads has 2"),
        ({"window_size": 0}, "window_size is 0"), ({"depths": [], "num_heads": []}, "depths is"),
        ({"mlp_ratio": 0.01}, "no hidden unit"), NO_IMG_SIZE],
    "ResNet": [({"depth": 20}, "depth is 20"), ({"stem": "cifar10"}, "did you mean 'cifar'")],
}
AS_MLP = "{} pixels.*multiples of its largest stride, 4: {}, say"
S2 = "{} pixels, expected multiples of 4; {} fit"
IMAGES = [
    ("MlpMixer", {}, (28, 28), "28 x 28 pixels.*img_size 16 x 16"),
    ("ViT", {"img_size": [8, 16]}, (16, 8), "16 x 8 pixels.*img_size 8 x 16"),
    ("ViP", {}, (32, 32), "32 x 32 pixels.*img_size 16 x 16"),
    ("ConvMixer", {"patch_size": 4}, (3, 9), "3 x 9 pixels, smaller than a patch; give images of at least 4 x 4"),
    ("ASMLP", {}, (30, 32), AS_MLP.format("30 x 32", "28 x 32 or 32 x 32")),
    ("ASMLP", {}, (3, 8), AS_MLP.format("3 x 8", "4 x 8")),
    ("ASMLP", {}, (17, 9), AS_MLP.format("17 x 9", "16 x 8 or 20 x 12")),
    *((name, options, size, S2.format(*words)) for name, options in (("S2MLPv1", {"patch_size": 4}), ("S2MLPv2", {}))
      for size, words in (((30, 16), ("30 x 16", "28 x 16 and 32 x 20")), ((3, 2), ("3 x 2", "4 x 4 and 4 x 4")))),
]


@pytest.mark.parametrize(("name", "options", "words"), [(name, *row) for name, rows in OPTIONS.items() for row in rows])
def test_options_that_do_not_fit(name, options, words):
    with pytest.raises(BadInput, match=words):
        small(name, **options)


@pytest.mark.parametrize(("name", "options", "size", "words"), IMAGES)
def test_images_that_do_not_fit(name, options, size, words):
    with pytest.raises(BadInput, match=words):
        small(name, **options)(paddle.zeros([1, 3, *size]))
