"""A made-up stage whose rows are a plain function of their cell: the oracle of the store's tests, and their script.

Run as a script it makes one artifact, e.g. in a process that is to be killed.
"""

import argparse
import os
import resource
import signal
import sys
import time
from pathlib import Path

import polars as pl

from hcl_cli.artifacts.recipe import Recipe
from hcl_cli.artifacts.store import Block, Store
from hcl_cli.errors import HclError
from hcl_cli.schemas import RESPONSES

GROWS = ("limit", "samples", "exit_layers")
BLOCK = 2


def recipe(limit=6, samples=3, layers=(1, 2), **options):
    return Recipe(
        "responses",
        "sample",
        1,
        {"limit": limit, "samples": samples, "exit_layers": list(layers), "temperature": 0.6, **options},
        identities={"model": "m0"},
        grows=GROWS,
    )


def question_ids(limit):
    return [f"q{(7 * i) % 100:02d}" for i in range(limit)]  # not in alphabetical order


def blocks(limit=6, samples=3, layers=(1, 2)):
    ids = question_ids(limit)
    return [
        Block(start // BLOCK, {(q, layer): samples for q in ids[start : start + BLOCK] for layer in layers})
        for start in range(0, limit, BLOCK)
    ]


def row(question, layer, index):
    """One response; its floats differ in every cell."""
    return {
        **dict.fromkeys(RESPONSES.columns),
        "model": "m", "dataset": "d", "strategy": "early-exit", "temperature": 0.6, "top_p": 0.9,
        "question_id": question, "exit_layer": layer, "sample_index": index,
        "question": f"Who is {question}?", "answers": [question, "nobody"] if index % 2 else [],
        "response": f"{question} at {layer}, try {index}", "n_tokens": 3, "finish_reason": "stop",
        "mean_prob": 1 / (3 + layer + 10 * index),
    }  # fmt: skip


def frame(cells):
    rows = [row(q, layer, i) for (q, layer), (first, stop) in cells.items() for i in range(first, stop)]
    return pl.DataFrame(rows, schema=RESPONSES.polars_schema())


def expected(limit=6, samples=3, layers=(1, 2)):
    """The artifact's rows by their definition."""
    return frame({(q, layer): (0, samples) for q in question_ids(limit) for layer in sorted(layers)})


class Stage:
    """Computes blocks and notes what it was asked."""

    def __init__(self, fail=None):
        self.calls = []
        self.fail = fail or {}

    def __call__(self, block, missing):
        self.calls.append((block.index, dict(missing)))
        if block.index in self.fail:
            raise self.fail[block.index]
        return frame(missing)

    @property
    def n_cells(self):
        """Rows asked for so far."""
        return sum(stop - first for _, missing in self.calls for first, stop in missing.values())


def make(store, stage=None, *, limit=6, samples=3, layers=(1, 2), force=False, **options):
    return store.produce_cells(
        recipe(limit, samples, layers, **options),
        RESPONSES,
        blocks(limit, samples, layers),
        stage or Stage(),
        force=force,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("--limit", type=int, default=6)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--calls", type=Path, help="a line is appended for every block computed")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds per block")
    parser.add_argument("--die-in-block", type=int, help="SIGKILL itself when asked for this block")
    parser.add_argument("--die-at-rename", type=int, help="SIGKILL itself before the n-th rename")
    parser.add_argument("--file-size", type=int, help="no file may grow beyond this many bytes")
    arguments = parser.parse_args()
    if arguments.file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (arguments.file_size, arguments.file_size))
    if arguments.die_at_rename is not None:
        rename, renames = os.replace, [0]

        def replace(old, new):
            renames[0] += 1
            if renames[0] == arguments.die_at_rename:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(old, new)

        os.replace = replace

    def compute(block, missing):
        if arguments.calls:
            with arguments.calls.open("a") as file:
                file.write(f"{os.getpid()} {block.index}\n")
        if block.index == arguments.die_in_block:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(arguments.pause)
        return frame(missing)

    def warn(line):
        print(line, file=sys.stderr, flush=True)

    shape = {"limit": arguments.limit, "samples": arguments.samples}
    store = Store(arguments.store, warn=warn)
    try:
        artifact = store.produce_cells(recipe(**shape), RESPONSES, blocks(**shape), compute)
    except HclError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(artifact.path, artifact.computed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
