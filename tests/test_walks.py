"""The walks that docs/design.md lists are the ones that a reader takes: files in the order in which they are opened."""
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OVERRIDES = ["data.batch_size=16", "train.max_steps=1", "evaluate.every_epochs=0", "evaluate.at_end=[]",
             "data.num_workers=0"]

# Notes who calls what from the command on, imports apart, and prints the two walks.
SCRIPT = '''
import json, sys
from passl_mixer.cli import main
PACKAGE, calls, importing = sys.argv.pop(1), [], 0
loss = []                               # the functions that are running when the loss is computed


def note(frame, event, argument):
    global importing
    code = frame.f_code
    if code.co_name == "<module>":
        importing += {"call": 1, "return": -1}.get(event, 0)
    elif event == "call" and not importing and code.co_filename.startswith(PACKAGE):
        caller = frame.f_back
        while caller and not caller.f_code.co_filename.startswith(PACKAGE):
            caller = caller.f_back
        calls.append((caller and caller.f_code, code))
        if code.co_name == "nt_xent" and not loss:
            while frame:
                loss.append((len(calls), frame.f_code))
                frame = frame.f_back


sys.setprofile(note)
main(sys.argv[1:])
sys.setprofile(None)
name = lambda code: code.co_filename[len(PACKAGE):]
path = {code for _, code in loss}
before = calls[:loss[0][0]]
to_loss = dict.fromkeys(name(called) for caller, called in before if called in path or caller in path)
first = next(i for i, (_, called) in enumerate(calls) if called.co_name == "train_step")
to_operators = []
for _, called in calls[first:]:
    if name(called) not in to_operators:
        to_operators.append(name(called))
    if name(called).startswith("ops/"):
        break
print(json.dumps({"the command to the loss": list(to_loss), "train_step to the operators": to_operators}))
'''


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walk")
    options = [word for text in [*OVERRIDES, f"output_dir={folder / 'run'}"] for word in ("-o", text)]
    done = subprocess.run([sys.executable, "-c", SCRIPT, f"{ROOT / 'passl_mixer'}/", "train", "-c",
                           str(ROOT / "configs" / "quickstart.yaml"), *options],
                          capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("walk", "most"), [("train_step to the operators", 11), ("the command to the loss", 14)])
def test_the_page_lists_the_walk(walks, walk, most):
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    listed = re.search(rf"^{walk}:\n((?:    .*\n)+)", page, re.MULTILINE).group(1).split()
    assert listed == walks[walk]
    assert len(listed) <= most
