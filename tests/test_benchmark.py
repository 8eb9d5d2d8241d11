"""The benchmark measures what it says: turns, shares, targets, variants of CycleFC, the page; peers where there are."""
import importlib
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest

from passl_mixer import build_backbone
from passl_mixer.backbones.cycle_mlp import CycleFC
from passl_mixer.errors import BadInput

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
benchmark = importlib.import_module("benchmark")
from bench import four_ways, learning, page, pictures, suites, targets, turns, variants  # noqa: E402

without_gpu = pytest.mark.skipif(benchmark.gpus() > 0, reason="this machine has a GPU")
PEER_PYTHON = os.environ.get("PASSL_MIXER_PEER_PYTHON")
CHILD = """
import sys
sys.path.insert(0, {peers!r})
import protocol
channel = protocol.Channel()
print("what a library says")
waited = []
def slow():
    waited.append(1)
    clock = protocol.Clock()
    clock.mark("first")
    clock.mark("second")
    return {{"seconds": channel.setup["seconds"] * len(waited), "parts": clock.parts}}
def broken():
    raise ArithmeticError("the loss is nan")
channel.serve({{"slow": slow, "broken": broken, "quick": lambda: None}}, {{"slow": {{"images": 4, "flop": 8e9}}}})
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "child.py"
    path.write_text(CHILD.format(peers=str(turns.PEERS)))
    return path


def answers(*seconds):
    return [{"seconds": s, "images": 4, "flop": 8e9, "parts": {"forward": s / 2}, "peak_mib": s} for s in seconds]


def test_a_child_answers_and_says_why_it_ended(script):
    with turns.Child(script, {"seconds": 0.5}) as child:
        first, second = child.step("slow"), child.step("slow")
        assert (first["seconds"], second["seconds"], first["images"]) == (0.5, 1.0, 4)
        assert list(first["parts"]) == ["first", "second"]
        assert first["peak_mib"] > 1
        assert 0 <= child.step("quick")["seconds"] < 1
        with pytest.raises(turns.ChildFailed, match="the loss is nan"):
            child.step("broken")


def test_short_steps_are_repeated(script):
    with turns.Child(script, {"seconds": 0.01, "min_seconds": 0.1}) as child:
        # the third call runs the step as often as the second one's seconds, 0.11, fit: once; the first's, ten times
        assert [round(child.step("slow")["seconds"], 2) for _ in range(3)] == [0.01, 0.11, 0.12]


def test_sides_take_turns_after_the_warm_up():
    calls = []

    def side(name, faults):
        def step():
            calls.append(name)
            return {"seconds": 0.01, "faults": faults.pop(0) if faults else 0}
        return step

    rows = turns.take_turns([side("a", [9000, 9000]), side("b", [9000])], 3, pause=0.0)
    assert len(rows) == 3
    assert calls == ["a", "b"] * 6          # two rounds with faults, one without, three measured
    calls.clear()
    turns.take_turns([side("a", [9000] * 99)], 1, pause=0.0)
    assert len(calls) == turns.WARM_UP + 1
    calls.clear()
    turns.take_turns([lambda: calls.append("long") or {"seconds": turns.LONG, "faults": 9000}], 1, pause=0.0)
    assert len(calls) == 2


def test_a_record_is_of_neighbours():
    rows = list(zip(answers(1.0, 2.0, 4.0), answers(3.0, 4.0, 20.0)))
    made = turns.record("suite", "case", rows, peer="other")
    assert made["ratio"] == {"median": 3.0, "min": 2.0, "max": 5.0}
    assert made["ours"] == {"seconds": 2.0, "images": 4, "images_per_second": 2.0, "gflops": 4.0,
                            "parts": {"forward": 1.0}, "peak_mib": 4.0}
    assert (made["peer"]["name"], made["repeats"], made["metric"]) == ("other", 3, "speed")
    assert "ratio" not in turns.record("suite", "case", [row[:1] for row in rows])


def test_variants_are_the_same_map_and_the_plain_one():
    x = paddle.randn([2, 5, 4, 7])
    for axis in (1, 2):
        fc = CycleFC(7, axis=axis)
        fc.bias.set_value(paddle.randn([7]))
        np.testing.assert_allclose(variants.DeformableFC(fc)(x).numpy(), fc(x).numpy(), atol=1e-6)
        plain = variants.PlainFC(fc)(x).numpy()
        np.testing.assert_allclose(plain, x.numpy() @ fc.weight.numpy() + fc.bias.numpy(), atol=1e-6)
        assert np.abs(plain - fc(x).numpy()).max() > 1e-3
    backbone = build_backbone("cycle_mlp_nano")
    before = len(backbone.parameters())
    variants.replace_cycle_fc(backbone, "deformable")
    assert not any(isinstance(layer, CycleFC) for layer in backbone.sublayers())
    assert len(backbone.parameters()) == before
    with pytest.raises(BadInput, match="has no CycleFC"):
        variants.replace_cycle_fc(build_backbone("mlp_mixer_nano"), "plain")
    with pytest.raises(BadInput, match="did you mean 'plain'"):
        variants.replace_cycle_fc(backbone, "plan")


def test_a_simclr_step_leaves_its_loader_as_far_ahead_as_it_was(tmp_path):
    pictures.write_small(tmp_path / "pictures.npy", 8, 32)
    model = {"backbone": {"name": "MlpMixer", "img_size": 32, "patch_size": 16, "embed_dim": 8, "num_blocks": 1},
             "head": {"name": "mlp", "out": 4}, "method": {"name": "simclr"}}
    training = learning.OnLoader({"model": model, "batch": 4, "workers": 1, "views": {"name": "simclr", "img_size": 32},
                                  "pictures": str(tmp_path / "pictures.npy"), "precision": "fp32"}, "cpu")
    for done in (1, 2):
        parts = training.step()["parts"]
        assert training.dataset.asked == (done + learning.PREFETCH_BATCHES) * 4
    assert set(parts) == {"data", "forward", "backward", "optimiser", "after_step"}
    training.batches.close()


def test_jpegs_to_views(tmp_path):
    paths = pictures.write_jpegs(tmp_path, 2)
    assert [cv2.imread(path).shape for path in paths] == [(375, 500, 3)] * 2
    steps, _ = learning.views_steps({"folder": str(tmp_path), "images": 2, "views": {"name": "simclr", "img_size": 32}})
    for _ in range(3):
        steps["step"]()             # beyond the end of the epoch


def test_a_suite_runs(tmp_path, capsys):
    file = tmp_path / "results.json"
    arguments = ["backbones", "--backbones", "mlp_mixer_nano", "--batch", "2", "--repeats", "1", "--min-seconds", "0",
                 "--threads", "1", "--json", str(file)]
    assert benchmark.main(arguments) == 0
    infer, train = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert file.read_text().splitlines() == [json.dumps(infer), json.dumps(train)]
    assert infer["case"] == "mlp_mixer_nano, inference, batch 2, 32 px"
    assert set(train["ours"]["parts"]) == {"data", "forward", "backward", "optimiser", "after_step"}
    assert sum(train["ours"]["parts"].values()) <= train["ours"]["seconds"] * 1.01
    for record, passes in ((infer, 1), (train, 3)):
        assert 0 < record["ratio"]["median"] < 1.5
        assert record["ours"]["parameters"] == 697_704
        macs = record["ours"]["gflops"] * record["ours"]["seconds"] / 2 / passes / 2 * 1e9       # 2 images
        assert macs == pytest.approx(38_269_952, rel=0.01)
        assert record["machine"]["threads"] == 1


@pytest.mark.parametrize(("arguments", "words"), [
    (["backbons"], "did you mean 'backbones'"),
    (["--against", "tim"], "did you mean 'timm'"),
    (["--against", "passl"], "expected --against passl:/path/to/checkout"),
    (["--against", "timm:/x"], "expected --against timm"),
    (["--against", "passl:/no/such"], "there is no folder /no/such"),
    (["--repeats", "0"], "--repeats is 0"),
    (["methods", "--device", "gpu"], "expected suites of backbones"),
    pytest.param(["backbones", "--device", "gpu"], "sees 0 GPUs", marks=without_gpu),
    (["--page", "/no/such.json", "x.md"], "there is no file /no/such.json"),
])
def test_bad_input_is_one_line(arguments, words, capsys):
    assert benchmark.main(arguments) == 2
    printed = capsys.readouterr().err
    assert words in printed
    assert printed.count("\n") == 1


def test_a_missing_peer_is_said_and_the_rest_goes_on(capsys):
    assert benchmark.main(["--target", "mixer_training"]) == 1
    assert "timm was not measured" in capsys.readouterr().err


def test_peers_must_be_the_same_network():
    with pytest.raises(BadInput, match="expected the same network"):
        four_ways.same_network([{"parameters": 3}, {"parameters": 4}])


def test_targets_judge_by_the_median(capsys):
    target = targets.TARGETS["growth"]
    record = {"suite": target.suite, "case": target.case, "metric": target.metric, "repeats": 5,
              "ratio": {"median": 1.04, "min": 1.0, "max": 1.2}}
    assert targets.mark(record)["reached"] is True
    assert targets.mark({**record, "repeats": 2})["reached"] is None
    record["ratio"]["median"] = 1.06
    marked = targets.mark(record)
    assert (marked["target"], marked["goal"], marked["reached"]) == ("growth", "<= 1.05", False)
    assert "target" not in targets.mark({**record, "case": "another"})
    assert "not reached" in benchmark.verdict(marked)
    for target in targets.TARGETS.values():
        assert target.run in targets.RUNS


def test_page(tmp_path):
    mixer = suites.case_name("mlp_mixer_b16", "inference", 8, 224)
    train = turns.record("timm", suites.case_name("mlp_mixer_b16", "training step", 8, 224),
                         list(zip(answers(*[2.0] * 5), answers(*[2.0] * 5))), peer="timm")
    infer = turns.record("timm", mixer, list(zip(answers(*[1.0] * 5), answers(*[1.5] * 5))), peer="timm")
    old = {**infer, "ratio": {"median": 9.0, "min": 9.0, "max": 9.0}}
    results, out = tmp_path / "results.json", tmp_path / "performance.md"
    results.write_text("".join(json.dumps({**r, "machine": {"cpu": "Abacus", "load": 2.0}}) + "\n"
                               for r in (old, train, infer)))
    (tmp_path / "performance_notes.md").write_text("## Why\n\nBecause | of * this.\n")
    assert benchmark.main(["--page", str(results), str(out)]) == 0
    text = out.read_text()
    lines = text.splitlines()
    timm = "timm on PyTorch, fastest of four ways"
    assert f"| Mixer-B/16 inference, batch 8 | {timm} | >= 1.1 | 1.5 (1.5 - 1.5), 5 repeats | yes |" in lines
    assert f"| Mixer-B/16 training step, batch 8 | {timm} | >= 1.2 | 1 (1 - 1), 5 repeats | **no** |" in lines
    assert "| CycleMLP-B1 forward | every CycleFC a plain 1x1 linear | >= 0.85 | not run | - |" in lines
    assert "9 (9 - 9)" not in text          # the last record of a case counts
    assert "## Why\n\nBecause | of * this.\n" in text
    assert "forward 50" in text
    assert "- cpu Abacus" in lines
    results.write_text('{"suite": "timm"}\n')
    with pytest.raises(BadInput, match="line 1 is not a record"):
        page.read(results)


@pytest.mark.skipif(not PEER_PYTHON, reason="PASSL_MIXER_PEER_PYTHON names no interpreter with torch and timm")
def test_timm_takes_turns(capsys):
    arguments = ["--against", "timm", "--against", "lightly", "--backbones", "mlp_mixer_nano", "--batch", "2",
                 "--repeats", "1", "--min-seconds", "0", "--peer-python", PEER_PYTHON]
    assert benchmark.main(arguments) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["suite"] for r in records] == ["timm", "timm", "lightly"]
    assert all(r["ours"]["parameters"] == r["peer"]["parameters"] for r in records)
    assert [set(r["ways"]) == set(four_ways.WAYS) for r in records] == [True, True, False]
    assert len(records[2]["ways"]) == 2 * len(four_ways.WAYS)       # with one worker and with two
    for record in records:
        assert record["ways"][record["fastest"]]["ratio"] == record["ratio"]
        assert record["ratio"]["median"] == min(way["ratio"]["median"] for way in record["ways"].values())
