"""Judges: which replies are verdicts, by hand; the prompts, their fields and their identity."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcl_cli.errors import BadInput, BadOption
from hcl_cli.llm.judge_prompts import JUDGE_PROMPTS, THRESHOLD, open_judge_prompt, open_judge_prompts
from hcl_cli.llm.judges import JudgePrompt, verdict_in, verdict_of
from hcl_cli.llm.requests import Reply

THREE = JUDGE_PROMPTS["simpleqa"].verdicts


def read(text: str, name: str, finish: str | None = "stop") -> tuple[bool | None, str]:
    verdict = verdict_of(Reply(text, "m", finish), JUDGE_PROMPTS[name])
    return verdict.holds, verdict.status


RIGHT, WRONG, SKIPPED = (True, "judged"), (False, "judged"), (None, "not-attempted")
UNPARSED = (None, "unparsed")


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("CORRECT", RIGHT), ("INCORRECT", WRONG), ("NOT_ATTEMPTED", SKIPPED),
        ("correct", RIGHT), ("Incorrect.", WRONG), ("not attempted", SKIPPED), ("Not-Attempted.", SKIPPED),
        ("  CORRECT \n\n", RIGHT), ("**INCORRECT**", WRONG), ("`CORRECT`", RIGHT), ('"INCORRECT"', WRONG),
        ("[CORRECT]", RIGHT), ("**Grade:** INCORRECT", WRONG), ("Verdict: CORRECT.", RIGHT),
        ("Final grade: **NOT_ATTEMPTED**", SKIPPED), ("Judgement: correct", RIGHT),
        ("A", RIGHT), ("B", WRONG), ("(C)", SKIPPED), ("B.", WRONG), ("A: CORRECT", RIGHT), ("B) incorrect", WRONG),
        ("```\nINCORRECT\n```", WRONG), ("```text\nCORRECT\n```\n", RIGHT),
        ("<think>It is CORRECT.\nCORRECT</think>\nINCORRECT", WRONG), ("thought\n</think>CORRECT", RIGHT),
        ("CORRECT\n\nThe year is the one asked for.", RIGHT),
        ("The reference says 1912, the response 1913.\n\nINCORRECT", WRONG),
        ("CORRECT\nOn second thoughts:\nCORRECT", RIGHT), ("A\nsince ...\nCORRECT", RIGHT),
        # No verdict, or two: never guessed.
        ("CORRECT\nOn second thoughts:\nINCORRECT", UNPARSED), ("A\nINCORRECT", UNPARSED),
        ("The response is CORRECT", UNPARSED), ("This is INCORRECT.", UNPARSED), ("not correct", UNPARSED),
        ("IN CORRECT", UNPARSED), ("IN**CORRECT", UNPARSED),
        ("**IN**CORRECT", UNPARSED), ("INCORRECT: CORRECT", UNPARSED), ("CORRECT or INCORRECT", UNPARSED),
        ("A: INCORRECT", UNPARSED), ("CORRECT/INCORRECT", UNPARSED), ("so:\nCORRECT\nwhich is all", UNPARSED),
        ("INCORRECTCORRECT", UNPARSED), ("CORRECTLY", UNPARSED), ("PARTIALLY CORRECT", UNPARSED), ("D", UNPARSED),
        ("CORRECT!", UNPARSED), ("yes", UNPARSED), ("1", UNPARSED), ("...", UNPARSED), ("```\n```", UNPARSED),
        ('{"grade": "CORRECT"}', UNPARSED), ("<think>\nCORRECT", UNPARSED), ("ＣＯＲＲＥＣＴ", UNPARSED),
    ],
)  # fmt: skip
def test_three_grades(text: str, read_as: tuple[bool | None, str]) -> None:
    assert read(text, "simpleqa") == read_as


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("1", RIGHT), ("0", WRONG), ("1.", RIGHT), (" 0\n", WRONG), ("**1**", RIGHT), ("Verdict: 0", WRONG),
        ("1\n\nThe response names Paris.", RIGHT), ("Score = 1", RIGHT),
        ("10", UNPARSED), ("01", UNPARSED), ("-1", UNPARSED), ("1.0", UNPARSED), ("0.5", UNPARSED), ("2", UNPARSED),
        ("¹", UNPARSED), ("١", UNPARSED), ("1 of 1", UNPARSED), ("0/1", UNPARSED), ("0\n1", UNPARSED),
        ("one", UNPARSED),
    ],
)  # fmt: skip
def test_zero_or_one(text: str, read_as: tuple[bool | None, str]) -> None:
    assert read(text, "published") == read_as


@pytest.mark.parametrize(
    ("text", "grade", "holds"),
    [
        ("10", 10, True), ("1", 1, False), ("6", 6, True), ("5", 5, False), ("8/10", 8, True),
        ("Rating: 3/10.", 3, False),
        ("7\nbecause\n7/10", 7, True),
        ("7\nbecause\n8", None, None), ("0", None, None), ("11", None, None), ("5.5", None, None), ("-3", None, None),
        ("8-10", None, None), ("8 out of 10", None, None), ("10/1", None, None), ("6/100", None, None),
    ],
)  # fmt: skip
def test_one_to_ten(text: str, grade: int | None, holds: bool | None) -> None:
    assert THRESHOLD == 6
    verdict = verdict_of(Reply(text, "m", "stop"), JUDGE_PROMPTS["published-10"])
    assert (verdict.grade, verdict.holds) == (grade, holds)
    assert verdict.status == ("unparsed" if holds is None else "judged")


@pytest.mark.parametrize("name", ["truth", "info"])
def test_yes_or_no(name: str) -> None:
    assert read("YES", name) == RIGHT and read("no.", name) == WRONG and read("Answer: yes", name) == RIGHT
    assert read("No comment", name) == UNPARSED and read("TRUE", name) == UNPARSED


def test_a_reply_that_is_no_reply_has_its_own_status() -> None:
    assert read("", "published") == read(" \n", "published") == (None, "empty")
    assert read("1", "published", finish="length") == (None, "cut")  # what came after might have taken it back
    assert read("1", "published", finish="content_filter") == (None, "refused")
    assert read("1", "published", finish=None) == RIGHT
    assert verdict_of(Reply(None, refusal="too long"), JUDGE_PROMPTS["published"]).status == "refused"


PIECES = ("CORRECT", "INCORRECT", "NOT_ATTEMPTED", "IN", "A", "B", "\n", " ", ".", "**", ": ", "so ")


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
def test_a_verdict_is_a_whole_line_of_the_reply(text: str) -> None:
    """What is read stands, but for marks, on the first or last line; where both are bare verdicts, they agree."""
    found = verdict_in(text, THREE)
    lines = [line for line in text.splitlines() if line.strip()]
    ends = [lines[at] for at in (0, -1)] if lines else []
    bare = {THREE[word] for line in ends if (word := line.strip().lower().replace("_", " ")) in THREE}
    if found is not None:
        assert found in [re.sub(r"[*_:. ]+", " ", line).strip().lower() for line in ends]
        assert bare <= {THREE[found]}
    else:
        assert len(bare) != 1 or len(lines) > 1


def test_fields_are_filled_in_one_pass() -> None:
    prompt = JUDGE_PROMPTS["truth"]
    text = prompt.render("{answers}?", ["a {response}", "b"], "{question} {nothing}", ["f"])
    assert "<question>\n{answers}?\n</question>" in text
    assert "<reference_answers>\na {response}\nb\n</reference_answers>" in text
    assert "<response>\n{question} {nothing}\n</response>" in text
    assert "<false_answers>\nf\n</false_answers>" in text
    assert "<false_answers>\n(none given)\n</false_answers>" in prompt.render("q", ["a"], "r")


@pytest.mark.parametrize("name", JUDGE_PROMPTS)
def test_the_words_asked_for_are_verdicts(name: str) -> None:
    """Every spelling that a template's last line names is read."""
    prompt = JUDGE_PROMPTS[name]
    last = prompt.template.rstrip().splitlines()[-1]
    named = {"published": "10", "published-10": ["1", "10", "6"], "simpleqa": ["CORRECT", "INCORRECT", "NOT_ATTEMPTED"]}
    for word in named.get(name, ["YES", "NO"]):
        assert word in last
        assert verdict_of(Reply(word, "m", "stop"), prompt).status in ("judged", "not-attempted")


def test_columns_are_named_after_the_prompt(tmp_path: Path) -> None:
    assert JUDGE_PROMPTS["truth"].column == "correct_llm_truth"
    assert JUDGE_PROMPTS["info"].column == "informative_llm_info"
    assert JUDGE_PROMPTS["published-10"].column == "correct_llm_published_10"
    path = tmp_path / "My truth-2.txt"
    path.write_text("{question}{answers}{response}")
    assert open_judge_prompt(str(path)).column == "correct_llm_file_my_truth_2"


def test_what_decides_a_verdict_is_in_the_identity() -> None:
    prompt = JUDGE_PROMPTS["published"]
    others = [
        JudgePrompt("published", prompt.template + " ", prompt.verdicts, prompt.system),
        JudgePrompt("published", prompt.template, prompt.verdicts),
        JudgePrompt("published", prompt.template, {"1": "correct"}, prompt.system),
        JudgePrompt("published", prompt.template, prompt.verdicts, prompt.system, asks="informative"),
    ]
    assert len({one.identity for one in (prompt, *others)}) == 5
    assert len({one.identity for one in JUDGE_PROMPTS.values()}) == 5


def test_a_users_template(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text('Q {question} A {answers} R {response}: {"a": 1}', encoding="utf-8-sig")
    mine = open_judge_prompt(str(path))
    assert mine.render("q", ["a", "b"], "r") == 'Q q A a\nb R r: {"a": 1}'
    read_as = {text: verdict_of(Reply(text), mine).holds for text in ("1", "no", "CORRECT", "NOT_ATTEMPTED", "A")}
    assert read_as == {"1": True, "no": False, "CORRECT": True, "NOT_ATTEMPTED": None, "A": None}
    assert not mine.has_not_attempted
    path.write_text("{question}{answers}{response} CORRECT, INCORRECT or NOT_ATTEMPTED")
    three = open_judge_prompt(str(path))
    assert verdict_of(Reply("NOT_ATTEMPTED"), three).status == "not-attempted" and three.has_not_attempted


def test_templates_that_cannot_be_used_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "half.txt").write_text("Is {response} right?")
    with pytest.raises(
        BadInput, match=r"half.txt: no \{question\} and no \{answers\} in the file; expected .*YES or NO"
    ):
        open_judge_prompt(str(tmp_path / "half.txt"))
    (tmp_path / "latin.txt").write_bytes(b"{question}{answers}{response}\xe9")
    with pytest.raises(BadInput, match="latin.txt: byte 29 is not valid UTF-8"):
        open_judge_prompt(str(tmp_path / "latin.txt"))
    with pytest.raises(BadOption, match="'nowhere.txt': no such file; expected published"):
        open_judge_prompts("truth,nowhere.txt")
    with pytest.raises(BadOption, match="two prompts are called llm_truth"):
        open_judge_prompts("truth, truth")
