"""Write docs/model_zoo.md from the registry: sizes, flexibility, strides, papers, published accuracies, deviations.

python tools/model_zoo.py            (a test fails when the page is not what this writes)
"""
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("GLOG_minloglevel", "2")

from passl_mixer import list_backbones  # noqa: E402
from passl_mixer.backbones.published import PUBLISHED_TOP1  # noqa: E402
from passl_mixer.registry import BACKBONES  # noqa: E402
from passl_mixer.surgery.macs import summary  # noqa: E402

PAGE = ROOT / "docs" / "model_zoo.md"
HEADER = """# Backbones

Written by `python tools/model_zoo.py` from the registry; do not edit. Parameters and GMACs include a 1000-class linear
head. `passl_mixer/surgery/macs.py` counts them at the given image size. Top-1 is ImageNet-1k accuracy as the source
reports it for training on ImageNet-1k alone; nothing in that column was measured here. Free-form classes take every
option from YAML ([config.md](config.md)).
"""
COLUMNS = ("| name | parameters | GMACs | at | image size | strides | published top-1 | read in |\n"
           + "|---" * 8 + "|\n")


def row(name: str, size_of) -> str:
    """One table row."""
    size = size_of(name)
    height, width = size["img_size"]
    top1, source = PUBLISHED_TOP1.get(name, ("-", "-"))
    flexible = "any" if size["any_size"] else "fixed when built"
    strides = ", ".join(map(str, size["feature_strides"]))
    return (f"| `{name}` | {size['parameters']:,} | {size['macs'] / 1e9:.2f} | {height}x{width} | {flexible} "
            f"| {strides} | {top1} | {source} |\n")


def family(cls: type, names: list, size_of) -> str:
    """One section: the file's own words on paper and deviations, then the table."""
    text = sys.modules[cls.__module__].__doc__.strip()
    title, _, rest = text.partition("\n")
    words = rest.partition("Shapes:")[0].strip()
    file = cls.__module__.replace(".", "/") + ".py"
    free = next(n for n in BACKBONES.names() if BACKBONES.entry(n) == (cls, {}))
    return (f"\n## {title.rstrip('.')}\n\n{words}\n\nFree-form: `{free}`, file `{file}`.\n\n{COLUMNS}"
            + "".join(row(n, size_of) for n in names if n != free))


def page(size_of=summary) -> str:
    """The whole page; ``size_of`` gives what ``macs.summary`` gives for a name."""
    families: dict = {}
    for name in list_backbones():
        families.setdefault(BACKBONES.entry(name)[0], []).append(name)
    return HEADER + "".join(family(cls, names, size_of) for cls, names in families.items())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(ROOT))
