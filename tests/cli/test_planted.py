"""A model whose answers are known by construction gives exactly the expected table through the whole pipeline.

The expected rows are computed here in plain Python from the model's construction and the published Philox function:
no line of the engine, the judge, the clustering or the table is used.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import planted
import polars as pl
import pytest
from calling import Hcl

N = 40
TEMPERATURE, TOP_P = 1.5, 0.9


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 (Salmon et al. 2011), written out once more."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 1 << 32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % (1 << 32), (k1 + 0xBB67AE85) % (1 << 32)
    return c0, c1, c2, c3


def law(layer: int, token: str) -> np.ndarray:
    """The tempered next-token distribution."""
    logits = planted.scores(layer, token) / TEMPERATURE
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def test_the_exits_follow_the_planted_law(hcl: Hcl, planted_run: list[object]) -> None:
    """First answer tokens per question and exit against the law with its nucleus, by a chi-square test.

    Fixed seed; 400 draws a cell; tokens outside the nucleus must not appear at all.
    """
    from scipy.stats import chisquare

    path = hcl(*planted_run, "-n", 400, "--temperature", TEMPERATURE, "--top-p", TOP_P).path
    rows = pl.read_parquet(path)
    smallest = []
    for (question, layer), group in rows.group_by(["question", "exit_layer"]):
        probabilities = law(int(layer), str(question))
        order = np.argsort(-probabilities, kind="stable")
        before = np.concatenate([[0.0], np.cumsum(probabilities[order])[:-1]])
        kept = order[before < TOP_P]
        nucleus = dict(zip(kept, probabilities[kept] / probabilities[kept].sum(), strict=True))
        counts = dict.fromkeys(nucleus, 0)
        for response in group["response"]:
            counts[planted.WORDS.index(response.split()[0])] += 1
        if len(counts) > 1:
            smallest.append(chisquare(list(counts.values()), [400 * nucleus[token] for token in counts]).pvalue)
    assert len(smallest) >= 8
    assert min(smallest) * len(smallest) > 1e-3


def test_the_whole_pipeline_gives_exactly_the_expected_table(hcl: Hcl, planted_run: list[object]) -> None:
    sampled = hcl(*planted_run, "-n", N, "--temperature", TEMPERATURE, "--top-p", TOP_P)
    scored = hcl("score", "--cluster", "exact", stdin=sampled.out)
    table = hcl("hcb", stdin=scored.out)
    rows = pl.read_parquet(sampled.path)

    answers = {row["question"]: row["answers"] for row in planted.QUESTIONS}
    wrong, clusters = [], []
    for layer in range(1, planted.N_LAYERS + 1):
        shares, found = [], []
        for question, right in answers.items():
            given = rows.filter(pl.col("exit_layer") == layer, pl.col("question") == question)["response"].to_list()
            assert len(given) == N
            shares.append(sum(response not in right for response in given) / N)
            found.append(len({response for response in given if response in right}))
        wrong.append(np.mean(shares))
        clusters.append(np.mean(found))
    low, high = min(clusters), max(clusters)
    creativity = [(value - low) / (high - low) for value in clusters]
    expected = [0.5 * c + 0.5 * (1 - h) for c, h in zip(creativity, wrong, strict=True)]

    layers = pl.read_parquet(table.path)
    assert layers["exit_layer"].to_list() == [1, 2, 3, 4]
    assert layers["hallucination_rate"].to_list() == pytest.approx(wrong)
    assert layers["creativity_raw"].to_list() == pytest.approx(clusters)
    assert layers["hcb"].to_list() == pytest.approx(expected)
    assert layers["is_best"].to_list() == [value == max(expected) for value in expected]
    # By construction: `rome` is never found, exit 2 finds two colours, exit 3 three, exit 4 only one.
    assert wrong[0] > wrong[1] == wrong[2] == wrong[3] == pytest.approx(1 / 3)
    assert clusters[1:] == pytest.approx([1.0, 4 / 3, 2 / 3])
    assert layers.filter("is_best")["exit_layer"].to_list() == [3]


def test_every_answer_is_the_draw_of_its_address(hcl: Hcl, planted_run: list[object]) -> None:
    """Each first token recomputed from the address (seed, question, exit layer, sample, step 0, attempt)."""
    seed = 11
    path = hcl(*planted_run, "-n", N, "--temperature", TEMPERATURE, "--top-p", TOP_P, "--seed", seed).path
    for row in pl.read_parquet(path).iter_rows(named=True):
        digest = hashlib.sha256(row["question_id"].encode()).digest()
        key = (int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little"))
        probabilities = law(row["exit_layer"], row["question"])
        edges = np.cumsum(probabilities)
        for attempt in range(1000):
            counter = (row["sample_index"], row["exit_layer"], attempt << 8, seed)  # step 0, purpose 0
            words = philox(counter, key)
            uniform = ((words[0] >> 5) * 2**26 + (words[1] >> 6)) / 2**53
            token = int(np.searchsorted(edges, uniform * edges[-1], side="right"))
            likelier = probabilities > probabilities[token]
            tied = (probabilities == probabilities[token]) & (np.arange(len(edges)) < token)
            if probabilities[likelier | tied].sum() < TOP_P:
                break
        assert row["response"].split()[0] == planted.WORDS[token]


def test_greedy_answers_are_the_likeliest_ones(hcl: Hcl, planted_run: list[object]) -> None:
    path = hcl(*planted_run, "-n", 2, "--temperature", 0).path
    for row in pl.read_parquet(path).iter_rows(named=True):
        best = planted.WORDS[int(np.argmax(planted.scores(row["exit_layer"], row["question"])))]
        assert row["response"] == best
        assert row["finish_reason"] == "eos"
        assert row["n_tokens"] == 2
    assert json.loads(hcl(*planted_run, "-n", 2, "--temperature", 0, "--json").out)["cached"] is True


def test_a_foreign_file_of_responses_goes_through(hcl: Hcl, tmp_path: Path) -> None:
    """`hcl score my_vllm_responses.jsonl`: no layer, no model, only question, answers and response."""
    lines = [
        {"question": "Capital of France?", "answers": ["Paris"], "response": response}
        for response in ("Paris", "It is Paris.", "Lyon", "")
    ]
    (tmp_path / "vllm.jsonl").write_text("\n".join(map(json.dumps, lines)))
    scored = hcl("score", "vllm.jsonl", "--cluster", "exact").path
    assert pl.read_parquet(scored)["correct"].to_list() == [True, True, False, False]
    layers = pl.read_parquet(hcl("hcb", scored).path)
    assert layers["hallucination_rate"].to_list() == [0.5]
