"""What the kernels cannot compute is the reference's: Paddle's own error, or its answer; each in a process of its own.

All of it ended the process, or gave numbers read outside of a tensor, before ``choose`` looked at types and shapes.
"""
import json
import os
import subprocess
import sys

import numpy as np
import paddle
import pytest

PADDLE_2 = paddle.__version__.startswith("2.")
BEGIN = """
import warnings
warnings.simplefilter("ignore")
import numpy as np, paddle
paddle.set_device("cpu")
from passl_mixer import build_backbone
from passl_mixer.layers.basic import LayerNorm, Linear, TokenLinear
from passl_mixer.layers.batch_norm import BatchNorm2D
from passl_mixer.layers.convolution import Conv2D
from passl_mixer.layers.group_norm import GroupNorm1

def network(name, **options):
    paddle.seed(0)
    return build_backbone({"name": name, **options})

def resnet():
    return network("ResNet", depth=18)

def conv_mlp():
    return network("conv_mlp_nano")

def mixer():
    return network("mlp_mixer_nano")

def images(*shape):
    return paddle.to_tensor(np.random.default_rng(0).standard_normal(shape).astype("float32"))
"""
END = """
try:
    y = run()
    print("answer", list(y.shape), y.reshape([-1])[:8].tolist() if y.size else [], sep="|")
except (ValueError, RuntimeError, TypeError) as error:
    print("error", type(error).__name__, " ".join(str(error).split())[:400], sep="|")
"""
REFUSED = {
    "a bfloat16 ResNet given float32 images": "resnet().to(dtype='bfloat16'){train}(images(2, 3, 32, 32))",
    "a bfloat16 ConvMLP given float32 images": "conv_mlp().to(dtype='bfloat16'){train}(images(2, 3, 32, 32))",
    "a float64 network given float32 images": "resnet().to(dtype='float64'){train}(images(2, 3, 32, 32))",
    "a float64 Mixer given float32 images": "mixer().to(dtype='float64'){train}(images(2, 3, 32, 32))",
    "BatchNorm2D of another width": "BatchNorm2D(8){train}(images(2, 16, 4, 4))",
    "BatchNorm2D of another width, channels last": "BatchNorm2D(8, data_format='NHWC'){train}(images(2, 4, 4, 16))",
    "BatchNorm2D wider than its maps": "BatchNorm2D(16){train}(images(2, 8, 4, 4))",
    "Conv2D of another width": "Conv2D(8, 4, 3){train}(images(2, 3, 8, 8))",
    "Conv2D of another width, depth-wise": "Conv2D(8, 8, 3, padding=1, groups=8){train}(images(2, 4, 8, 8))",
    "LayerNorm of another width": "LayerNorm(16){train}(images(2, 8))",
    "GroupNorm1 of another width": "GroupNorm1(16){train}(images(2, 4, 4, 8))",
    "Linear of another width": "Linear(16, 4){train}(images(2, 8), 'gelu')",
    "TokenLinear of another number of tokens": "TokenLinear(16, 4){train}(images(2, 8, 3), 'gelu')",
}
PADDLES = ("(InvalidArgument)", "(NotFound)", "must be divisible by groups")        # in its own errors
EMPTY = ["mlp_mixer_nano", "conv_mlp_nano", "cycle_mlp_nano", "resmlp_nano", "gmlp_nano", "conv_mixer_nano", "vip_nano",
         "hire_mlp_nano", "wave_mlp_nano", "as_mlp_nano", "s2_mlp_v1_nano", "s2_mlp_v2_nano"]


def said(expression: str, **environment) -> list:
    """``["answer", shape, numbers]`` or ``["error", type, words]`` of an expression; its process ends of itself."""
    code = f"{BEGIN}\ndef run():\n    return {expression}\n{END}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, **environment})
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout.strip().splitlines()[-1].split("|", 2)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_paddle(name, mode):
    expression = REFUSED[name]
    layer, _, call = expression.partition("{train}")
    kind, *words = said(f"(lambda net: (net.{mode}(), net{call})[1])({layer})")
    assert kind == "error"
    assert any(mark in words[1] for mark in PADDLES), words


@pytest.mark.parametrize("name", EMPTY)
def test_no_images(name):
    kind, *rest = said(f"(lambda net: (net.eval(), net(images(0, 3, 32, 32)))[1])(network('{name}'))")
    if PADDLE_2 and kind == "error":
        assert rest[0] in ("ValueError", "RuntimeError")        # its convolution takes no empty batch
    else:
        assert kind == "answer"
        assert rest[0].startswith("[0,")


@pytest.mark.parametrize("name", ["cycle_mlp_b1", "hire_mlp_tiny", "wave_mlp_t", "conv_mlp_s", "resnet18"])
@pytest.mark.parametrize("side", [1, 2, 3])
def test_images_smaller_than_the_kernel(name, side):
    """With the native kernels as without them."""
    call = f"(lambda net: (net.eval(), net(images(2, 3, {side}, {side})))[1])(network('{name}'))"
    kind, *rest = said(call)
    plain_kind, *plain = said(call, PASSL_MIXER_NATIVE="0")
    assert (kind, rest[0]) == (plain_kind, plain[0])
    if kind == "answer":
        np.testing.assert_allclose(json.loads(rest[1].replace("nan", "NaN")),
                                   json.loads(plain[1].replace("nan", "NaN")), rtol=1e-3, atol=1e-4)
