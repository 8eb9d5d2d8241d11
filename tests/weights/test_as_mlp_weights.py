"""The official AS-MLP's names: which 1 x 1 convolution becomes which linear map."""
import numpy
import pytest

from passl_mixer.errors import BadInput
from passl_mixer.weights import convert_state_dict


def test_square_convolutions_go_to_their_map_transposed(golden):
    _, state, _ = golden("as_mlp")
    converted = convert_state_dict(state, family="as_mlp", source="official")["backbone"]
    for theirs, ours in (("conv1", "enter"), ("conv2_1", "along_width"), ("conv2_2", "along_height"),
                         ("conv3", "proj")):
        numpy.testing.assert_array_equal(converted[f"stages.2.0.mixer.{ours}.weight"],
                                         state[f"layers.2.blocks.0.axial_shift.{theirs}.weight"][:, :, 0, 0].T)
    numpy.testing.assert_array_equal(converted["downsamples.1.reduction.weight"],
                                     state["layers.1.downsample.reduction.weight"][:, :, 0, 0].T)


def test_the_detection_variant_with_a_norm_per_stage_is_refused(golden):
    _, state, _ = golden("as_mlp")
    state["norm0.weight"] = numpy.ones(10, numpy.float32)
    with pytest.raises(BadInput, match=r"unexpected: norm0\.weight"):
        convert_state_dict(state, family="as_mlp", source="official")
