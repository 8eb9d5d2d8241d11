"""Comparisons with PyTorch: the fastest of its ways, races to an accuracy, the recipe and the protocols of the peer."""
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from passl_mixer import get_config
from passl_mixer.build import resolve
from passl_mixer.data import build_dataset
from passl_mixer.errors import BadInput
from passl_mixer.evaluation.features import Subset
from passl_mixer.evaluation.probes import few_label_accuracy, knn_accuracy
from passl_mixer.registry import BACKBONES

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
benchmark = importlib.import_module("benchmark")
from bench import four_ways, networks, page, race, race_recipe, suites, targets, turns, watch  # noqa: E402
from peers import torch_probes  # noqa: E402

PEER_PYTHON = os.environ.get("PASSL_MIXER_PEER_PYTHON")
with_peer = pytest.mark.skipif(not PEER_PYTHON, reason="PASSL_MIXER_PEER_PYTHON names no interpreter with torch, timm")
QUICKSTART = ROOT / "configs" / "quickstart.yaml"
RUN = """
import sys, time
print(sys.stdin.readline().strip(), flush=True)
for epoch, accuracy in ((1, 0.31), (2, 0.48), (3, 0.44), (4, 0.61)):
    time.sleep(0.1)
    print(f"epoch {epoch}/4  kNN accuracy {accuracy:.4f}", flush=True)
print("epoch 2/4  labels_1 0.5000", flush=True)
sys.exit(3)
"""


def answer(seconds, parameters=7):
    return {"seconds": seconds, "parameters": parameters}


def points(*pairs):
    return [{"epoch": str(i), "seconds": s, "accuracy": a} for i, (s, a) in enumerate(pairs, 1)]


def test_the_fastest_way_is_the_one_with_the_least_median():
    times = {"eager": [9.0, 2.0, 2.0, 2.0], "bf16": [9.0, 3.0, 1.0, 1.5]}
    peers = {way: lambda left=left: answer(left.pop(0)) for way, left in times.items()}
    made = four_ways.compare("timm", "case", lambda: answer(1.0), peers, 3, peer="timm")
    assert made["fastest"] == "bf16"
    assert made["ratio"] == {"median": 1.5, "min": 1.0, "max": 3.0}
    assert made["peer"]["seconds"] == 1.5
    assert made["ways"]["eager"] == {"seconds": 2.0, "ratio": {"median": 2.0, "min": 2.0, "max": 2.0}}
    with pytest.raises(BadInput, match="7 parameters and the peer's network 8"):
        four_ways.compare("timm", "case", lambda: answer(1.0), {"a": lambda: answer(1.0),
                                                                "b": lambda: answer(1.0, 8)}, 1, peer="timm")


def test_the_ways_are_those_of_the_peer():
    source = (ROOT / "tools" / "peers" / "torch_ways.py").read_text(encoding="utf-8")
    assert f"WAYS = {json.dumps(four_ways.WAYS).replace('[', '(').replace(']', ')')}" in source


def test_precision_is_the_command_lines_or_the_suites():
    machine = "bf16" if suites.has_bf16() else "fp32"
    for asked, default, expected in ((None, "fp32", "fp32"), (None, "auto", machine), ("auto", "fp32", machine),
                                     ("fp32", "auto", "fp32"), ("bf16", "fp32", "bf16")):
        assert suites.precision_of(suites.Settings(precision=asked), default) == expected
    assert suites.precision_of(suites.Settings(device="gpu"), "fp32") == "bf16"


def test_a_record_in_another_precision_than_its_name_is_refused():
    suites._in_precision({"precision": "bfloat16"}, "bf16")
    suites._in_precision({"precision": "float32"}, "fp32")
    with pytest.raises(BadInput, match="computed in float32"):
        suites._in_precision({"precision": "float32"}, "bf16")


def test_every_family_has_a_share_of_the_peak_to_reach():
    classes = {cls.__name__ for cls, _ in (BACKBONES.entry(name) for name in BACKBONES.names())}
    assert {BACKBONES.entry(name)[0].__name__ for name in targets.FAMILIES} == classes
    assert {f"peak_{name}" for name in targets.FAMILIES} <= set(targets.TARGETS)


def test_the_product_of_the_peak_is_a_product():
    entry = {"backbone": {"name": "mlp_mixer_nano"}, "batch": 1, "size": 32, "precision": "bf16"}
    network = networks.Network(entry, "cpu")
    product, dtype = networks.product_of(network.precision, "cpu")
    a, b = np.random.default_rng(0).standard_normal([2, 64, 64]).astype("float32")
    made = product(networks.paddle.to_tensor(a).astype(dtype), networks.paddle.to_tensor(b).astype(dtype))
    expected, made = a @ b, made.astype("float32").numpy()
    tolerance = 0.3 if network.precision.dtype == "bfloat16" else 1e-4        # Paddle 2.6 cuts to bfloat16, 3.3 rounds
    np.testing.assert_allclose(made, expected, atol=tolerance)


def test_watching_ends_a_run_at_the_accuracy(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(RUN)
    seen, later = watch.watch([sys.executable, str(script)], race.KNN, line="begin", until=0.45, after=race.LABELS)
    assert [(point["epoch"], point["accuracy"]) for point in seen] == [("1", 0.31), ("2", 0.48)]
    assert 0.1 < seen[0]["seconds"] < seen[1]["seconds"]
    assert later == {}
    with pytest.raises(turns.ChildFailed, match=r"run\.py ended with code 3"):
        watch.watch([sys.executable, str(script)], race.KNN, until=0.7)
    script.write_text(RUN.replace("sys.exit(3)", ""))
    seen, later = watch.watch([sys.executable, str(script)], race.KNN, after=race.LABELS)
    assert (len(seen), later) == (4, {"2": 0.5})


def test_a_race_is_won_by_who_arrives_first():
    fast, slow = points((10.0, 0.4), (20.0, 0.5)), points((30.0, 0.44), (60.0, 0.56))
    assert (race.seconds_to(fast, 0.4), race.seconds_to(fast, 0.45), race.seconds_to(fast, 0.51)) == (10.0, 20.0, None)
    assert min((slow, fast), key=lambda curve: race._rank(curve, (0.4,))) is fast
    assert min((slow, fast), key=lambda curve: race._rank(curve, (0.4, 0.55))) is slow      # it arrives at both
    made = race._record(race.CIFAR10, 0.45, [fast, points((5.0, 0.45))], {"bf16": [slow, slow], "eager": [slow]},
                        "bf16", {"workers": 2})
    assert made["ratio"] == {"median": 7.5, "min": 3.0, "max": 12.0}
    assert (made["case"], made["repeats"], made["ways"]) == ("cifar10, knn 0.45", 2, {"bf16": 60.0, "eager": 60.0})
    made = race._record(race.CIFAR10, 0.55, [fast], {"bf16": [slow]}, "bf16", {})
    assert "ratio" not in made
    assert made["missed"] == "ours did not reach it within the epochs"
    marked = targets.mark({**made, "repeats": 3})
    assert (marked["target"], marked["reached"]) == ("race_cifar10_55", False)


def test_the_recipe_of_the_peer_is_ours():
    setup = race_recipe.setup_of(resolve(get_config(QUICKSTART, race.MINI)), 123)
    assert setup["network"] == {"mixer": {"embed_dim": 256, "num_blocks": 2, "patch_size": 7, "img_size": 28,
                                          "mlp_ratio": [0.5, 2], "num_classes": 0}}
    assert setup["views"]["jitter"] == [0.4, 0.4, 0.4, 0.1]
    assert (setup["lr"], setup["weight_decay"], setup["warmup_epochs"], setup["temperature"]) == (2e-3, 0.05, 0.5, 0.2)
    assert (setup["parameters"], setup["betas"], setup["knn"]["k"]) == (123, [0.9, 0.999], 20)
    other = race_recipe.setup_of(resolve(get_config(QUICKSTART, [*race.MINI, "optim.base_batch_size=512"])), 0)
    assert other["lr"] == 1e-3
    for override, words in (("model.method={name: moco}", "model.method.name is 'moco'"),
                            ("optim={name: lars, lr: 1.0}", "optim.name is 'lars'"),
                            ("optim.clip_norm=1.0", "no option optim.clip_norm"),
                            ("model.backbone={name: conv_mlp_nano}", "has no network in timm"),
                            ("model.backbone.act=gelu_tanh", "leave both out"),
                            ("data.dataset={name: synthetic}", "data.dataset.name is 'synthetic'")):
        with pytest.raises(BadInput, match=words):
            race_recipe.setup_of(resolve(get_config(QUICKSTART, [*race.MINI, override])), 0)


def test_the_protocols_of_the_peer_are_ours():
    draw = np.random.default_rng(1)
    labels, other = draw.integers(0, 4, 60), draw.integers(0, 4, 50)
    train, test = (draw.standard_normal([len(y), 8]).astype("float32") + 0.9 * np.eye(8, dtype="float32")[y]
                   for y in (labels, other))
    options = {"labels_per_class": 2, "draws": 5, "l2": 0.01}
    expected = few_label_accuracy(train, labels, test, other, **options)
    assert 0.3 < expected < 0.9
    assert torch_probes.few_labels(train, labels, test, other, **options) == pytest.approx(expected, abs=1e-9)
    dataset = build_dataset({"name": "fashion_mnist_mini"}, "train")
    np.testing.assert_array_equal(torch_probes.spaced(dataset.labels, 123), Subset(dataset, 123).indices)


def test_the_page_shows_ways_and_races(tmp_path):
    peers = {"eager": lambda: answer(3.0), "bf16": lambda: answer(2.0)}
    made = four_ways.compare("timm", "case a", lambda: answer(1.0), peers, 5, peer="timm")
    run = race._record(race.CIFAR10, 0.45, [points((10.0, 0.5))], {"bf16": [points((30.0, 0.45))]}, "bf16", {})
    missed = race._record(race.CIFAR10, 0.55, [points((10.0, 0.5))], {"bf16": [points((30.0, 0.45))]}, "bf16", {})
    results = tmp_path / "results.json"
    results.write_text("".join(json.dumps(r) + "\n" for r in (made, run, missed)))
    lines = page.page(page.read(results), "").splitlines()
    assert "| case | peer | ours in | eager | bf16 |" in lines
    assert "| case a | timm, fastest way | - | 3 (3 - 3) | **2 (2 - 2)** |" in lines
    assert "| cifar10, knn 0.45 | 10 | 30 | 3 (3 - 3) | bf16 | bf16 30 | 1 |" in lines
    assert ("| cifar10, knn 0.55 | not reached | not reached | ours and peer did not reach it within the epochs | "
            "bf16 | bf16 not reached | 1 |") in lines
    assert "- cifar10, knn, ours, first run: 10 s 0.500" in lines


def test_a_race_needs_its_data_and_its_peer(capsys):
    assert benchmark.main(["race"]) == 1
    assert "expected --peer-python" in capsys.readouterr().err
    assert benchmark.main(["--target", "race_cifar10_45"]) == 1
    assert "expected --data FOLDER" in capsys.readouterr().err
    assert benchmark.main(["race", "--epochs", "0"]) == 2
    assert "--epochs is 0" in capsys.readouterr().err


@with_peer
def test_the_kind_of_neighbours_is_ours():
    draw = np.random.default_rng(2)
    labels, other = draw.integers(0, 4, 90), draw.integers(0, 4, 70)
    train, test = (draw.standard_normal([len(y), 8]).astype("float32") + 0.9 * np.eye(8, dtype="float32")[y]
                   for y in (labels, other))
    code = ("import sys, json, torch; sys.path.insert(0, sys.argv[1]); import torch_probes\n"
            "a, b, c, d = (torch.tensor(x) for x in json.load(sys.stdin))\n"
            "print(torch_probes.knn(a, b, c, d, k=7, temperature=0.1))")
    done = subprocess.run([PEER_PYTHON, "-c", code, str(turns.PEERS)], text=True, capture_output=True, check=True,
                          input=json.dumps([x.tolist() for x in (train, labels, test, other)]))
    expected = knn_accuracy(train, labels, test, other, k=7, temperature=0.1)
    assert float(done.stdout) == pytest.approx(expected, abs=1e-9)


@with_peer
def test_a_race_runs(tmp_path, capsys):
    arguments = ["race", "--way", "eager", "--epochs", "1", "--every-epochs", "1", "--to", "0.1", "0.99", "--repeats",
                 "1", "--peer-python", PEER_PYTHON]
    assert benchmark.main(arguments) == 0
    near, far = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert near["case"] == "quickstart, labels_1 0.1"
    assert near["ratio"]["median"] == pytest.approx(near["peer"]["seconds"] / near["ours"]["seconds"], rel=1e-3)
    assert all(0.1 < point["accuracy"] < 0.7 for side in ("ours", "peer") for point in near[side]["curves"][0])
    assert far["missed"] == "ours and peer did not reach it within the epochs"
