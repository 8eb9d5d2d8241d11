"""Maps at strides 4 to 32 from every kind of backbone."""
import numpy as np
import paddle
import pytest
from helpers.gradients import assert_every_parameter_learns

from passl_mixer import Pyramid, build_backbone
from passl_mixer.errors import BadInput

pytestmark = pytest.mark.filterwarnings("ignore:When training, we now always track")

MIXER = {"name": "MlpMixer", "img_size": 64, "patch_size": 16, "embed_dim": 24, "num_blocks": 1}
CYCLE = {"name": "CycleMLP", "embed_dims": [8, 12, 16, 20], "depths": [1, 1, 1, 1], "mlp_ratios": [2, 2, 2, 2]}
CONV = {"name": "ConvMLP", "stem_channels": 8, "num_conv_blocks": 1, "embed_dims": [8, 12, 16], "depths": [1, 1, 1],
        "mlp_ratios": [2, 2, 2]}


def built(cfg, **options):
    paddle.seed(0)
    pyramid = Pyramid(build_backbone(cfg), **options)
    pyramid.eval()
    return pyramid


@pytest.mark.parametrize(("cfg", "size", "strides", "channels"), [
    (MIXER, (64, 64), (4, 8, 16, 32), (6, 12, 24, 24)),
    ({**MIXER, "patch_size": 32}, (64, 64), (4, 8, 16, 32), (3, 6, 12, 24)),
    ({**MIXER, "patch_size": 4}, (64, 64), (4, 8, 16, 32), (24, 24, 24, 24)),
    ({**MIXER, "img_size": [28, 42], "patch_size": 14}, (28, 42), (3.5, 7, 14, 28), (6, 12, 24, 24)),
    (CYCLE, (64, 96), (4, 8, 16, 32), (8, 12, 16, 20)),
    ({**CYCLE, "stem_stride": 2}, (64, 64), (4, 8, 16, 32), (12, 16, 20, 20)),
    (CONV, (64, 64), (4, 8, 16, 32), (4, 8, 12, 16)),
    ({"name": "ResNet", "depth": 18}, (64, 64), (4, 8, 16, 32), (64, 128, 256, 512)),
])
def test_strides_and_channels(cfg, size, strides, channels):
    pyramid = built(cfg)
    assert pyramid.feature_strides == strides
    assert pyramid.feature_channels == channels
    maps = pyramid(paddle.randn([2, 3, *size]))
    assert [tuple(m.shape) for m in maps] == [
        (2, width, *(-(-side // stride) for side in size)) for width, stride in zip(channels, strides)]


@pytest.mark.parametrize("cfg", [CYCLE, CONV])
@pytest.mark.parametrize("size", [(33, 47), (28, 36), (7, 5)])
def test_odd_sizes_leave_no_map_empty(cfg, size):
    assert all(min(m.shape) > 0 for m in built(cfg)(paddle.randn([1, 3, *size])))
    assert all(min(m.shape) > 0 for m in built({**cfg, "stem_stride": 2})(paddle.randn([1, 3, *size])))


def test_without_norm_a_pyramid_of_stages_is_their_maps():
    pyramid = built(CYCLE, norm=False)
    images = paddle.randn([2, 3, 64, 64])
    for got, want in zip(pyramid(images), pyramid.backbone.feature_maps(images)):
        np.testing.assert_array_equal(got.numpy(), want.numpy())


def test_the_norm_is_over_the_channels_of_a_position():
    for feature_map in built(MIXER)(paddle.randn([2, 3, 64, 64])):
        moments = feature_map.numpy().astype("float64")
        assert np.abs(moments.mean(axis=1)).max() < 1e-5
        assert np.abs(moments.var(axis=1) - 1).max() < 1e-2


def test_steps_of_a_single_stride_family_by_hand():
    pyramid = built(MIXER, norm=False)
    images = paddle.randn([1, 3, 64, 64])
    tokens = pyramid.backbone.feature_maps(images)[0].numpy()
    got = [m.numpy() for m in pyramid(images)]
    np.testing.assert_array_equal(got[2], tokens)
    np.testing.assert_array_equal(got[3], tokens.reshape([1, 24, 2, 2, 2, 2]).max(axis=(3, 5)))
    up = pyramid.scales[1][0]                                    # weight [in, out, 2, 2]: every position fills a 2 x 2
    want = np.einsum("bihw,iokl->bohkwl", tokens, up.weight.numpy()).reshape([1, 12, 8, 8])
    np.testing.assert_allclose(got[1], want + up.bias.numpy()[:, None, None], atol=1e-5)
    assert [type(layer).__name__ for layer in pyramid.scales[0]] == [
        "Conv2DTranspose", "ChannelNorm", "GELU", "Conv2DTranspose"]


def test_a_choice_of_maps_and_their_gradients():
    pyramid = built(MIXER, out_indices=[2, 0])
    pyramid.train()
    maps = pyramid(paddle.randn([2, 3, 64, 64]))
    assert pyramid.feature_strides == (16, 4)
    assert_every_parameter_learns(pyramid, *maps)


@pytest.mark.parametrize(("cfg", "options", "words"), [
    (MIXER, {"out_indices": [0, 4]}, "distinct indices from 0 to 3"), (MIXER, {"out_indices": []}, "distinct indices"),
    (MIXER, {"out_indices": [1, 1]}, "distinct indices"),
    ({**MIXER, "embed_dim": 3}, {}, "halves the 3 channels of the backbone's map 2 times")])
def test_what_makes_no_pyramid(cfg, options, words):
    with pytest.raises(BadInput, match=words):
        built(cfg, **options)
