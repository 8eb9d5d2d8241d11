"""What sets CLIP's image tower apart from DeiT's: the norm before the blocks, no bias in the stem, QuickGELU."""
import numpy as np
import paddle
import pytest

from passl_mixer import ops
from passl_mixer.backbones import build_backbone
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import LayerNorm
from passl_mixer.surgery.macs import count_parameters

SMALL = {"name": "ViT", "img_size": 8, "patch_size": 4, "embed_dim": 12, "num_blocks": 2, "num_heads": 3}
CLIP = {"act": "quick_gelu", "pre_norm": True, "stem_bias": False}


def build(**options):
    paddle.seed(0)
    vit = build_backbone({**SMALL, **options})
    vit.eval()
    return vit


def test_quick_gelu():
    x = np.linspace(-6, 6, 41).astype("float32")
    np.testing.assert_allclose(ops.activate(paddle.to_tensor(x), "quick_gelu").numpy(), x / (1 + np.exp(-1.702 * x)),
                               rtol=1e-5, atol=1e-6)


def test_parameters():
    plain = count_parameters(build())
    assert count_parameters(build(act="quick_gelu")) == plain
    assert count_parameters(build(pre_norm=True)) == plain + 2 * 12
    assert count_parameters(build(stem_bias=False)) == plain - 12
    assert build(**CLIP).stem.bias is None


def test_the_norm_stands_before_the_first_block():
    """Its input is the tokens with positions, its output what the first block sees."""
    vit = build(**CLIP)
    seen = {}
    vit.pre_norm.register_forward_pre_hook(lambda layer, inputs: seen.update(before=inputs[0].numpy()))
    vit.blocks[0].register_forward_pre_hook(lambda layer, inputs: seen.update(after=inputs[0].numpy()))
    images = paddle.rand([2, 3, 8, 8])
    with paddle.no_grad():
        vit(images)
        patches = vit.stem(images).flatten(2).transpose([0, 2, 1]).numpy()
    tokens = np.concatenate([np.broadcast_to(vit.class_token.numpy(), (2, 1, 12)), patches], axis=1)
    np.testing.assert_allclose(seen["before"], tokens + vit.position.numpy(), rtol=1e-5, atol=1e-6)
    spread = (seen["before"] - seen["before"].mean(-1, keepdims=True))
    np.testing.assert_allclose(seen["after"], spread / np.sqrt((spread ** 2).mean(-1, keepdims=True) + 1e-6),
                               rtol=1e-4, atol=1e-5)
    assert isinstance(vit.pre_norm, LayerNorm)


def test_every_option_changes_the_function():
    images = paddle.rand([1, 3, 8, 8])
    with paddle.no_grad():
        results = [build(**options)(images).numpy() for options in ({}, {"act": "quick_gelu"}, {"pre_norm": True})]
    assert all(np.abs(a - b).max() > 1e-5 for i, a in enumerate(results) for b in results[:i])


def test_an_unknown_activation_is_refused():
    with pytest.raises(BadInput, match="did you mean 'quick_gelu'"):
        build(act="quickgelu")
