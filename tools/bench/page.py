"""docs/performance.md, written from the records that ``tools/benchmark.py --json FILE`` gathered."""
import json
from pathlib import Path

from bench.targets import TARGETS
from passl_mixer.errors import BadInput

HEAD = """# Performance

Written by `python tools/benchmark.py --page RESULTS.json docs/performance.md`; do not edit (notes:
`docs/performance_notes.md`). Every ratio comes from neighbouring steps of two sides that took turns in one run: median
(lowest - highest). Times and images a second are context only: they change with the machine and its load.
"""
RULES = """
## How it is measured

`tools/benchmark.py --targets` makes the measurements of the first table in order, one suite or peer at a time. A side
is a process of its own, with as many threads as there are physical cores, or one of several networks in one process.
Warm-up lasts until page faults are over: four steps at most, one where a step takes five seconds. `speed` is the time
of the other side over ours. A training step is forward pass, cross entropy, backward pass and AdamW on 1000 classes. A
share of peak is arithmetic (two operations per multiply-accumulate of `passl_mixer/surgery/macs.py`, a training step
three times its forward pass) over the best of several matrix products, a square one and the network's own largest,
measured in the same process and precision beside every step. Memory is the largest resident set of the process.

PyTorch is measured at its best: eager, compiled (`torch.compile` for fixed shapes, with constant weights for
inference), under bfloat16 autocast, and both, all in one process, with fused AdamW. Networks with convolutions run in
the memory layout that was faster in a trial. Compiling is not timed. All ways take turns with ours. The fastest is the
one with the least median.

A *race* is the time to an accuracy. It begins with the command, so imports and compiling count, with the cache of
compiled programs filled before. PyTorch's recipe has timm's network, torchvision's views and lightly's loss, with the
same values. Both sides are evaluated by kNN after the same epochs, which counts; the accuracy with one label per class
is computed when the clock has stopped.
"""
TITLES = {"backbones": "Backbones", "methods": "Methods", "views": "Views", "export": "Exported models",
          "scaling": "Processes and batch", "recompute": "Recomputation", "variants": "CycleFC and its replacements",
          "tuning": "CPU set-up on against off", "ways": "Settings of a run", "timm": "Against timm",
          "lightly": "Against a SimCLR step on PyTorch", "torchvision": "Against torchvision",
          "albumentations": "Against albumentations", "search": "Search against faiss",
          "views_peers": "Views against torchvision and albumentations",
          "torch_cycle": "CycleMLP and ConvMLP against PyTorch",
          "race": "Time to accuracy",
          "passl": "Against PASSL", "paddlevit": "Against PaddleViT"}
COLUMNS = ("seconds", "images_per_second", "gflops", "peak_mib")
REACHED = {True: "yes", False: "**no**", None: "-"}
PARTS = ("data", "forward", "backward", "exchange", "optimiser", "after_step")


def read(path: Path) -> dict:
    """The last record of every (suite, case, metric), in order of first appearance.

    Raises:
        BadInput: a line that is not a record.
    """
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            found[record["suite"], record["case"], record.get("metric")] = record
            record["ours"]["seconds"]
        except (ValueError, KeyError, TypeError):
            raise BadInput(f"{path}, line {number} is not a record of tools/benchmark.py; expected one JSON object a "
                           "line with suite, case and ours; give the file that --json wrote") from None
    return found


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def ratio(record: dict) -> str:
    """Median and range."""
    if "ratio" not in record:
        return "-"
    return "{} ({} - {})".format(*(number(record["ratio"][key]) for key in ("median", "min", "max")))


def targets_table(records: dict) -> str:
    """The first table: every target, measured or not run."""
    lines = ["## Targets, two CPU cores", "", "| what | against | target | measured | reached |",
             "|---|---|---|---|---|"]
    for target in TARGETS.values():
        record = next((r for r in records.values() if target.fits(r)), None)
        measured = "not run" if record is None else f"{ratio(record)}, {record['repeats']} repeats"
        reached = REACHED[None if record is None else target.reached(record)]
        lines.append(f"| {target.what} | {target.other} | {target.goal()} | {measured} | {reached} |")
    return "\n".join(lines) + "\n"


def parts(side: dict) -> str:
    """The parts of a step in per cent of its seconds."""
    found = side.get("parts", {})
    return ", ".join(f"{name} {100 * found[name] / side['seconds']:.0f}" for name in PARTS if name in found) or "-"


def other(record: dict) -> str:
    """The seconds of the other side; of matrix products, which have no step, their rate."""
    peer = record.get("peer")
    if peer is None:
        return "-"
    return f"{number(peer['gflops'])} GFLOP/s" if record["metric"] == "share of peak" else number(peer["seconds"])


def suite_table(suite: str, records: list) -> str:
    """One section: a row a record."""
    lines = [f"## {TITLES.get(suite, suite)}", "",
             "| case | against | metric | ratio | ours: s | images/s | GFLOP/s | peak MiB | parts, % | other: s |",
             "|---" * 10 + "|"]
    for record in records:
        mine, peer = record["ours"], record.get("peer", {})
        cells = [number(mine[key]) if key in mine else "-" for key in COLUMNS]
        lines.append(f"| {record['case']} | {peer.get('name', '-')} | {record.get('metric', '-')} | {ratio(record)} | "
                     f"{' | '.join(cells)} | {parts(mine)} | {other(record)} |")
    return "\n".join(lines) + "\n"


def ways_table(records: list) -> str:
    """PyTorch's ways: our ratio to each, a row a case; the fastest is in bold. Empty where no record has any."""
    measured = [record for record in records if record["suite"] != "race" and "ways" in record]
    if not measured:
        return ""
    names = list(dict.fromkeys(way for record in measured for way in record["ways"]))
    lines = ["## PyTorch in all its ways", "",
             "Our speed over that of PyTorch in each way, in the same run; above 1 ours is faster. Bold is the fastest "
             "way, which counts in the targets.", "",
             f"| case | peer | ours in | {' | '.join(names)} |", "|---" * (3 + len(names)) + "|"]
    for record in measured:
        cells = []
        for way in names:
            words = ratio(record["ways"].get(way, {}))
            cells.append(f"**{words}**" if way == record["fastest"] else words)
        lines.append(f"| {record['case']} | {record['peer']['name']} | {record['ours'].get('precision', '-')} | "
                     f"{' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def race_table(records: list) -> str:
    """Races: seconds to each accuracy, a row a threshold, and a line a run with its curve."""
    lines = [f"## {TITLES['race']}", "",
             "| race | ours: s | PyTorch: s | ratio | PyTorch's way | every way, s | runs |", "|---" * 7 + "|"]
    curves = []
    for record in records:
        mine, peer = record["ours"], record["peer"]
        ways = ", ".join(f"{way} {arrival(seconds)}" for way, seconds in record["ways"].items())
        lines.append(f"| {record['case']} | {arrival(mine['seconds'])} | {arrival(peer['seconds'])} | "
                     f"{record.get('missed') or ratio(record)} | {record['fastest']} | {ways} | {record['repeats']} |")
        for who, side in (("ours", mine), (f"PyTorch, {record['fastest']}", peer)):
            curve = ", ".join(f"{point['seconds']:.0f} s {point['accuracy']:.3f}" for point in side["curves"][0])
            curves.append(f"- {record['case'].rpartition(' ')[0]}, {who}, first run: {curve}")
    return "\n".join([*lines, "", *dict.fromkeys(curves)]) + "\n"


def arrival(seconds) -> str:
    """Seconds to an accuracy."""
    return "not reached" if seconds is None else number(seconds)


def machines(records: dict) -> str:
    """A line for every machine and environment that the records name."""
    found = []
    for record in records.values():
        machine = {k: v for k, v in record.get("machine", {}).items() if k != "load"}
        versions = record.get("peer", {}).get("versions", {})
        words = ", ".join(f"{key} {value}" for key, value in {**machine, **versions}.items())
        if words and words not in found:
            found.append(words)
    loads = [record["machine"]["load"] for record in records.values() if "load" in record.get("machine", {})]
    if loads:
        found.append(f"load average (one minute) when records were written: {min(loads)} - {max(loads)}")
    return "## Machine\n\n" + ("\n".join(f"- {words}" for words in found) or "Nothing was run yet.") + "\n"


def page(records: dict, notes: str) -> str:
    """The whole page.

    Args:
        records: of ``read``.
        notes: Markdown that goes in as it is, after the first table; may be empty.
    """
    suites = {}
    for record in records.values():
        suites.setdefault(record["suite"], []).append(record)
    ways, races = ways_table(list(records.values())), suites.pop("race", [])
    sections = [HEAD, targets_table(records), *([notes.strip() + "\n"] if notes.strip() else []),
                *([ways] if ways else []), *([race_table(races)] if races else []),
                *(suite_table(suite, suites[suite]) for suite in (*TITLES, *sorted(set(suites) - set(TITLES)))
                  if suite in suites), RULES.lstrip("\n"), machines(records)]
    return "\n".join(sections)


def write(results: Path, output: Path) -> None:
    """Write the page; the notes are the file beside it called ``<name>_notes.md``, where there is one.

    Raises:
        BadInput: there are no results.
    """
    if not results.is_file():
        raise BadInput(f"there is no file {results}; expected what tools/benchmark.py --json wrote")
    notes = output.with_name(output.stem + "_notes.md")
    words = notes.read_text(encoding="utf-8") if notes.is_file() else ""
    output.write_text(page(read(results), words), encoding="utf-8")
