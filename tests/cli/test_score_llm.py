"""`hcl score --judge llm` through the program, against a server that knows its verdicts or fails in every way."""

import functools
import json
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from calling import Hcl, Result
from test_bad_input import refused
from test_surface import heavy_imports

from hcl_cli.llm import server

sys.path.insert(0, str(Path(__file__).parents[1] / "llm"))
from loopback import Act, Call, Loopback, fails, says, serving

KEY = "sk-very-secret-key-of-a-judge"


@pytest.fixture(autouse=True)
def quick_and_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waits between attempts, nobody's key or proxy."""
    monkeypatch.setattr(server, "LlmServer", functools.partial(server.LlmServer, backoff_s=0.001))
    for name in ("OPENAI_API_KEY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def judge() -> Iterator[Loopback]:
    """A model that takes "Paris" for right, and anything but "no comment" for an answer."""
    with serving() as server:
        server.behave = verdict
        yield server


def response(call: Call) -> str:
    found = re.search(r"<response>\n(.*?)\n</response>", call.prompt, re.DOTALL)
    assert found is not None
    return found[1]


def verdict(call: Call) -> Act:
    said = response(call)
    if "at all?" in call.prompt:
        return says("NO" if said == "no comment" else "YES")
    if "three grades" in call.prompt:
        return says("CORRECT" if said == "Paris" else "NOT_ATTEMPTED" if said == "no comment" else "INCORRECT")
    if "from 1 to 10" in call.prompt:
        return says("9" if said == "Paris" else "2")
    if "truthful?" in call.prompt:
        return says("YES" if said in ("Paris", "no comment") else "NO")
    return says("1" if said == "Paris" else "0")


def responses(path: Path, *texts: str, **more: Any) -> Path:
    rows = [
        {"question": "Capital of France?", "answers": ["Paris"], "response": text, "sample_index": i} | more
        for i, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def asking(hcl: Hcl, judge: Loopback) -> Callable[..., Result]:
    """`hcl score --judge llm` on a file."""

    def run(path: object, *more: object, url: str | None = None, judges: str = "llm") -> Result:
        server = ["--llm-url", url or judge.url, "--llm-model", "gpt-judge"]
        return hcl("score", path, "--judge", judges, "--cluster", "exact", *server, *more)

    return run


def test_truth_and_info_of_two_methods(asking: Callable[..., Result], judge: Loopback, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """vanilla says Lyon, no comment; dola says Paris, no comment: half true, half an answer; all true, half."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    said = {"vanilla": ("Lyon", "no comment"), "dola-low": ("Paris", "no comment")}
    rows = [
        {"question_id": f"q{i}", "question": f"q{i}?", "answers": ["Paris"], "response": text, "method": method,
         "incorrect_answers": ["Lyon"]}
        for method, texts in said.items() for i, text in enumerate(texts)
    ]  # fmt: skip
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = (path, "--llm-prompt", "truth,info")
    planned = asking(*run, "--dry-run")
    assert "judge: 6 calls (0 answers at hand), about " in planned.err and planned.out.startswith("miss ")
    assert not judge.calls
    done = asking(*run, "--json")
    assert done.code == 0, done.err
    # "no comment" to q1 is one response under two methods.
    assert len(judge.calls) == 6 and all(call.headers["authorization"] == f"Bearer {KEY}" for call in judge.calls)
    assert f"judge: {judge.url}, model gpt-judge, key from $OPENAI_API_KEY" in done.err
    assert "score: llm_truth: 4 of 4 responses judged" in done.err
    assert "%Truth, llm_truth" in done.err and "%Truth*Info (both)" in done.err and "minus vanilla" in done.err
    told = json.loads(done.out)
    scored = pl.read_parquet(told["path"])
    assert scored["correct"].to_list() == scored["correct_llm_truth"].to_list() == [False, True, True, True]
    assert scored["informative_llm_info"].to_list() == [True, False, True, False]
    assert scored["judge"].unique().to_list() == ["llm_truth"]
    assert told["also"][0]["table"] == "judged"
    judged = pl.read_parquet(told["also"][0]["path"]).select("method", "metric", "value", "difference").rows()
    assert judged == [
        ("vanilla", "true", 0.5, None), ("vanilla", "informative", 0.5, None),
        ("vanilla", "true-and-informative", 0.0, None), ("dola-low", "true", 1.0, 0.5),
        ("dola-low", "informative", 0.5, 0.0), ("dola-low", "true-and-informative", 0.5, 0.5),
    ]  # fmt: skip
    again = asking(*run, "--json")
    assert json.loads(again.out) == told | {"cached": True} and len(judge.calls) == 6
    assert again.err.replace(", from the store", "") in done.err.replace("in 0.0 s", "")
    for file in (tmp_path / ".hcl").rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        assert KEY.encode() not in data and str(judge.server_port).encode() + b"/v1" not in data, file


def test_a_hit_imports_nothing_heavy(hcl: Hcl, judge: Loopback, planted_run: list[object], tmp_path: Path) -> None:
    sampled = hcl(*planted_run, "-n", 2, "--exit-layers", "3,4").out
    run = ["score", "--judge", "llm", "--llm-prompt", "truth,info", "--cluster", "exact", "--llm-url", judge.url]
    known = {"question": "ask-one", "best_answer": "paris", "correct_answers": ["paris"], "incorrect_answers": ["lyon"]}
    (tmp_path / "known.jsonl").write_text(json.dumps(known) + "\n")
    run += ["--llm-model", "gpt-judge", "--llm-references", "known.jsonl"]
    first = hcl(*run, stdin=sampled)
    assert first.code == 0 and "layer 3" in first.err
    n_calls = len(judge.calls)
    assert heavy_imports(tmp_path, *run, stdin=sampled.encode()) == [] and len(judge.calls) == n_calls


def test_every_prompt_at_once_beside_a_rule(asking: Callable[..., Result], tmp_path: Path) -> None:
    path = responses(tmp_path / "r.jsonl", "Paris", "Lyon", "no comment", "")
    (tmp_path / "mine.txt").write_text("{question} {answers}\n<response>\n{response}\n</response>")
    prompts = "published,published-10,simpleqa,truth,info,mine.txt"
    done = asking(path, "--llm-prompt", prompts, judges="alias,llm")
    scored = pl.read_parquet(done.path)
    found = {name: scored[name].to_list() for name in scored.columns if re.match("(correct|informative|grade)_", name)}
    assert found == {
        "correct_alias": [True, False, False, False],
        "correct_llm_published": [True, False, False, False],
        "correct_llm_published_10": [True, False, False, False],
        "grade_llm_published_10": [9, 2, 2, None],
        "correct_llm_simpleqa": [True, False, None, False],
        "correct_llm_truth": [True, False, True, False],
        "informative_llm_info": [True, True, False, False],
        "correct_llm_file_mine": [True, False, False, False],
    }
    assert scored["correct"].to_list() == [True, False, False, False]
    assert scored["status_llm_simpleqa"].to_list() == ["judged", "judged", "not-attempted", "blank"]
    (pair,) = [
        line
        for line in done.err.splitlines()
        if line.startswith("llm_simpleqa, alias") or "alias, llm_simpleqa" in line
    ]
    assert "100.0 [" in pair and "1.00 [" in pair
    assert "% correct of what was attempted, llm_simpleqa" in done.err


def test_what_changes_asks_again_and_nothing_else(
    asking: Callable[..., Result], judge: Loopback, tmp_path: Path
) -> None:
    path = responses(tmp_path / "r.jsonl", "Paris", "Lyon", "Paris")
    (tmp_path / "mine.txt").write_text("{question} {answers}\n<response>\n{response}\n</response>")
    first = asking(path, "--llm-prompt", "mine.txt").path
    assert len(judge.calls) == 2
    assert asking(path, "--llm-prompt", "mine.txt", url=judge.url + "/").path == first  # the address is not the model
    asking(responses(path, "Paris", "Lyon", "Rome"), "--llm-prompt", "mine.txt")
    assert len(judge.calls) == 3  # only Rome is new
    asking(path, "--llm-prompt", "mine.txt", "--force")
    assert len(judge.calls) == 3
    responses(path, "Paris", "Lyon", answers=["Paris", "Paris, France"])
    asking(path, "--llm-prompt", "mine.txt")
    assert len(judge.calls) == 5
    (tmp_path / "mine.txt").write_text("{question} {answers} carefully\n<response>\n{response}\n</response>")
    planned = asking(path, "--llm-prompt", "mine.txt", "--dry-run")
    assert "2 calls" in planned.err and "--llm-prompt" in planned.out
    asking(path, "--llm-prompt", "mine.txt")
    assert len(judge.calls) == 7
    asking(path, "--llm-prompt", "mine.txt", "--llm-max-tokens", 50, "--llm-temperature", "none")
    assert len(judge.calls) == 9
    assert judge.calls[-1].body["max_tokens"] == 50 and "temperature" not in judge.calls[-1].body


def test_the_judge_of_truth_is_shown_what_is_known_to_be_false(
    asking: Callable[..., Result], judge: Loopback, tmp_path: Path
) -> None:
    """TruthfulQA's references, found by the question's text, for answers from anywhere."""
    question = "What happens to you if you eat watermelon seeds?"
    path = responses(tmp_path / "r.jsonl", "Lyon", "Paris", question=question)
    known = ("--llm-prompt", "truth", "--llm-references", "truthfulqa")
    done = asking(path, *known)
    assert done.code == 0, done.err
    prompt = judge.calls[0].prompt
    false_answers = prompt.partition("<false_answers>")[2]
    assert "You grow watermelons in your stomach" in false_answers and "Nothing happens" not in false_answers
    assert "Nothing happens" in prompt.partition("<reference_answers>")[2].partition("</reference_answers>")[0]
    assert asking(path, "--llm-prompt", "truth").path != done.path and len(judge.calls) == 4
    both = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*both, both[0] | {"question": "And?"}]))
    assert "questions that are not in truthfulqa: 1; judged by the answers in their rows" in asking(path, *known).err
    refused(asking(responses(path, "Paris"), *known), "none of the 1 questions", "Capital of France?")
    refused(asking(path, "--llm-references", "truthfulqa"), "--llm-references truthfulqa", "add truth")
    refused(asking(path, "--llm-prompt", "truth", "--llm-references", "triviaqa"), "triviaqa")


def test_hcb_reads_what_a_model_judged(hcl: Hcl, asking: Callable[..., Result], tmp_path: Path) -> None:
    done = asking(
        responses(tmp_path / "r.jsonl", "Paris", "Lyon", "no comment", exit_layer=3), "--llm-prompt", "simpleqa"
    )
    layers = pl.read_parquet(hcl("hcb", stdin=done.out).path)
    assert layers["hallucination_rate"].to_list() == [0.5] and layers["n_graded"].to_list() == [2]


def test_without_a_store_nothing_is_kept(asking: Callable[..., Result], judge: Loopback, tmp_path: Path) -> None:
    path = responses(tmp_path / "r.jsonl", "Paris", "Lyon")
    for n_calls in (2, 4):
        done = asking(path, "--no-cache", "-o", "alone.parquet")
        assert pl.read_parquet(done.path)["correct"].to_list() == [True, False]
        assert "% correct, llm_published" in done.err and len(judge.calls) == n_calls
    assert not (tmp_path / ".hcl" / "answers").exists() and not (tmp_path / ".hcl" / "score").exists()


def test_variables_say_whom_to_ask(hcl: Hcl, judge: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = responses(tmp_path / "r.jsonl", "Paris")
    monkeypatch.setenv("HCL_LLM_URL", judge.url)
    (tmp_path / "hcl.toml").write_text("[score]\nllm-model = 'gpt-judge'\ncluster = 'exact'\n")
    assert pl.read_parquet(hcl("score", path, "--judge", "llm").path)["correct"].to_list() == [True]
    assert hcl("score", path).code == 0 and len(judge.calls) == 1  # said for all calls, it is no contradiction


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--judge", "llm"], ["--judge llm", "--llm-url URL", "$OPENAI_API_KEY"]),
        (["--judge", "llm", "--llm-url", "http://x/v1"], ["--llm-model NAME"]),
        (["--judge", "alias,llm", "--llm-model", "m"], ["--llm-url URL"]),
        (["--llm-url", "http://x/v1"], ["--llm-url http://x/v1", "--judge alias,llm"]),
        (["--judge", "exact", "--llm-prompt", "truth"], ["--llm-prompt truth", "exact,llm"]),
        (["--judge", "llm", "--llm-url", "ftp://x", "--llm-model", "m"], ["--llm-url", "ftp://x"]),
        (["--judge", "llm", "--llm-url", "http://a:b@x", "--llm-model", "m"], ["--llm-url", "password"]),
        (["--llm-concurrency", "0"], ["--llm-concurrency 0"]),
        (["--llm-timeout", "0"], ["--llm-timeout 0"]),
        (["--llm-max-tokens", "0"], ["--llm-max-tokens 0"]),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(hcl: Hcl, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    path = responses(tmp_path / "r.jsonl", "Paris")
    refused(hcl("score", path, "--cluster", "exact", *arguments), *words)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("info", ["--llm-prompt info", "truth,info"]),
        ("kind", ["'kind'", "published-10", "{response}"]),
        ("truth,", ["''", "published-10"]),
        ("half.txt", ["half.txt", "no {question} and no {answers}"]),
        ("truth,truth", ["llm_truth", "once"]),
    ],
)
def test_prompts_that_cannot_be_used(
    asking: Callable[..., Result], tmp_path: Path, prompt: str, words: list[str]
) -> None:
    (tmp_path / "half.txt").write_text("Is {response} right?")
    path = responses(tmp_path / "r.jsonl", "Paris")
    refused(asking(path, "--llm-prompt", prompt), *words)
    refused(asking(path, "--llm-temperature", "warm"), "--llm-temperature warm", "none")


def test_a_file_that_cannot_be_judged_is_named(asking: Callable[..., Result], judge: Loopback, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"question": "q", "answers": ["a"], "response": null}\n')
    refused(asking("r.jsonl"), "r.jsonl, line 1, column response")
    responses(tmp_path / "r.jsonl", "Paris", incorrect_answers="Lyon")
    refused(asking("r.jsonl", "--llm-prompt", "truth"), "r.jsonl: column incorrect_answers")
    assert not judge.calls


def test_nothing_to_ask_asks_nobody(asking: Callable[..., Result], judge: Loopback, tmp_path: Path) -> None:
    done = asking(responses(tmp_path / "r.jsonl", "Paris", "", answers=[]))
    assert "2 without a reference answer, so not asked about" in done.err and not judge.calls
    assert pl.read_parquet(done.path)["correct"].to_list() == [None, None]
    assert pl.read_parquet(asking(responses(tmp_path / "b.jsonl", "", " ")).path)["correct"].to_list() == [False, False]


# --- a server that fails -------------------------------------------------------------------------------------------


def ended(result: Result, code: int, *words: str) -> None:
    """After the line that says where prompts go, one line; nothing on stdout."""
    assert result.code == code and result.out == "", result.err
    *before, last = result.err.splitlines()
    assert all(line.startswith(("judge: http", "score: ")) for line in before), result.err
    assert last.startswith("hcl: ") and all(word in last for word in words), last


def test_a_server_that_is_not_there(asking: Callable[..., Result], tmp_path: Path) -> None:
    path = responses(tmp_path / "r.jsonl", "Paris")
    ended(
        asking(path, url="http://127.0.0.1:9/v1"),
        4,
        "http://127.0.0.1:9/v1: nobody can be reached there",
        "run the same",
    )


def test_a_missing_key(asking: Callable[..., Result], judge: Loopback, tmp_path: Path,
                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    path = responses(tmp_path / "r.jsonl", "Paris")
    judge.behave = lambda call: verdict(call) if "authorization" in call.headers else fails(401)
    ended(asking(path), 4, f"{judge.url}: the server wants a key (401), and $OPENAI_API_KEY is not set")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert asking(path).code == 0
    judge.behave = lambda call: fails(401, f"bad key {KEY}")
    result = asking(responses(path, "Lyon"))
    ended(result, 4, "the server does not accept the key in $OPENAI_API_KEY")
    assert KEY not in result.err


@pytest.mark.parametrize(
    "trouble",
    [fails(429, Retry_After="0"), fails(500), Act(b'{"choices": [', headers={"Content-Type": "application/json"}),
     Act(), Act(says("1").body, cut_after=9)],
    ids=["429", "500", "invalid JSON", "nothing", "cut"],
)  # fmt: skip
def test_what_passes_is_tried_again(
    asking: Callable[..., Result], judge: Loopback, tmp_path: Path, trouble: Act
) -> None:
    judge.one_after_another(trouble, says("1"), then=says("0"))
    done = asking(responses(tmp_path / "r.jsonl", "Paris", "Lyon"), "--llm-concurrency", 1)
    assert pl.read_parquet(done.path)["correct"].to_list() == [True, False] and len(judge.calls) == 3


def test_endless_invalid_json_ends_the_run_and_keeps_what_was_said(
    asking: Callable[..., Result], judge: Loopback, tmp_path: Path
) -> None:
    path = responses(tmp_path / "r.jsonl", "Paris", "Lyon", "Rome")
    broken = Act(b"{", headers={"Content-Type": "application/json"})
    judge.behave = lambda call: verdict(call) if response(call) == "Paris" else broken
    ended(asking(path), 4, "the reply is not whole JSON", "1 of 3 requests were answered and are kept")
    assert not list((tmp_path / ".hcl").glob("score/*.parquet"))
    judge.behave = verdict
    judge.calls.clear()
    assert asking(path).code == 0 and sorted(map(response, judge.calls)) == ["Lyon", "Rome"]


def test_replies_without_a_verdict_are_null_and_counted(
    asking: Callable[..., Result], judge: Loopback, tmp_path: Path
) -> None:
    planted = {
        "a": says(""),
        "b": says(None),
        "c": says("well, CORRECT"),
        "d": says("1", finish="length"),
        "e": says("1"),
    }
    judge.behave = lambda call: planted[response(call)]
    done = asking(responses(tmp_path / "r.jsonl", *planted))
    scored = pl.read_parquet(done.path)
    assert scored["correct"].to_list() == [None, None, None, None, True]
    assert scored["status_llm_published"].to_list() == ["empty", "empty", "unparsed", "cut", "judged"]
    assert "5 responses judged by llm_published, clusters by exact; 4 without a verdict" in done.err
    assert "llm_published: 1 of 5 responses judged; 1 whose reply has no verdict" in done.err


def test_ten_thousand_characters_are_judged_or_refused_in_one_line(
    asking: Callable[..., Result], judge: Loopback, tmp_path: Path
) -> None:
    path = responses(tmp_path / "r.jsonl", "Paris", "x" * 10_000)
    assert pl.read_parquet(asking(path).path)["correct"].to_list() == [True, False]
    assert "x" * 10_000 in judge.calls[-1].prompt or "x" * 10_000 in judge.calls[0].prompt
    # A server with little room refuses the long one alone, or everything.
    responses(path, "Paris", "y" * 10_000)
    judge.behave = lambda call: fails(400, "maximum context length") if "yy" in call.prompt else verdict(call)
    done = asking(path)
    assert pl.read_parquet(done.path)["status_llm_published"].to_list() == ["judged", "refused"]
    assert "1 that the server refused" in done.err and "--force asks what was refused once more" in done.err
    n_calls = len(judge.calls)
    judge.behave = verdict
    assert pl.read_parquet(asking(path).path)["correct"].to_list() == [True, None] and len(judge.calls) == n_calls
    forced = asking(path, "--force")
    assert pl.read_parquet(forced.path)["correct"].to_list() == [True, False] and len(judge.calls) == n_calls + 1
    judge.behave = lambda call: fails(400, "maximum context length")
    ended(asking(responses(path, "z" * 10_000)), 2, "maximum context length", "so for every request")


def test_an_interrupted_run_asks_nothing_twice(
    asking: Callable[..., Result], spawn: Callable[..., Any], judge: Loopback, tmp_path: Path
) -> None:
    texts = [f"city {i}" for i in range(6)]
    path = responses(tmp_path / "r.jsonl", *texts)
    reached, release = threading.Event(), threading.Event()

    def behave(call: Call) -> Act:
        if len(judge.calls) > 3:  # one at a time: the first three are on disk
            reached.set()
            release.wait(30)
        return verdict(call)

    judge.behave = behave
    arguments = ["--judge", "llm", "--cluster", "exact", "--llm-url", judge.url, "--llm-model", "gpt-judge"]
    process = spawn("score", path, *arguments, "--llm-concurrency", 1)
    assert reached.wait(60)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    release.set()
    assert process.returncode == 130
    assert b"Traceback" not in err
    judge.behave = verdict
    judge.calls.clear()
    assert "3 calls (3 answers at hand)" in asking(path, "--dry-run").err
    done = asking(path)
    assert sorted(map(response, judge.calls)) == texts[3:]
    assert pl.read_parquet(done.path)["correct"].to_list() == [False] * 6


def test_people_calibrate_a_language_model(
    asking: Callable[..., Result], hcl: Hcl, judge: Loopback, tmp_path: Path
) -> None:
    """It calls "Paris" alone right; people also accept "the city of Paris"."""
    rows = [
        {"question": f"q{at}?", "answers": ["Paris"], "response": text, "human": human}
        for at, (text, human) in enumerate(
            [("Paris", True), ("the city of Paris", True), ("Lyon", False), ("Paris", False), ("Nice", None)]
        )
    ]
    path = tmp_path / "people.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = json.loads(asking(path, "--json", judges="llm,alias").out)
    tables = {one["table"]: pl.read_parquet(one["path"]) for one in told["also"]}
    assert set(tables) == {"judged", "agreement", "judge_calibration"}
    found = {row["judge"]: (row["precision"], row["recall"]) for row in tables["judge_calibration"].to_dicts()}
    assert found == {"llm_published": (0.5, 0.5), "alias": (pytest.approx(2 / 3), 1.0)}
    judge.calls.clear()
    planned = hcl("score", "--people", "efficientqa", "--judge", "llm", "--cluster", "exact", "--llm-url", judge.url,
                  "--llm-model", "gpt-judge", "--dry-run")  # fmt: skip
    assert planned.out.startswith("miss ") and re.search(r"judge: \d{4} calls \(0 answers at hand\)", planned.err)
    assert not judge.calls
