"""The notebooks' cells run in order, one epoch in place of theirs, and say what they were run with."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SETTINGS = 'EPOCHS, RUNS = 24, Path("runs/notebook")'


def cells(path: Path) -> list:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_run_in_order(path, tmp_path):
    pytest.importorskip("matplotlib")
    code = "\n".join("".join(cell["source"]) for cell in cells(path))
    assert SETTINGS in code
    script = tmp_path / "notebook.py"
    script.write_text(code.replace(SETTINGS, f"EPOCHS, RUNS = 1, Path({str(tmp_path / 'runs')!r})"), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=path.parent, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"})
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs").glob("*/summary.json"))) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_of_one_run_of_all_cells(path):
    assert [cell["execution_count"] for cell in cells(path)] == list(range(1, len(cells(path)) + 1))
    shown = [output for cell in cells(path) for output in cell["outputs"]]
    assert str(ROOT) not in json.dumps(shown)
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert not any(output["output_type"] == "error" for output in shown)
