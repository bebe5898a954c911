"""`hcl dola` through the program: its answers, its columns, and that `score` reads them."""

import json
import math
from pathlib import Path

import planted
import polars as pl
import pytest
from calling import Hcl
from dola_files import REFERENCES, write_references
from test_surface import heavy_imports

LAYERS = planted.N_LAYERS


def test_vanilla_gives_the_answers_of_the_last_exit(hcl: Hcl, dola: list[object], planted_run: list[object]) -> None:
    drawing = ["-n", 8, "--temperature", 1.5, "--top-p", 0.9]
    ours = pl.read_parquet(hcl(*dola, "--methods", "vanilla", *drawing).path)
    theirs = pl.read_parquet(hcl(*planted_run, "--exit-layers", LAYERS, *drawing).path)
    key = ["question_id", "sample_index"]
    joined = ours.join(theirs, on=key, suffix="_sampled")
    assert joined.height == 24
    assert joined["text"].to_list() == joined["text_sampled"].to_list()
    assert joined["mean_mature_logprob"].to_list() == pytest.approx(joined["mean_logprob_sampled"].to_list(), abs=1e-5)
    assert ours["premature_layers"].null_count() == ours.height
    assert set(ours["exit_layer"]) == {LAYERS} and set(ours["strategy"]) == {"contrast"}


def test_every_token_names_its_premature_layer(hcl: Hcl, dola: list[object]) -> None:
    rows = pl.read_parquet(hcl(*dola, "--methods", "dola:1-3,static:2").path)
    assert rows["method"].to_list() == ["dola:1-3", "static:2"] * 3
    for row in rows.iter_rows(named=True):
        assert len(row["premature_layers"]) == len(row["divergences"]) == len(row["tokens"]) == row["n_tokens"]
        assert set(row["premature_layers"]) <= ({1, 2, 3} if row["method"] == "dola:1-3" else {2})
        assert all(0 <= value <= 0.6932 for value in row["divergences"])


def test_another_method_computes_only_its_own_answers(
    hcl: Hcl, dola: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hcl_cli.stages import dola as stage

    hcl(*dola, "--methods", "vanilla,static:1")
    answered, asked = stage.answered, []

    def noted(loaded, questions, missing, *rest, **names):
        asked.extend(missing)
        return answered(loaded, questions, missing, *rest, **names)

    monkeypatch.setattr(stage, "answered", noted)
    hcl(*dola, "--methods", "vanilla,static:1,static:2")
    assert sorted(asked) == [("hard", "static:2"), ("many", "static:2"), ("one", "static:2")]


def test_answers_go_on_to_score(hcl: Hcl, dola: list[object]) -> None:
    made = hcl(*dola, "--methods", "vanilla,dola:1-3")
    judged = hcl("score", "--cluster", "exact", stdin=made.out)
    scored = pl.read_parquet(judged.path)
    assert scored["correct"].null_count() == 0
    assert scored.select("question_id", "method", "premature_layers").equals(
        pl.read_parquet(made.path).select("question_id", "method", "premature_layers")
    )
    assert "holds table dola" in hcl("hcb", stdin=made.out).err
    balanced = hcl("hcb", "--figure", "hcb.svg", stdin=judged.out)
    layers = pl.read_parquet(balanced.path)
    assert layers.select("method", "exit_layer").rows() == [("vanilla", LAYERS), ("dola:1-3", LAYERS)]
    wrong = scored.group_by("method", "question_id").agg((~pl.col("correct")).mean())
    wrong = dict(wrong.group_by("method").agg(pl.col("correct").mean()).iter_rows())
    assert layers["hallucination_rate"].to_list() == pytest.approx([wrong["vanilla"], wrong["dola:1-3"]])
    assert "is best" in balanced.err or "tie for the best" in balanced.err
    assert Path("hcb.svg").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "deeper"], ["--methods 'deeper'", "vanilla"]),
        (["--methods", "static:4"], ["static:4"]),
        (["--methods", "dola:9"], ["dola:9"]),
        (["--methods", "vanilla,vanilla"], ["vanilla is there twice"]),
        (["--methods", "dola:1,2,dola:2,1"], ["dola:1,2 and dola:2,1 are one method"]),
        (["--methods", "vanilla@norm"], ["'norm' means nothing for vanilla"]),
        (["--alpha", "1.5"], ["--alpha 1.5", "0 to 1"]),
        (["--penalty", "0"], ["--penalty 0"]),
        (["--divergence", "kl"], ["--divergence kl", "jsd"]),
        (["--penalty-on", "none"], ["--penalty-on none"]),
        (["--n-shots", "2"], ["--n-shots 2"]),
        (["--prompt", "nowhere"], ["nowhere"]),
        (["--max-new-tokens", "64"], ["shorten the prompt (fewer --n-shots) or ask for fewer --max-new-tokens"]),
        (["--metrics", "none", "--table", "t.md"], ["--table t.md: with --metrics none there is nothing to write"]),
        (["--columns", "prefix=a"], ["'prefix' cannot be set, only question_id, question, answers, best_answer"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_options_that_cannot_be_used(hcl: Hcl, dola: list[object], arguments: list[str], words: list[str]) -> None:
    result = hcl(*dola, *arguments)
    assert result.code == 2, result.err
    assert result.out == "" and "Traceback" not in result.err
    for word in words:
        assert word in result.err.splitlines()[-1]


def test_json_and_the_lab_prompt_with_pairs(hcl: Hcl, tmp_path: Path) -> None:
    done = hcl(
        "dola", "-d", "lab", "--limit", 2, "--prompt", "truthfulqa", "--n-shots", 1, "--max-new-tokens", 3, "--json"
    )
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert (answer["table"], answer["rows"]) == ("dola", 6)
    assert "Jensen-Shannon" in done.err


def test_a_hit_imports_nothing_heavy(hcl: Hcl, dola: list[object], tmp_path: Path) -> None:
    first = hcl(*dola, "--methods", "vanilla,static:1")
    assert hcl(*dola, "--methods", "vanilla,static:1").out == first.out
    assert heavy_imports(tmp_path, *dola, "--methods", "vanilla,static:1") == []


def test_answers_are_scored_and_compared_with_vanilla(hcl: Hcl, dola: list[object], tmp_path: Path) -> None:
    """Exact match by hand: the share of greedy answers that are an accepted one."""
    write_references(tmp_path)
    call = [*dola, "--methods", "vanilla,static:1", "--metrics", "exact,bleu", "--table", "t.csv", "--json"]
    done = hcl(*call)
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    tables = {one["table"]: pl.read_parquet(one["path"]) for one in answer["also"]}
    assert set(tables) == {"text-scores", "compared"}
    rows = pl.read_parquet(answer["path"])
    accepted = {row["question_id"]: row["correct_answers"] for row in REFERENCES}
    for method in ("vanilla", "static:1"):
        own = rows.filter(pl.col("method") == method)
        share = sum(response in accepted[name] for name, response in own.select("question_id", "response").rows()) / 3
        found = tables["compared"].filter(
            (pl.col("method") == method) & (pl.col("metric") == "exact") & (pl.col("against") == "correct")
        )
        assert found["value"].to_list() == pytest.approx([share])
    # The user's order; the answers themselves stand by name.
    assert tables["compared"]["method"].unique(maintain_order=True).to_list() == ["vanilla", "static:1"]
    assert rows["method"].unique(maintain_order=True).to_list() == ["static:1", "vanilla"]
    assert (tmp_path / "t.csv").read_text().count("\n") > 4
    assert json.loads(hcl(*call).out)["cached"]


def test_a_metric_of_the_library_evaluate_alone(hcl: Hcl, dola: list[object]) -> None:
    done = hcl(*dola, "--methods", "vanilla,static:1", "--metrics", "evaluate:hcl_exact_match", "--json")
    assert done.code == 0, done.err
    (one,) = json.loads(done.out)["also"]
    found = pl.read_parquet(one["path"])
    assert all(name.startswith("evaluate:hcl_exact_match/") for name in found["metric"]) and found.height == 2


def test_a_changed_script_of_a_metric_is_asked_again(hcl: Hcl, dola: list[object], tmp_path: Path) -> None:
    """The name alone was in the recipe, so that the old number came from the store."""
    from hcl_cli.stages import evaluate_metrics

    script = tmp_path / "mine" / "mine.py"
    script.parent.mkdir()
    call = [*dola, "--methods", "vanilla", "--metrics", f"evaluate:{script.parent}", "--json"]
    found = []
    for number in (1.5, 2.5):
        evaluate_metrics._loaded.cache_clear()  # another call of the program would be another process
        script.write_text(METRIC.format(number=number))
        done = hcl(*call)
        assert done.code == 0, done.err
        assert len(done.out.splitlines()) == 1 and "the metric speaks" in done.err
        (one,) = json.loads(done.out)["also"]
        found.append(pl.read_parquet(one["path"])["value"].to_list())
    assert found == [[1.5], [2.5]]


METRIC = """
import datasets
import evaluate

class Mine(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        features = datasets.Features({{"predictions": text, "references": datasets.Sequence(text)}})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        print("the metric speaks")
        return {{"number": {number}}}
"""


def test_what_a_metric_of_the_hub_says_is_shown_and_not_kept(
    hcl: Hcl, dola: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing tells whether its script is still the same one."""
    from hcl_cli.stages import evaluate_metrics as stage

    monkeypatch.setattr(stage, "metric_identity", lambda name: None)
    call = [*dola, "--methods", "vanilla", "--metrics", "exact,evaluate:hcl_exact_match", "--table", "t.csv", "--json"]
    done = hcl(*call)
    assert done.code == 0, done.err
    kept = {one["table"]: pl.read_parquet(one["path"]) for one in json.loads(done.out)["also"]}
    assert set(kept["compared"]["metric"]) == {"exact"}
    assert "evaluate:hcl_exact_match/exact_match" in Path("t.csv").read_text()


def test_lists_in_a_csv_are_lists_of_references(hcl: Hcl, dola: list[object], tmp_path: Path) -> None:
    """'["rome", "paris"]' was one text that no answer equals; and under other names of columns."""
    write_references(tmp_path)
    call = ["--methods", "vanilla", "--metrics", "exact", "--json"]
    plain = hcl(*dola, *call)
    lines = ["question_id,question,answers,best_answer,good,bad"]
    for row in REFERENCES:
        cells = [row["question_id"], row["question"], row["answers"], row["best_answer"], row["correct_answers"]]
        written = [one if isinstance(one, str) else json.dumps(one) for one in [*cells, row["incorrect_answers"]]]
        lines.append(",".join('"' + one.replace('"', '""') + '"' for one in written))
    (tmp_path / "q.csv").write_text("\n".join(lines))
    renamed = ["--columns", "correct_answers=good,incorrect_answers=bad"]
    other = hcl(dola[0], tmp_path / "q.csv", *dola[2:], *call, *renamed)
    assert other.code == 0, other.err
    values = []
    for done in (plain, other):
        (path,) = [one["path"] for one in json.loads(done.out)["also"] if one["table"] == "compared"]
        values.append(pl.read_parquet(path).select("against", "value").rows())
    assert values[0] == values[1] and dict(values[0])["correct"] == pytest.approx(2 / 3)
    (tmp_path / "q.jsonl").write_text(json.dumps(REFERENCES[0] | {"best_answer": 7}))
    refused = hcl(dola[0], tmp_path / "q.jsonl", *dola[2:], *call)
    assert refused.code == 2
    assert "q.jsonl, line 1, column best_answer: 7, expected text" in refused.err.splitlines()[-1]


def test_an_average_over_the_batch_is_the_same_in_a_grown_store(hcl: Hcl, dola: list[object]) -> None:
    """Cells that were there were left out of the batch, so that the others were averaged in another company."""
    call = [*dola, "--methods", "vanilla,dola:2,3@averaged", "--metrics", "none", "--max-new-tokens", 3]
    hcl(*call, "--limit", 1, "--store", "grown")
    grown = hcl(*call, "--store", "grown").path
    fresh = hcl(*call, "--store", "fresh").path
    assert grown.read_bytes() == fresh.read_bytes()
    alone = pl.read_parquet(hcl(*call, "--limit", 1, "--store", "grown").path)
    whole = pl.read_parquet(fresh)
    key = ("question_id", "method")
    assert not alone.equals(whole.join(alone.select(key), on=key, how="semi")), "the company must matter here"


@pytest.mark.parametrize("option", ["-o", "--table", "--published-table", "--figure"])
@pytest.mark.parametrize("read", ["questions", "prompt", "factor"])
def test_no_file_that_is_read_is_written(hcl: Hcl, dola: list[object], tmp_path: Path, option: str, read: str) -> None:
    ending = {"-o": ".jsonl", "--figure": ".svg"}.get(option, ".md")
    named = tmp_path / f"named{ending}"
    write_references(tmp_path)
    text = {"questions": (tmp_path / "questions.jsonl").read_text(), "prompt": "Q: {question}", "factor": "{}"}[read]
    named.write_text(text)
    arguments = {
        "questions": ["dola", named, *dola[2:]],
        "prompt": [*dola[:-1], named],
        "factor": [*dola, "--factor", named],
    }[read]
    result = hcl(*arguments, option, named)
    assert result.code == 2 and f"{option} {named}: is the file that is read" in result.err
    assert named.read_text() == text


def test_two_options_do_not_write_one_file(hcl: Hcl, dola: list[object]) -> None:
    result = hcl(*dola, "--table", "t.md", "--published-table", "t.md")
    assert result.code == 2 and "--published-table t.md: --table writes the same file" in result.err


def test_methods_take_the_options_and_vanilla_does_not(hcl: Hcl, dola: list[object]) -> None:
    """Each option in turn reaches the method, its columns and the recipe."""
    plain = ["--methods", "vanilla,dola:1-3", "--metrics", "exact", "--table", "t.md"]
    keys, said = set(), []
    for options in (
        [], ["--divergence", "published"], ["--no-norm"], ["--alpha", 0.5], ["--penalty", 3],
        ["--penalty-on", "logits"],
    ):  # fmt: skip
        done = hcl(*dola, *plain, *options, "--json")
        assert done.code == 0, done.err
        keys.add(json.loads(done.out)["key"])
        rows = pl.read_parquet(json.loads(done.out)["path"])
        own = rows.filter(method="dola:1-3")
        assert set(own["divergence"]) == {"published" if "--divergence" in options else "jsd"}
        assert set(own["readout"]) == {"no-norm" if "--no-norm" in options else "norm"}
        vanilla = rows.filter(method="vanilla")
        assert vanilla["divergence"].null_count() == vanilla["readout"].null_count() == vanilla.height
        assert vanilla["text"].to_list() == ["paris", "red", "paris"]
        said.append(Path("t.md").read_text())
    assert len(keys) == 6 and len(set(said)) == 6
    words = ["the Jensen-Shannon", "reversed divergence", "without the final norm", "alpha 0.5", "penalty 3"]
    for text, word in zip(said, [*words, "on the last layer's logits"], strict=True):
        assert word in text and "vanilla: the last layer alone, no repetition penalty." in text


def test_the_mature_log_probability_is_that_of_the_last_layer(hcl: Hcl, dola: list[object]) -> None:
    """Of the contrasted answer's own tokens, from the planted law; the contrast's own mean is another number."""
    drawing = ["-n", 4, "--temperature", 1, "--max-new-tokens", 4]
    rows = pl.read_parquet(hcl(*dola, "--methods", "static:1@alpha=0", "--metrics", "none", *drawing).path)
    assert (rows["mean_mature_logprob"] - rows["mean_logprob"]).abs().max() > 1
    for row in rows.iter_rows(named=True):
        before, total = row["question"], 0.0
        for word in row["tokens"]:
            logits = planted.scores(LAYERS, before)
            total += logits[planted.WORDS.index(word)] - math.log(sum(math.exp(value) for value in logits))
            before = word
        assert row["mean_mature_logprob"] == pytest.approx(total / row["n_tokens"], abs=2e-3)


def test_more_resamples_are_another_interval(hcl: Hcl, dola: list[object]) -> None:
    call = [*dola, "--methods", "vanilla,static:1", "--metrics", "f1", "--json"]
    keys = {json.loads(hcl(*call, *more).out)["also"][1]["key"] for more in ([], ["--bootstrap", 100])}
    assert len(keys) == 2


def test_the_encoder_of_bertscore_can_be_named(hcl: Hcl, dola: list[object], tmp_path: Path) -> None:
    from hcl_cli.models.encoders import find_encoder

    (tmp_path / "mini").symlink_to(find_encoder().folder)
    call = [*dola, "--methods", "vanilla", "--metrics", "bertscore", "--json"]
    named = []
    for options in ([], ["--encoder", tmp_path / "mini"]):
        done = hcl(*call, *options)
        assert done.code == 0, done.err
        tables = {one["table"]: pl.read_parquet(one["path"]) for one in json.loads(done.out)["also"]}
        named.append(tables["text-scores"]["encoder"].unique().to_list())
        assert tables["compared"]["encoder"].unique().to_list() == named[-1]
    assert len(named[0]) == len(named[1]) == 1 and named[0] != named[1]
    missing = hcl(*call, "--encoder", "./nowhere")
    assert missing.code == 2 and "--encoder ./nowhere: no such folder" in missing.err
    useless = hcl(*dola, "--encoder", "./nowhere")
    assert useless.code == 2 and "add --metrics bertscore" in useless.err
