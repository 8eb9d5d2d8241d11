"""CLIP's text transformer: its size, its equations in slow loops, causality, initial weights, refusals."""
import math

import numpy as np
import paddle
import pytest
from helpers.definitions import attention, layer_norm, linear

from passl_mixer.errors import BadInput
from passl_mixer.methods.text_tower import TextTransformer
from passl_mixer.ops.shapes import shapes_only

EOT = 10
OPTIONS = {"vocab_size": 11, "context_length": 7, "width": 6, "num_layers": 2, "num_heads": 3, "out_features": 5}
IDS = [[9, 2, 3, EOT, 0, 0, 0], [9, 4, 1, 5, 6, 7, EOT], [9, EOT, 0, 0, 0, 0, 0]]


def small(**options):
    paddle.seed(0)
    return TextTransformer(**{**OPTIONS, **options})


def embed(tower, rows):
    with paddle.no_grad():
        return tower(paddle.to_tensor(np.array(rows, "int32"))).numpy()


def counted(**options):
    with shapes_only():
        return sum(math.prod(p.shape) for p in TextTransformer(**options).parameters())


def test_parameters_of_the_published_text_tower():
    """CLIP ViT-B/32: 49,408 tokens, 77 of them, 12 blocks of width 512, projected to 512."""
    width, hidden = 512, 2048
    block = 2 * 2 * width + 4 * width * (width + 1) + width * hidden + hidden + hidden * width + width
    expected = 49408 * width + 77 * width + 12 * block + 2 * width + width * 512
    assert counted(vocab_size=49408, out_features=512) == expected == 63_428_096


ACTIVATIONS = {"quick_gelu": lambda v: v / (1 + math.exp(-1.702 * v)),
               "gelu": lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2)))}


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_it_follows_its_equations(act):
    tower = small(act=act)
    draw = np.random.default_rng(0)
    for parameter in tower.parameters():
        parameter.set_value(draw.normal(0.2, 0.5, parameter.shape).astype("float32"))
    expected = []
    for ids in IDS:
        ids = ids[:ids.index(EOT) + 1]
        x = tower.token.weight.numpy()[ids].astype("float64") + tower.places.numpy()[:len(ids)]
        for block in tower.blocks:
            x = x + attention(block.attention, layer_norm(block.norm1, x), causal=True)
            hidden = linear(block.fc1, layer_norm(block.norm2, x))
            x = x + linear(block.fc2, np.vectorize(ACTIVATIONS[act])(hidden))
        expected.append(layer_norm(tower.norm, x)[-1] @ tower.projection.weight.numpy())
    np.testing.assert_allclose(embed(tower, IDS), expected, rtol=2e-4, atol=2e-5)


def test_what_stands_behind_the_end_does_not_matter_and_all_before_does():
    tower = small()
    first = embed(tower, [IDS[0]])
    assert np.array_equal(embed(tower, [[9, 2, 3, EOT, 5, EOT, 8]]), first)
    np.testing.assert_allclose(embed(tower, [[9, 2, 3, EOT]]), first, rtol=1e-5, atol=1e-6)  # a shorter batch
    for changed in ([8, 2, 3, EOT], [9, 1, 3, EOT], [9, 2, 4, EOT], [9, 3, 2, EOT], [9, 2, 3, 3, EOT]):
        assert np.abs(embed(tower, [changed]) - first).max() > 1e-3


def test_captions_of_a_batch_do_not_meet():
    tower = small()
    together, alone = embed(tower, IDS), np.concatenate([embed(tower, [ids]) for ids in IDS])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


def test_every_parameter_learns_from_both_kinds_of_integers():
    gradients = []
    for kind in ("int32", "int64"):
        tower = small()
        (tower(paddle.to_tensor(np.array(IDS, kind))) * paddle.arange(5.0)).sum().backward()
        gradients.append({n: p.grad.numpy() for n, p in tower.named_parameters()})
    assert all(np.array_equal(gradients[0][n], gradients[1][n]) for n in gradients[0])
    assert [n for n, g in gradients[0].items() if not np.abs(g).max() > 0] == []
    untouched = gradients[0]["token.weight"][8]  # a token of no caption
    assert not untouched.any()


def test_initial_weights():
    tower = small(vocab_size=500, context_length=100, width=128, num_layers=2, num_heads=2, out_features=64)
    block = tower.blocks[1]
    inner = 128 ** -0.5 * 4 ** -0.5
    for weight, std in ((tower.token.weight, 0.02), (tower.places, 0.01), (block.attention.qkv.weight, 128 ** -0.5),
                        (block.attention.proj.weight, inner), (block.fc1.weight, 256 ** -0.5),
                        (block.fc2.weight, inner), (tower.projection.weight, 128 ** -0.5)):
        assert float(weight.std()) == pytest.approx(std, rel=0.05)
        assert abs(float(weight.mean())) < 0.05 * std
    assert float(block.attention.qkv.bias.abs().max()) == float(block.attention.proj.bias.abs().max()) == 0
    for layer, fan_in in ((block.fc1, 128), (block.fc2, 512)):
        bound = fan_in ** -0.5
        assert 0.9 * bound < float(layer.bias.abs().max()) <= bound
    assert tower.projection.bias is None


@pytest.mark.parametrize(("options", "said"), [
    ({"num_heads": 4}, "num_heads 4 does not divide the width 6"),
    ({"vocab_size": 0}, "vocab_size is 0"),
    ({"num_layers": 0}, "num_layers is 0"),
    ({"act": "quick_glu"}, "did you mean 'quick_gelu'"),
])
def test_options_that_do_not_fit(options, said):
    with pytest.raises(BadInput, match=said):
        small(**options)


@pytest.mark.parametrize(("rows", "said"), [
    ([[9, 1, 2, 3, 4, 5, 6, EOT]], r"shape \[1, 8\], expected \[B, at most 7\]"),
    ([9, EOT], r"shape \[2\]"),
    ([[9, EOT], [9, 1]], "no end mark 10"),
])
def test_tokens_that_do_not_fit(rows, said):
    with pytest.raises(BadInput, match=said):
        embed(small(), rows)
