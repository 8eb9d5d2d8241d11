"""ViT against its equations in slow loops, its symmetry; what sets CLIP's image tower apart."""
import numpy
import paddle
import pytest
from helpers.backbones import random_parameters, small
from helpers.definitions import attention, gelu, layer_norm, linear

from passl_mixer import ops
from passl_mixer.backbones.vit import VitBlock
from passl_mixer.layers.basic import LayerNorm
from passl_mixer.surgery.macs import count_macs, count_parameters

OPTIONS = {"img_size": [8, 12], "patch_size": 4, "mlp_ratio": 2}


def test_a_block_follows_the_equations():
    block = VitBlock(6, num_heads=2, mlp_ratio=1.5, drop_path=0.0)
    random_parameters(block, 0, 0.3, 0.5)
    x = numpy.random.default_rng(1).normal(size=(2, 5, 6))
    expected = []
    for image in x:
        image = image + attention(block.attention, layer_norm(block.norm1, image, 1e-6))
        hidden = linear(block.mlp.fc1, layer_norm(block.norm2, image, 1e-6))
        expected.append(image + linear(block.mlp.fc2, gelu(hidden)))
    got = block(paddle.to_tensor(x.astype("float32"))).numpy()
    numpy.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * numpy.abs(expected).max())


def test_tokens_are_the_class_token_and_the_patches_in_rows():
    vit = random_parameters(small("ViT", **OPTIONS, num_blocks=1), 2, 0.3, 0.5)
    seen = []
    vit.blocks[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].numpy()))
    images = paddle.randn([2, 3, 8, 12])
    vit(images)
    kernel = vit.stem.weight.numpy()
    expected = [vit.class_token.numpy()[0, 0]]
    for y in (0, 4):
        for x in (0, 4, 8):
            patch = images.numpy()[1, :, y:y + 4, x:x + 4]
            expected.append((kernel * patch).sum(axis=(1, 2, 3)) + vit.stem.bias.numpy())
    expected = numpy.stack(expected) + vit.position.numpy()[0]
    numpy.testing.assert_allclose(seen[0][1], expected, rtol=1e-4, atol=1e-4)


def test_pools():
    token, mean = small("ViT", **OPTIONS), small("ViT", **OPTIONS, pool="mean")
    mean.set_state_dict(token.state_dict())
    images = paddle.randn([2, 3, 8, 12])
    features, maps = mean(images), mean.feature_maps(images)
    assert maps[0].shape == [2, 12, 2, 3]
    assert float((maps[0].mean(axis=[2, 3]) - features).abs().max()) < 1e-6
    assert float((token(images) - token.tokens(images)[:, 0]).abs().max()) == 0
    assert float((token(images) - features).abs().max()) > 1e-2


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_without_positions_patches_may_be_permuted(pool):
    vit = random_parameters(small("ViT", **OPTIONS, pool=pool), 3, 0.3, 0.5)
    order = [4, 0, 5, 2, 1, 3]
    patches = paddle.randn([2, 6, 3, 4, 4])

    def image(parts):  # six patches in two rows of three
        return parts.reshape([2, 2, 3, 3, 4, 4]).transpose([0, 3, 1, 4, 2, 5]).reshape([2, 3, 8, 12])

    def run(parts):
        return vit(image(parts)), vit.feature_maps(image(parts))[0].flatten(2)

    permuted = paddle.stack([patches[:, i] for i in order], axis=1)
    with_positions = float((run(patches)[0] - run(permuted)[0]).abs().max())
    vit.position.set_value(paddle.zeros_like(vit.position))
    (features, maps), (features_p, maps_p) = run(patches), run(permuted)
    assert float((features - features_p).abs().max()) < 1e-4 < with_positions
    numpy.testing.assert_allclose(maps_p.numpy(), maps.numpy()[:, :, order], rtol=1e-3, atol=1e-4)


def test_counts_by_hand():
    tokens, width, hidden = 7, 12, 24
    macs = 48 * width * 6 + 2 * (4 * width * width * tokens + 2 * tokens * tokens * width + 2 * width * hidden * tokens)
    assert count_macs(small("ViT", **OPTIONS)) == macs
    block = 3 * width * (width + 1) + width * (width + 1) + width * hidden * 2 + width + hidden + 4 * width
    assert count_parameters(small("ViT", **OPTIONS)) == 49 * width + width + tokens * width + 2 * block + 2 * width


def test_drop_path_drops_both_branches():
    paddle.seed(0)
    vit = small("ViT", **OPTIONS, training=True, num_blocks=3, drop_path_rate=0.4)
    block = vit.blocks[2]
    x = paddle.randn([400, 2, 12])
    kept = (block(x) - x).abs().max(axis=[1, 2]) > 0
    assert float(kept.astype("float32").mean()) == pytest.approx(1 - 0.4 ** 2, abs=0.06)  # two branches


# CLIP's image tower: the norm before the blocks, no bias in the stem, QuickGELU
CLIP = {"act": "quick_gelu", "pre_norm": True, "stem_bias": False}


def test_quick_gelu():
    x = numpy.linspace(-6, 6, 41).astype("float32")
    y = ops.activate(paddle.to_tensor(x), "quick_gelu")
    numpy.testing.assert_allclose(y.numpy(), x / (1 + numpy.exp(-1.702 * x)),
                                  rtol=1e-5, atol=1e-6)


def test_parameters():
    plain = count_parameters(small("ViT"))
    assert count_parameters(small("ViT", act="quick_gelu")) == plain
    assert count_parameters(small("ViT", pre_norm=True)) == plain + 2 * 12
    assert count_parameters(small("ViT", stem_bias=False)) == plain - 12
    assert small("ViT", **CLIP).stem.bias is None


def test_the_norm_stands_before_the_first_block():
    """Its input is the tokens with positions, its output what the first block sees."""
    vit = small("ViT", **CLIP)
    seen = {}
    vit.pre_norm.register_forward_pre_hook(lambda layer, inputs: seen.update(before=inputs[0].numpy()))
    vit.blocks[0].register_forward_pre_hook(lambda layer, inputs: seen.update(after=inputs[0].numpy()))
    images = paddle.rand([2, 3, 16, 16])
    with paddle.no_grad():
        vit(images)
        patches = vit.stem(images).flatten(2).transpose([0, 2, 1]).numpy()
    tokens = numpy.concatenate([numpy.broadcast_to(vit.class_token.numpy(), (2, 1, 12)), patches], axis=1)
    numpy.testing.assert_allclose(seen["before"], tokens + vit.position.numpy(), rtol=1e-5, atol=1e-6)
    spread = (seen["before"] - seen["before"].mean(-1, keepdims=True))
    numpy.testing.assert_allclose(seen["after"], spread / numpy.sqrt((spread ** 2).mean(-1, keepdims=True) + 1e-6),
                                  rtol=1e-4, atol=1e-5)
    assert isinstance(vit.pre_norm, LayerNorm)


def test_every_option_changes_the_function():
    images = paddle.rand([1, 3, 16, 16])
    with paddle.no_grad():
        results = [small("ViT", **options)(images).numpy() for options in
                   ({}, {"act": "quick_gelu"}, {"pre_norm": True})]
    assert all(numpy.abs(a - b).max() > 1e-5 for i, a in enumerate(results) for b in results[:i])
