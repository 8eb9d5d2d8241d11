"""What every family keeps: sizes, maps, gradients, drop path, programs."""
import numpy as np
import paddle
import pytest
from helpers.backbones import ANY_SIZE, FORMS, NANO, SMALL, known_options, random_parameters, small
from helpers.gradients import assert_every_parameter_learns
from helpers.marks import slow_but

from passl_mixer.backbones import build_backbone
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import DropPath
from passl_mixer.surgery.macs import count_parameters

# Strides and channels of the small networks' maps; whether the last one is normalised already.
MAPS = {
    "MlpMixer": ((8,), (16,), True), "ResMLP": ((8,), (16,), True), "GMLP": ((8,), (16,), True),
    "ConvMixer": ((8,), (16,), True), "ConvMLP": ((8, 16), (8, 16), False), "CycleMLP": ((4, 8), (8, 13), False),
    "HireMLP": ((4, 8), (8, 12), False), "WaveMLP": ((4, 8), (8, 12), False), "S2MLPv1": ((8,), (16,), True),
    "S2MLPv2": ((2, 4), (8, 12), False), "ViP": ((4, 8), (12, 18), False), "ASMLP": ((2, 4), (10, 20), False),
    "ViT": ((8,), (12,), True), "Swin": ((2, 4), (8, 16), False),
    "ResNet": ((1, 2, 4, 8), (64, 128, 256, 512), True),
}
# What a small registered network says of an image size that it cannot be built for.
REFUSED = {("vip_nano", 36): "img_size 36 x 36 does not fit ViP .*sizes near it that fit: 16, 28, 32, 56"}
NO_EFFECT = ("phase.map.bias",)      # a bias before a BatchNorm


def name_of(value):
    return value if isinstance(value, str) else "-".join(map(str, value.values())) if isinstance(value, dict) else None


def nano(name, size=32, **options):
    return build_backbone({"name": name, **known_options(name, img_size=size), **options})


def shape_of(name, **options):
    """Image sides for a small network: not square where it takes that."""
    height, width = (16, 16) if name == "ViP" else (16, 24)
    return [height, width], {**known_options(name, img_size=[height, width]), **options}


def test_every_family_is_here():
    assert list(MAPS) == list(SMALL)
    assert {"mlp_mixer_nano", "vit_nano", "swin_nano"} <= set(NANO)
    assert len(NANO) == len(SMALL) - 1      # of ResNet there is none


@pytest.mark.parametrize("size", [28, 32, 36])
@pytest.mark.parametrize("name", NANO)
def test_small_registered_networks_take_small_images(name, size):
    if (name, size) in REFUSED:
        with pytest.raises(BadInput, match=REFUSED[name, size]):
            nano(name, size)
        return
    backbone = nano(name, size)
    backbone.eval()
    assert backbone.img_size in (None, (size, size))
    assert 300_000 <= count_parameters(backbone) <= 1_500_000
    images = paddle.randn([2, 3, size, size])
    assert backbone(images).shape == [2, backbone.num_features]
    maps = backbone.feature_maps(images)
    assert isinstance(maps, list)
    assert len(maps) == len(backbone.feature_strides)
    assert [m.shape for m in maps] == [[2, channels, *[-(-size // stride)] * 2] for channels, stride in
                                       zip(backbone.feature_channels, backbone.feature_strides)]
    if backbone.img_size:
        with pytest.raises(BadInput, match=f"40 x 40 pixels.*img_size {size} x {size}"):
            backbone(paddle.zeros([1, 3, 40, 40]))


@pytest.mark.parametrize(("name", "options"), FORMS, ids=name_of)
def test_features_are_the_mean_of_the_last_map_and_images_do_not_mix(name, options):
    size, options = shape_of(name, **options)
    backbone = random_parameters(small(name, **options))
    images = paddle.randn([3, 3, *size])
    features, maps = backbone(images), backbone.feature_maps(images)
    strides, channels, normalised = MAPS[name]
    assert (backbone.feature_strides, backbone.feature_channels) == (strides, channels)
    assert [m.shape for m in maps] == [[3, chans, *(-(-side // stride) for side in size)]
                                       for chans, stride in zip(channels, strides)]
    largest = float(features.abs().max())
    assert float((backbone(images[1:2]) - features[1:2]).abs().max()) < 1e-5 * largest
    last = maps[-1].transpose([0, 2, 3, 1])
    pooled = (last if normalised else backbone.norm(last)).mean(axis=[1, 2])
    if name != "ViT" or options.get("pool") == "mean":      # else its class token
        assert float((pooled - features).abs().max()) < 1e-5 * largest


@pytest.mark.parametrize("size", [(28, 36), (33, 47), (64, 32), (7, 5)])
@pytest.mark.parametrize(("name", "options"), [form for form in FORMS if form[0] in ANY_SIZE], ids=name_of)
def test_size_free_families_take_any_size(name, options, size):
    backbone = small(name, **options, **({"patch_size": 4} if name == "ConvMixer" else {}))
    images = paddle.randn([1, 3, *size])
    assert backbone.img_size is None
    assert backbone(images).shape == [1, backbone.num_features]
    maps = backbone.feature_maps(images)
    assert tuple(m.shape[1] for m in maps) == backbone.feature_channels
    for feature_map, stride in zip(maps, backbone.feature_strides):
        assert all(abs(got - side / stride) <= 1 for got, side in zip(feature_map.shape[2:], size))
        if name == "ConvMixer":
            assert feature_map.shape[2:] == [side // stride for side in size]
        elif name == "Swin":
            assert feature_map.shape[2:] == [-(-side // stride) for side in size]


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in NANO), *FORMS], ids=name_of)
def test_every_parameter_learns(name, options):
    """The small networks from images of four channels; in both, no block is left out at random."""
    paddle.seed(0)
    if name in SMALL:
        options = {"in_chans": 4, **known_options(name, drop_path_rate=0.0), **options}
    backbone, size = (small(name, **options), 16) if name in SMALL else (nano(name), 32)
    backbone.train()
    images = paddle.randn([4, backbone.in_chans, size, size])
    assert_every_parameter_learns(backbone, backbone(images), without=NO_EFFECT)


@pytest.mark.parametrize("in_chans", [1, 4])
@pytest.mark.parametrize("name", SMALL)
def test_other_channel_counts(name, in_chans):
    backbone = small(name, in_chans=in_chans)
    assert backbone(paddle.randn([1, in_chans, 16, 16])).shape == [1, backbone.num_features]
    with pytest.raises(BadInput, match=rf"expected \[B, {in_chans}, H, W\]"):
        backbone(paddle.zeros([1, 3, 16, 16]))


FIVE = [0.0, 0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(("name", "options", "rates"), [
    ("MlpMixer", {"num_blocks": 5}, FIVE), ("ResMLP", {"num_blocks": 3}, [0.3] * 3),
    ("GMLP", {"num_blocks": 3}, [0.3] * 3), ("ConvMixer", {}, []),
    ("ConvMLP", {"embed_dims": [8, 16, 16], "depths": [2, 3, 1], "mlp_ratios": [2, 2, 2]},
     [0.0, 0.4, 0.0, 0.2, 0.4, 0.0]),                                   # starts again in every stage
    ("CycleMLP", {"depths": [2, 3]}, FIVE),
    ("HireMLP", {"depths": [3, 2]}, FIVE), ("WaveMLP", {"depths": [2, 3]}, FIVE),
    ("WaveMLP", {"depths": [2, 3], "norms": ["group", "group"]}, FIVE), ("S2MLPv1", {"num_blocks": 5}, FIVE),
    ("S2MLPv2", {"depths": [2, 3]}, FIVE), ("ViP", {"depths": [2, 3]}, FIVE), ("ASMLP", {"depths": [2, 3]}, FIVE),
    ("ViT", {"num_blocks": 3}, [0.0, 0.2, 0.4]), ("Swin", {"depths": [3, 2]}, FIVE), ("ResNet", {}, []),
], ids=name_of)
def test_drop_path_rises_over_the_blocks_and_acts_in_training_only(name, options, rates):
    backbone = small(name, training=True, **options, **({"drop_path_rate": max(rates)} if rates else {}))
    assert [layer.rate for layer in backbone.sublayers() if isinstance(layer, DropPath)] == pytest.approx(rates)
    images = 10 * paddle.randn([8, 3, 16, 16])
    assert (float((backbone(images) - backbone(images)).abs().max()) > 1e-4) == bool(rates)
    backbone.eval()
    assert float((backbone(images) - backbone(images)).abs().max()) == 0


@pytest.mark.parametrize(("name", "options", "size"), slow_but(lambda case: case[0] == "ConvMixer", [
    ("ConvMixer", {"patch_size": 4}, (17, 12)), ("S2MLPv1", {"patch_size": 4}, (16, 12)), ("S2MLPv2", {}, (16, 12))]))
def test_an_exported_program_takes_other_sizes(name, options, size, tmp_path):
    backbone, images = small(name, **options), paddle.randn([2, 3, *size])
    expected = backbone(images).numpy()
    spec = [paddle.static.InputSpec([None, 3, None, None])]
    paddle.jit.save(paddle.jit.to_static(backbone, input_spec=spec, full_graph=True), str(tmp_path / "net"))
    np.testing.assert_allclose(paddle.jit.load(str(tmp_path / "net"))(images).numpy(), expected, atol=1e-5)
