"""Every origin there and back, bit for bit; ports of the same network give the same arrays; guessing the origin."""
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.arrays import assert_same, random_state

from passl_mixer.backbones import build_backbone
from passl_mixer.errors import BadInput
from passl_mixer.heads import build_head
from passl_mixer.weights import KEY_MAPS, convert_backbone, convert_state_dict, export_state_dict, guess_origin

ORIGINS = sorted(KEY_MAPS)
GOLDEN = Path(__file__).parents[1] / "golden"


def state_of_nano(family):
    """Random arrays of the family's nano network and a classifier."""
    backbone = build_backbone(f"{family}_nano")
    head = build_head({"name": "linear", "num_classes": 7}, in_features=backbone.num_features)
    return {"backbone": random_state(backbone), "head": random_state(head, 1)}


@pytest.mark.parametrize(("family", "source"), ORIGINS)
def test_there_and_back(family, source):
    state = state_of_nano(family)
    theirs = export_state_dict(state, family=family, target=source)
    assert guess_origin(theirs) == (family, source)
    back = convert_state_dict(theirs, family=family, source=source)
    for part in ("backbone", "head"):
        assert_same(back[part], state[part])
    arrays, *origin = convert_backbone(export_state_dict({"backbone": state["backbone"]}, family=family, target=source))
    assert tuple(origin) == (family, source)
    assert_same(arrays, state["backbone"])


@pytest.mark.parametrize("family", sorted({family for family, _ in ORIGINS if (GOLDEN / f"{family}.npz").exists()}))
def test_a_reference_state_dict_comes_back(family, golden):
    config, theirs, _ = golden(family)
    state = convert_state_dict(theirs, family=family, source=config["source"])
    theirs = {name: value for name, value in theirs.items() if not name.endswith("num_batches_tracked")}
    assert_same(export_state_dict(state, family=family, target=config["source"]), theirs)


def test_a_state_of_another_family_is_not_exported():
    state = state_of_nano("mlp_mixer")
    with pytest.raises(BadInput, match=r"has no 'blocks\.0\.linear_tokens\.weight'"):
        export_state_dict(state, family="resmlp", target="timm")
    del state["backbone"]["blocks.1.norm1.bias"]
    with pytest.raises(BadInput, match=r"missing: \['blocks\.1\.norm1\.bias'\]"):
        export_state_dict(state, family="mlp_mixer", target="timm")
    with pytest.raises(BadInput, match="unknown source 'tim' of mlp_mixer"):
        export_state_dict(state, family="mlp_mixer", target="tim")


def google(timm, older):
    """A timm Mixer as Google's flax code would have saved it."""
    found = {"stem/kernel": timm["stem.proj.weight"].transpose(2, 3, 1, 0), "stem/bias": timm["stem.proj.bias"],
             "pre_head_layer_norm/scale": timm["norm.weight"], "pre_head_layer_norm/bias": timm["norm.bias"],
             "head/kernel": timm["head.weight"].T, "head/bias": timm["head.bias"]}
    for i in range(sum(name.endswith(".norm1.weight") for name in timm)):
        for k in range(2):
            found[f"MixerBlock_{i}/LayerNorm_{k}/scale"] = timm[f"blocks.{i}.norm{k + 1}.weight"]
            found[f"MixerBlock_{i}/LayerNorm_{k}/bias"] = timm[f"blocks.{i}.norm{k + 1}.bias"]
            for word in ("token", "channel"):
                dense = f"MixerBlock_{i}/{word}_mixing/Dense_{k}"
                found[f"{dense}/kernel"] = timm[f"blocks.{i}.mlp_{word}s.fc{k + 1}.weight"].T
                found[f"{dense}/bias"] = timm[f"blocks.{i}.mlp_{word}s.fc{k + 1}.bias"]
    if not older:
        return found
    old = {}
    for name, value in found.items():
        name = name.replace("pre_head_layer_norm", "Mixer/encoder_norm").replace("stem/", "embedding/")
        name = name.replace("MixerBlock", "Mixer/encoderblock").replace("LayerNorm_1", "LayerNorm_2")
        name, dense = re.subn(r"_mixing/Dense_(\d)/(\w+)",
                              lambda m: f"_mixing_phase_0/{m.group(2)}{int(m.group(1)) + 1}", name)
        old[name] = value[None] if dense else value
    return old


def paddle_port(timm, beginnings):
    """A state dict as a Paddle port keeps it: matrices [in, out], BatchNorm's names Paddle's."""
    def renamed(name):
        for old, new in beginnings:
            if name.startswith(old):
                name = new + name[len(old):]
                break
        return name.replace("running_mean", "_mean").replace("running_var", "_variance")
    return {renamed(name): value.T if value.ndim == 2 else value for name, value in timm.items()}


def official_conv_mixer(timm):
    """A timm ConvMixer under the official, flat names."""
    ours = convert_state_dict(timm, family="conv_mixer", source="timm")
    return export_state_dict(ours, family="conv_mixer", target="official")


PASSL = [("head.", "head.fc_cls."), ("", "backbone.")]
PADDLEVIT = [("stem.proj", "patch_embed.patch_embed"), ("blocks", "mixer_layers")]


@pytest.mark.parametrize(("family", "source", "port"), [
    ("mlp_mixer", "google", lambda timm: google(timm, older=False)),
    ("mlp_mixer", "google", lambda timm: google(timm, older=True)),
    ("mlp_mixer", "paddlevit", lambda timm: paddle_port(timm, PADDLEVIT)),
    ("mlp_mixer", "passl", lambda timm: paddle_port(timm, PASSL)),
    ("conv_mlp", "paddlevit", lambda official: paddle_port(official, [])),
    ("cycle_mlp", "paddlevit", lambda official: paddle_port(official, [])),
    ("vip", "paddlevit", lambda official: paddle_port(official, [])),
    ("resmlp", "paddlevit", lambda timm: paddle_port(timm, PADDLEVIT)),
    ("gmlp", "paddlevit", lambda timm: paddle_port(timm, PADDLEVIT)),
    ("conv_mixer", "paddlevit", lambda timm: paddle_port(official_conv_mixer(timm), []))],
    ids=["google", "google_older", "mixer_paddlevit", "passl", "conv_mlp", "cycle_mlp", "vip", "resmlp", "gmlp",
         "conv_mixer"])
def test_ports_of_one_network_give_the_same_arrays(golden, family, source, port):
    config, reference, _ = golden(family)
    expected = convert_state_dict(reference, family=family, source=config["source"])
    theirs = port(reference)
    got = convert_state_dict(theirs, family=family, source=source)
    for part in ("backbone", "head"):
        assert_same(got[part], expected[part])
    assert guess_origin(theirs) == (family, source)
    with pytest.raises(BadInput, match=r"pass family=|wrongly shaped"):
        convert_state_dict(theirs, family=family, source=config["source"])
    left_out = sorted(theirs)[len(theirs) // 2]
    with pytest.raises(BadInput, match="state dict"):
        convert_state_dict({k: v for k, v in theirs.items() if k != left_out}, family=family, source=source)


def test_allowed_names_may_be_missing_or_unexpected(golden):
    _, state, _ = golden("mlp_mixer")
    state = {name: value for name, value in state.items() if not name.startswith("head.")}
    state["head_dist.weight"] = np.zeros(2, np.float32)
    with pytest.raises(BadInput, match=r"missing: head\.weight, head\.bias; unexpected: head_dist\.weight"):
        convert_state_dict(state, family="mlp_mixer", source="timm")
    got = convert_state_dict(state, family="mlp_mixer", source="timm", allow=["head.*", "head_dist.*"])
    assert got["head"] == {}
    with pytest.raises(BadInput, match=r"missing: head\.weight, head\.bias$"):
        convert_state_dict(state, family="mlp_mixer", source="timm", allow=["head_*"])


def test_what_is_of_no_known_origin_is_said():
    with pytest.raises(BadInput, match=r"no family known here, beginning with fc\.weight"):
        guess_origin({"fc.weight": np.zeros((2, 2), np.float32)})
