"""Loss scaling: halves on overflow, doubles after good steps, and is out of the way otherwise."""
import paddle

from passl_mixer.training.precision import Precision


def parameter(gradient):
    p = paddle.create_parameter([2], "float32")
    (p * paddle.to_tensor(gradient)).sum().backward()
    return p


def test_float32_and_bfloat16_are_not_scaled():
    for dtype in (None, "bfloat16"):
        precision, p = Precision(dtype), parameter([1.0, 2.0])
        assert precision.scale == 1.0
        assert precision.unscale([p])
        assert p.grad.numpy().tolist() == [1.0, 2.0]
        assert set(precision.state()) == {"scale", "good_steps"}


def test_float16_scale_follows_the_gradients():
    precision = Precision("float16", initial_scale=8.0, growth_interval=2)
    p = parameter([8.0, 16.0])
    assert precision.unscale([p])
    assert p.grad.numpy().tolist() == [1.0, 2.0]
    assert not precision.unscale([parameter([float("inf"), 1.0])])
    assert precision.scale == 4.0
    for _ in range(2):
        assert precision.unscale([parameter([1.0, 1.0])])
    assert precision.scale == 8.0
    copy = Precision("float16")
    copy.load(precision.state())
    assert copy.state() == precision.state()
    assert set(copy.state()) == {"scale", "good_steps"}
