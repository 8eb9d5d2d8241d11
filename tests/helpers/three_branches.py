"""What the tests of Hire-MLP and Wave-MLP share: their definitions in NumPy, and sums of their published layers."""
import numpy
import paddle

from helpers.definitions import gelu, linear


def randomised(layer):
    """The layer in evaluation mode, every parameter and statistic drawn anew (variances above zero)."""
    rng = numpy.random.default_rng(0)
    for name, value in layer.state_dict().items():
        drawn = rng.normal(size=value.shape).astype("float32")
        value.set_value(paddle.to_tensor(numpy.abs(drawn) + 0.5 if "_variance" in name else 0.5 * drawn))
    layer.eval()
    return layer


def joined(mixer, branches):
    """Definition for one image: branches [H, W, C], weighted per channel by a softmax over the three, then ``proj``."""
    chans = branches[0].shape[-1]
    hidden = gelu(linear(mixer.reweight1, sum(branches).reshape(-1, chans).mean(0)))
    scores = linear(mixer.reweight2, hidden)
    summed = numpy.zeros_like(branches[0])
    for channel in range(chans):
        share = numpy.exp(scores[3 * channel:3 * channel + 3])
        share /= share.sum()
        summed[..., channel] = sum(s * branch[..., channel] for s, branch in zip(share, branches))
    return linear(mixer.proj, summed)


def map_size(fan_in, out, kernel=1):
    """Parameters of a map or a convolution with bias."""
    return fan_in * out * kernel ** 2 + out


def layer_sum(dims, depths, ratios, branches, *, conv_norms=True):
    """Trainable parameters of the published layers, one by one, with a 1000-class head; ``branches``: of each stage,
    those of its three branches in one block."""
    total = map_size(3, dims[0], 7) + sum(map_size(a, b, 3) for a, b in zip(dims, dims[1:]))
    total += 2 * sum(dims) if conv_norms else 0
    for width, depth, ratio, mixing in zip(dims, depths, ratios, branches):
        scores = map_size(width, width // 4) + map_size(width // 4, 3 * width)
        mlp = map_size(width, ratio * width) + map_size(ratio * width, width)
        total += depth * (mixing + scores + map_size(width, width) + mlp + 4 * width)
    return total + 2 * dims[-1] + map_size(dims[-1], 1000)
