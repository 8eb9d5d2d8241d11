"""The arrows of docs/design.md, section 2: imports point one way."""
import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "passl_mixer"
# who may import whom, by top-level part; "errors" and "registry" are open to all
ALLOWED = {
    "registry": set(), "errors": set(), "interruption": {"distributed"}, "metrics": set(), "precision": set(),
    "schema": set(), "config": {"schema", "yaml_text", "integrations"}, "yaml_text": set(),
    "optim": {"adamw", "lars"}, "adamw": set(), "lars": set(),
    "gradients": set(), "runtime": {"", "native"}, "native": set(), "": {"config", "runtime"},
    "checkpoint": {"config"}, "log": {"checkpoint"}, "distributed": {"gradients"},
    "batch_norm": {"distributed", "gradients"},
    "backbones": {"backbones", "checkpoint", "gradients", "native", "weights"}, "heads": {"heads"},
    "weights": {"pickles", "weights"}, "text": {"checkpoint", "text"},
    "macs": {"backbones"}, "data": {"data", "pickles", "text"}, "pickles": set(), "convert": {"checkpoint", "weights"},
    "resolution": {"backbones"}, "pyramid": {"backbones"}, "conv_form": {"backbones"},
    "methods": {"methods", "heads", "backbones", "distributed", "metrics"},
    "integrations": {"integrations", "backbones", "heads"},
    "probes": set(),
    "build": {"backbones", "batch_norm", "checkpoint", "config", "cuda_graph", "data", "distributed", "methods",
              "optim", "precision", "runtime", "static_graph"},
    "static_graph": set(), "cuda_graph": {"static_graph"},
    "export": {"backbones", "build", "checkpoint", "config", "data", "predictor", "resolution", "runtime",
               "static_graph"},
    "predictor": {"runtime"},
    "evaluate": {"build", "checkpoint", "config", "data", "log", "probes", "runtime"},
    "zero_shot": {"build", "checkpoint", "config", "data", "evaluate", "runtime", "text"},
    "trainer": {"build", "checkpoint", "config", "data", "distributed", "evaluate", "interruption", "log", "prefetch",
                "runtime", "saving", "step"},
    "saving": {"build", "checkpoint", "distributed"},
    "step": {"build", "checkpoint", "distributed", "evaluate", "optim", "runtime"}, "prefetch": set(),
    "cli": {"", "backbones", "export", "weights", "checkpoint", "config", "convert", "data", "evaluate", "integrations",
            "log", "macs", "text", "trainer", "zero_shot"},
}


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports_of(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "passl_mixer":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_module = (node.module == "passl_mixer" and (PACKAGE / alias.name).with_suffix(".py").exists()) \
                    or (PACKAGE / alias.name).is_dir()
                yield part(whole if node.module == "passl_mixer" and is_module else node.module)
        elif isinstance(node, ast.Import):
            yield from (part(a.name) for a in node.names if a.name.split(".")[0] == "passl_mixer")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    relative = path.relative_to(PACKAGE)
    own = relative.parts[0].removesuffix(".py") if relative.parts[0] != "__init__.py" else ""
    assert own in ALLOWED, f"{relative} is new: give it its arrows here and in docs/design.md"
    found = set(imports_of(path)) - {"errors", "registry"}
    assert found <= ALLOWED[own], f"{relative} imports {sorted(found - ALLOWED[own])}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "data").glob("*.py")), ids=lambda p: p.name)
def test_data_does_not_need_paddle(path):
    assert "paddle" not in {n.split(".")[0] for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                            if isinstance(node, ast.Import) for n in [a.name for a in node.names]}


@pytest.mark.parametrize("path", [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "tools").glob("*.py")],
                         ids=lambda p: p.name)
def test_no_file_is_too_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 270
