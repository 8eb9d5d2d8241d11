"""Times faiss' exact search, ``IndexFlatIP``, on random features of length 1.

A peer for ``tools/benchmark.py``: run by the interpreter of an environment with faiss-cpu and NumPy; it imports nothing
of this project's package. The set-up, all required:

    {"bank": 50000, "width": 384, "queries": 10000, "k": 20, "threads": 2, "min_seconds": 0.5}

The index is filled before; a step is one search. Its answer has the sums of the similarities and of the rows, by which
both sides are held to the same neighbours.
"""
import faiss
import protocol
import random_features


def main() -> None:
    """Read the set-up, then measure one step a line."""
    channel = protocol.Channel()
    setup = channel.setup
    faiss.omp_set_num_threads(setup["threads"])
    index = faiss.IndexFlatIP(setup["width"])
    for rows in random_features.blocks(setup["bank"], setup["width"], 0):
        index.add(rows)
    queries = random_features.all_of(setup["queries"], setup["width"], 1)
    step, facts = random_features.search_step(lambda: index.search(queries, setup["k"]), setup["queries"])
    channel.serve({"step": step}, {"step": {**facts, "versions": {"faiss": faiss.__version__}}})


if __name__ == "__main__":
    main()
