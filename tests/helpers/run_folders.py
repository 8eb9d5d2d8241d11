"""What a run left in its folder, and whether two runs left the same."""
import json
from pathlib import Path

from helpers.arrays import assert_same
from passl_mixer import checkpoint

TIMES = ("images_per_second", "seconds")


def journal(folder: Path) -> list:
    """The whole lines of ``log.jsonl``, also while it is written."""
    path = folder / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def evaluated(folder: Path) -> dict:
    """``{step: kNN accuracy}``, each once."""
    lines = [line for line in journal(folder) if "knn" in line]
    assert len({line["step"] for line in lines}) == len(lines)
    return {line["step"]: line["knn"] for line in lines}


def last_checkpoint(folder: Path) -> tuple:
    """Arrays of the model, arrays of the optimiser, and the facts of a run's last checkpoint."""
    return checkpoint.read_checkpoint(checkpoint.find_checkpoint(folder))


def assert_same_arrays(one: Path, other: Path) -> None:
    """The last checkpoints of two runs hold the same model and optimiser, bit for bit."""
    for arrays, others in zip(last_checkpoint(one)[:2], last_checkpoint(other)[:2]):
        assert_same(arrays, others)


def _timeless(facts: dict) -> dict:
    return {key: value for key, value in facts.items() if key not in TIMES}


def assert_same_end(one: Path, other: Path) -> None:
    """Same lines in the same order, same files, same arrays bit for bit, same summary; times aside."""
    assert list(map(_timeless, journal(one))) == list(map(_timeless, journal(other)))
    names = sorted(p.name for p in (one / "checkpoints").iterdir())
    assert names == sorted(p.name for p in (other / "checkpoints").iterdir())
    for name in names:
        mine, theirs = (checkpoint.read_checkpoint(folder / "checkpoints" / name) for folder in (one, other))
        for arrays, others in zip(mine[:2], theirs[:2]):
            assert_same(arrays, others)
        assert [mine[2][key] for key in ("step", "epoch", "best_knn")] \
            == [theirs[2][key] for key in ("step", "epoch", "best_knn")], name
    mine, theirs = (json.loads((folder / "summary.json").read_text()) for folder in (one, other))
    assert _timeless(mine) == _timeless(theirs)
