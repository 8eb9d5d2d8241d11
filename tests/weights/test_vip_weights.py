"""The official ViP's names: where its stages and down-samplings are."""
import numpy
import pytest

from passl_mixer.backbones import build_backbone
from passl_mixer.errors import BadInput
from passl_mixer.surgery.macs import shapes_only
from passl_mixer.weights import convert_state_dict
from passl_mixer.weights.vip import rows

# Official index of the stages, and of the down-sampling: the fact sheet of the released checkpoints.
LAYOUTS = {"vip_s14": ((0, 1, 2, 3), None), "vip_s7": ((0, 2, 3, 4), 1), "vip_m7": ((0, 1, 3, 4), 2),
           "vip_l7": ((0, 2, 3, 4), 1)}


def official_shapes(name):
    """Official names and shapes of a variant with one block a stage, and ours."""
    stages, down = LAYOUTS[name]
    words = {"mixer.channel": "attn.mlp_c", "mixer.along_height": "attn.mlp_h", "mixer.along_width": "attn.mlp_w",
             "mixer.reweight1": "attn.reweight.fc1", "mixer.reweight2": "attn.reweight.fc2",
             "mixer.proj": "attn.proj"}
    with shapes_only():
        backbone = build_backbone({"name": name, "depths": [1, 1, 1, 1]})
        ours = {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    shapes = {"head.weight": (1000, backbone.num_features), "head.bias": (1000,)}
    for key, shape in ours.items():
        parts = key.split(".")
        if parts[0] == "stem":
            key = key.replace("stem", "patch_embed.proj")
        elif parts[0] == "downsamples":
            key = f"network.{down}.proj.{parts[-1]}"
        elif parts[0] == "stages":
            key = ".".join(["network", str(stages[int(parts[1])]), *parts[2:]])
            for our_word, word in words.items():
                key = key.replace(our_word, word)
        shapes[key] = shape[::-1] if len(shape) == 2 else shape
    return shapes, ours


@pytest.mark.parametrize("name", LAYOUTS)
def test_official_names_of_every_variant(name):
    shapes, ours = official_shapes(name)
    # Only shapes are read: a broadcast zero takes no memory.
    arrays = {key: numpy.broadcast_to(numpy.float32(0), shape) for key, shape in shapes.items()}
    found = rows(arrays)
    assert {row.theirs: row.shape for row in found} == shapes
    assert {row.ours: row.shape[::-1] if row.transpose else row.shape for row in found
            if not row.ours.startswith("head.")} == ours


def test_square_maps_of_a_block_go_to_their_branch_transposed(golden):
    _, state, _ = golden("vip")
    converted = convert_state_dict(state, family="vip", source="official")["backbone"]
    for theirs, ours in (("mlp_c", "channel"), ("mlp_h", "along_height"), ("mlp_w", "along_width"),
                         ("proj", "proj")):
        numpy.testing.assert_array_equal(converted[f"stages.1.0.mixer.{ours}.weight"],
                                         state[f"network.2.0.attn.{theirs}.weight"].T)


def test_a_network_that_begins_with_a_down_sampling_is_refused(golden):
    _, state, _ = golden("vip")
    state["network.0.proj.weight"] = state["network.1.proj.weight"]
    with pytest.raises(BadInput, match=r"network\.0 is a down-sampling"):
        convert_state_dict(state, family="vip", source="official")
