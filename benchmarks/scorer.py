"""`hcl score` against the published way, one `encode` call per answer, in one interleaved run.

    python benchmarks/scorer.py                            # made-up responses, three shares of distinct strings
    python benchmarks/scorer.py --responses FILE.parquet   # responses that `hcl sample` wrote

Ours is the whole stage: judging, embedding, both clusterings, the table. The peer is the embedding alone, on a random
subset of the responses (`--peer`), as a part of which its time for all of them is given. Each round times both, one
after the other. Loading the encoder is in neither.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np
import polars as pl

from hcl_cli.models.encoders import find_encoder, load_encoder
from hcl_cli.resources import data_file
from hcl_cli.stages.clusterings import Cosine
from hcl_cli.stages.score import scored

LAYERS, SAMPLES = 10, 50


def made_up(n_responses: int, share: float, seed: int = 0) -> pl.DataFrame:
    """Responses to TriviaQA questions at ten exits, `share` of them distinct: each question has a pool of answers,
    right and wrong, from which every one is drawn at least once."""
    draw = random.Random(seed)
    n_questions = n_responses // (LAYERS * SAMPLES)
    questions = pl.read_parquet(data_file("sets", "triviaqa.parquet")).head(n_questions)
    names = sorted({answer for row in questions["answers"].to_list() for answer in row})
    used: set[str] = set()
    columns: dict[str, list[object]] = {
        name: [] for name in ("question_id", "question", "answers", "exit_layer", "sample_index", "response")
    }
    for row in questions.iter_rows(named=True):
        pool: list[str] = []
        while len(pool) < max(1, round(share * LAYERS * SAMPLES)):
            name = draw.choice(row["answers"] if draw.random() < 0.2 else names)
            text = draw.choice(("{}", "{}", "It is {}", "the {} of {}")).format(name, draw.choice(names))
            if text not in used:
                used.add(text)
                pool.append(text)
        drawn = pool + draw.choices(pool, k=LAYERS * SAMPLES - len(pool))
        draw.shuffle(drawn)
        for place, text in enumerate(drawn):
            values = (row["question_id"], row["question"], row["answers"], place // SAMPLES + 1, place % SAMPLES, text)
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    return pl.DataFrame(columns)


def clocks() -> np.ndarray:
    """Wall clock and CPU time of this process, in seconds: on a shared machine the second is the steadier."""
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    """Print one line per set of responses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=Path, help="a Parquet file of RESPONSES instead of made-up ones")
    parser.add_argument("--n", type=int, default=40_000, help="made-up responses (default 40,000)")
    parser.add_argument("--shares", default="0.05,0.2,1", help="shares of distinct strings among them")
    parser.add_argument("--peer", type=int, default=200, help="answers that the peer embeds per round (default 200)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(options.threads)
    reference = find_encoder()
    ours, peer = load_encoder(reference), SentenceTransformer(str(reference.folder), device="cpu")
    ours.encode(["warm"] * 100)
    peer.encode("warm")

    if options.responses:
        sets = [(options.responses.name, pl.read_parquet(options.responses))]
    else:
        sets = [("made up", made_up(options.n, float(share))) for share in options.shares.split(",")]
    print(f"{options.threads} thread(s), {options.rounds} rounds, medians (least to most)")
    print(f"peer: one encode call per answer, {options.peer} answers a round, extrapolated to all; ours: all of them")
    draw = random.Random(0)
    for name, frame in sets:
        peers, mine = [], []
        for _ in range(options.rounds):
            subset = draw.sample(frame["response"].to_list(), options.peer)
            start = clocks()
            for text in subset:
                peer.encode(text, show_progress_bar=False)
            peers.append((clocks() - start) * (frame.height / options.peer))
            start = clocks()
            scored(frame, clusterings=[Cosine(ours.encode, reading=ours.reading)])
            mine.append(clocks() - start)
        wall, cpu = (sorted(ratio) for ratio in (np.array(peers) / np.array(mine)).T)
        start = time.perf_counter()
        scored(frame)
        unembedded = time.perf_counter() - start
        seconds = [np.median(np.array(each), axis=0) for each in (peers, mine)]
        print(
            f"{name}: n = {frame.height:,} responses, {frame['response'].n_unique():,} distinct: "
            f"wall: peer {seconds[0][0]:.0f} s, ours {seconds[1][0]:.1f} s, "
            f"ratio {np.median(wall):.1f} ({wall[0]:.1f} to {wall[-1]:.1f}); "
            f"CPU: peer {seconds[0][1]:.0f} s, ours {seconds[1][1]:.1f} s, "
            f"ratio {np.median(cpu):.1f} ({cpu[0]:.1f} to {cpu[-1]:.1f}); "
            f"ours without embedding (clusters by equal words) {unembedded:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
