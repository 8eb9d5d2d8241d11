"""Imports point one way: between the rooms of the package, late imports included, there is no circle."""
import ast
import graphlib
from pathlib import Path

import pytest

import passl_mixer

PACKAGE = Path(__file__).resolve().parents[1] / "passl_mixer"
FILES = sorted(PACKAGE.rglob("*.py"))

# Imports inside functions: file -> what it imports there and why it waits.
LATE = {
    "autocast.py": "as runtime.py",
    "cli.py": "a mistake in the command line or the data is said before Paddle loads",
    "data/dali.py": "NVIDIA DALI, which only a GPU machine has, is loaded when it is asked for",
    "data/resampling.py": "data are read without Paddle; the native kernels come with it",
    "integrations/passl.py": "importing it loads no host; register() does",
    "runtime.py": "the CPU set-up comes before Paddle; versions are asked for once a run",
}


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports_of(path: Path):
    """``(module of this package, whether the import is inside a function)`` for every import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {id(node) for function in ast.walk(tree) if isinstance(function, (ast.FunctionDef, ast.Lambda))
            for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "passl_mixer":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((name if name in MODULES else node.module, id(node) in late) for name in names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in late) for alias in node.names
                        if alias.name.split(".")[0] == "passl_mixer")


def room(module: str) -> str:
    """The folder of a module; a file of the top level is a room of its own."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "passl_mixer"


def graph(node_of) -> dict:
    found = {}
    for module, path in MODULES.items():
        own = node_of(module)
        found.setdefault(own, set()).update(node_of(name) for name, _ in imports_of(path) if node_of(name) != own)
    # what passl_mixer.<name> loads when it is asked for
    found[node_of("passl_mixer")] |= {node_of(f"passl_mixer.{name}") for name in set(passl_mixer._BUILDERS.values())}
    return found


def test_every_import_is_of_a_module_that_exists():
    for path in FILES:
        assert {name for name, _ in imports_of(path)} <= set(MODULES), path


@pytest.mark.parametrize("node_of", [room, lambda module: module], ids=["rooms", "files"])
def test_no_circle(node_of):
    try:
        list(graphlib.TopologicalSorter(graph(node_of)).static_order())
    except graphlib.CycleError as error:
        pytest.fail("a circle of imports: " + " <- ".join(error.args[1]))


def test_late_imports_are_named():
    late = {str(path.relative_to(PACKAGE)) for path in FILES if any(is_late for _, is_late in imports_of(path))}
    assert late == set(LATE)


def loads(path: Path) -> set:
    """The first words of everything a file imports, in whatever form."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names} \
        | {(node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("folder", ["data", "text", "passl_yaml", "weights"])
def test_what_needs_no_paddle(folder):
    for path in (PACKAGE / folder).rglob("*.py"):
        assert "paddle" not in loads(path), path


def test_no_file_is_too_long():
    for path in [*FILES, *(PACKAGE.parent / "tools").rglob("*.py")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 270, path
