"""What is refused on the way from a reference state dict to ours."""
import numpy
import pytest

from passl_mixer.errors import BadInput
from passl_mixer.weights import convert_state_dict
from passl_mixer.weights.cycle_mlp import published_offset

SOURCES = {"mlp_mixer": "timm", "conv_mlp": "official", "cycle_mlp": "official",
           "vip": "official", "as_mlp": "official"}
CLASSES = list(SOURCES)


def convert(family, state):
    return convert_state_dict(state, family=family, source=SOURCES[family])


@pytest.mark.parametrize("family", CLASSES)
def test_every_missing_array_is_named(family, golden):
    _, state, _ = golden(family)
    for name in state:
        with pytest.raises(BadInput, match=name.replace(".", r"\.")):
            convert(family, {key: value for key, value in state.items() if key != name})


@pytest.mark.parametrize("family", CLASSES)
def test_all_faults_are_listed_at_once(family, golden):
    _, state, _ = golden(family)
    state.pop("norm.bias")
    state.pop("head.bias")
    state["head.extra"] = numpy.zeros(3, numpy.float32)
    state["norm.weight"] = state["norm.weight"][:-1]
    with pytest.raises(BadInput) as caught:
        convert(family, state)
    words = str(caught.value)
    assert "missing: norm.bias, head.bias" in words
    assert "unexpected: head.extra" in words
    assert "norm.weight is [" in words


@pytest.mark.parametrize("family", CLASSES)
def test_linear_maps_are_transposed_even_when_square(family, golden):
    _, state, _ = golden(family)
    converted = convert(family, state)
    numpy.testing.assert_array_equal(converted["head"]["fc.weight"], state["head.weight"].T)
    if family == "cycle_mlp":
        mixer = converted["backbone"]
        numpy.testing.assert_array_equal(mixer["stages.0.0.mixer.channel.weight"],
                                         state["network.0.0.attn.mlp_c.weight"].T)
        numpy.testing.assert_array_equal(mixer["stages.0.0.mixer.along_width.weight"],
                                         state["network.0.0.attn.sfc_h.weight"][:, :, 0, 0].T)


@pytest.mark.parametrize("family", CLASSES)
def test_a_state_dict_of_another_family_is_named(family, golden):
    _, state, _ = golden(family)
    for other in CLASSES:
        if other != family:
            with pytest.raises(BadInput, match=f"state dict of {family}.*pass family='{family}'"):
                convert(other, state)


def test_unknown_family_and_source_name_the_nearest():
    with pytest.raises(BadInput, match="did you mean 'mlp_mixer'"):
        convert_state_dict({}, family="mlp_mixr", source="timm")
    with pytest.raises(BadInput, match="did you mean 'official'"):
        convert_state_dict({}, family="conv_mlp", source="oficial")
    with pytest.raises(BadInput, match="known: google, paddlevit, passl, timm"):
        convert_state_dict({}, family="mlp_mixer", source="keras")


def test_empty_and_wrapped_state_dicts_are_refused():
    with pytest.raises(BadInput, match="empty"):
        convert("mlp_mixer", {})
    with pytest.raises(BadInput, match="expected a NumPy array"):
        convert("mlp_mixer", {"model": {}})
    with pytest.raises(BadInput, match=r"stem\.proj\.weight"):
        convert("mlp_mixer", {"fc.weight": numpy.zeros((2, 2))})


def test_batch_counters_are_dropped(golden):
    _, state, _ = golden("conv_mlp")
    names = set(convert("conv_mlp", state)["backbone"])
    state["tokenizer.block.1.num_batches_tracked"] = numpy.array(7)
    assert set(convert("conv_mlp", state)["backbone"]) == names


def test_published_offset_pattern():
    offset = published_offset(5, moving=1).reshape(5, 2)
    assert offset[:, 0].tolist() == [0, 0, 0, 0, 0]
    assert offset[:, 1].tolist() == [0, 1, -1, 0, 1]


def test_other_offsets_are_refused(golden):
    _, state, _ = golden("cycle_mlp")
    name = "network.2.1.attn.sfc_w.offset"
    state[name] = numpy.roll(state[name], 2)
    with pytest.raises(BadInput, match=r"network\.2\.1\.attn\.sfc_w\.offset is not the published pattern"):
        convert("cycle_mlp", state)
