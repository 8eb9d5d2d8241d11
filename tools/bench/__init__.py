"""The parts of ``tools/benchmark.py``: what it measures (suites, peers), how (turns), and how it tells (page)."""
