"""Docstrings say what a caller must know: shapes of tensors, arguments, errors. Read from every file's syntax tree."""
import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "passl_mixer"
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

# A parameter is a tensor or an array by its annotation or, without one, by its name; ``x_bchw`` names its layout.
TENSOR_NAMES = {"x", "y", "z", "z1", "z2", "p1", "p2", "q", "k", "v", "a", "b", "dy", "image", "images", "views_u8",
                "features", "embeddings", "query", "key", "queue", "queries", "bank", "scores", "logits", "targets",
                "labels", "bank_labels", "train_labels", "test_labels", "text", "tokens", "token_ids", "ids", "batch",
                "weight", "bias", "scale", "shift"}
LAYOUT = re.compile(r"\w+_[bnmcdhwsko]{1,4}")
ARRAY_TYPES = ("Tensor", "ndarray")
# [B, C], [out, in], [..., 2 * C], [B, dims[-1]]; intervals as [0, 1] and [-h, h] are no shapes.
BRACKETS = re.compile(r"\[((?:[^\[\]()]|\[[^\[\]()]*\])+)\]")
SIDE = re.compile(r"\s*(?:\d+ \*? ?)?(?:[A-Z]|[a-z_]{2}|\.\.\.)")


def functions(tree):
    """``(qualified name, function, class or None)`` of the public functions and methods of a module."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node, None
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and (
                        not method.name.startswith("_") or method.name in ("__init__", "__call__")):
                    yield f"{node.name}.{method.name}", method, node


def parameters(function, owner) -> list:
    own = function.args.posonlyargs + function.args.args
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list)
    own = own[1:] if owner is not None and not static else own
    starred = [arg for arg in (function.args.vararg, function.args.kwarg) if arg is not None]
    return own + function.args.kwonlyargs + starred


def is_array(parameter, function: str) -> bool:
    if parameter.annotation is None:
        return function == "forward" or parameter.arg in TENSOR_NAMES or LAYOUT.fullmatch(parameter.arg) is not None
    words = ast.unparse(parameter.annotation)
    return any(name in words for name in ARRAY_TYPES) and not re.search(r"[Dd]ict|Mapping|Callable", words)


def documentation(function, owner) -> str:
    """The docstring of a function; a constructor's is that of its class."""
    return ast.get_docstring(owner if function.name == "__init__" else function) or ""


def has_shape(text: str) -> bool:
    return any(SIDE.match(side) for group in BRACKETS.findall(text) for side in group.split(","))


def section(text: str, name: str) -> str:
    """The indented lines under ``Args:`` or another heading."""
    match = re.search(rf"^{name}:\n((?:[ ]+.*\n?|\n)*)", text, re.MULTILINE)
    return match.group(1) if match else ""


def raises(function) -> bool:
    """Whether the body has a ``raise`` of its own; one that hands on what was caught does not count."""
    waiting = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Raise) and node.exc is not None:
            return True
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)
    return False


def named(args: str) -> set:
    """The parameters of an ``Args`` section, ``name:`` or ``one, other:`` with the indentation of its first line."""
    depth = len(args) - len(args.lstrip(" "))
    entries = re.findall(rf"^ {{{depth}}}(\*{{0,2}}\w+(?:, \*{{0,2}}\w+)*):", args, re.MULTILINE)
    return {name.lstrip("*") for entry in entries for name in entry.split(", ")}


def complaints(source: str):
    """Lines that say which docstring lacks what."""
    tree = ast.parse(source)
    for name, function, owner in functions(tree):
        text, taken = documentation(function, owner), parameters(function, owner)
        around = f"{text}\n{ast.get_docstring(owner) or ''}" if owner is not None else text
        arrays = [p.arg for p in taken if is_array(p, function.name)]
        if arrays and function.name != "__init__" and not has_shape(around):
            yield f"{name}: no shape of {', '.join(arrays)} in brackets, as [B, C]"
        described = named(section(text, "Args"))
        if len(taken) >= 3 and not described:
            yield f"{name}: {len(taken)} parameters and no Args"
        left_out = {p.arg for p in taken} - described
        if described and left_out and "others" not in described:        # others: where they are described
            yield f"{name}: Args leaves out {', '.join(sorted(left_out))}"
        strange = described - {p.arg for p in taken} - {"others"}
        if strange:
            yield f"{name}: Args describes {', '.join(sorted(strange))}, which it does not take"
        if raises(function) and not section(text, "Raises"):
            yield f"{name}: raises and has no Raises"
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            if re.match(r"What\b", ast.get_docstring(node) or ""):
                yield f"{getattr(node, 'name', 'the module')}: begins with 'What'"


@pytest.mark.parametrize("file", FILES)
def test_docstrings_are_complete(file):
    assert list(complaints(FILES[file].read_text(encoding="utf-8"))) == []


SAMPLES = {
    "no shape": 'def scaled(x, factor: float):\n    """``factor * x``, in [0, 1] or [-h, h]."""',
    "no shape of queries": 'def f(queries):\n    """Of ``[(name, parameter)]``."""',
    "no shape of pixels": 'class A:\n    """Maps."""\n    def forward(self, pixels):\n        return pixels',
    "no Args": 'def f(a: int, b: int, c: int):\n    """Sum."""',
    "leaves out c": 'def f(a: int, b: int, c: int):\n    """Sum.\n\n    Args:\n        a, b: terms.\n    """',
    "describes d": 'def f(a: int, b: int):\n    """Sum.\n\n    Args:\n        a, b: terms.\n        d: none.\n    """',
    "no Raises": 'class A:\n    """One."""\n    def __init__(self, a: int):\n        raise BadInput("a")',
    "begins with 'What'": 'def _f():\n    """What it does."""',
}


@pytest.mark.parametrize("words", SAMPLES)
def test_missing_parts_are_reported(words):
    assert words in "".join(complaints(SAMPLES[words]))


def test_a_complete_docstring_passes():
    assert list(complaints('''
def rotate(images: paddle.Tensor, turns: int, axes=(2, 3)):
    """Rotated images.

    Args:
        images: [B, C, H, W].
        turns: of 90 degrees.
        axes: of the rotation, [2].
    Raises:
        BadInput: ``turns`` out of range.
    """
    if not 0 <= turns < 4:
        raise BadInput("turns")

class Head:
    """[B, D] to [B, C]."""
    def forward(self, features):
        try:
            return features
        except ValueError:
            raise
''')) == []
