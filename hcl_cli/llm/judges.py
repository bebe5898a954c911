"""How a language model is asked to judge a response, and how its reply is read: one verdict by a grammar, or none."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hcl_cli.llm.requests import Reply

FIELDS = ("question", "answers", "response")
INCORRECT_ANSWERS = "incorrect_answers"
_NONE_GIVEN = "(none given)"
_FIELD = re.compile(r"\{(question|answers|response|incorrect_answers)\}")

CORRECT, INCORRECT, NOT_ATTEMPTED = "correct", "incorrect", "not-attempted"

# What became of a response. Only `judged` and `blank` have a verdict.
STATUSES = {
    "judged": "judged",
    "blank": "blank, so not asked about",
    "not-attempted": "not attempted",
    "no-reference": "without a reference answer, so not asked about",
    "unparsed": "whose reply has no verdict of the form asked for",
    "empty": "whose reply is empty",
    "cut": "whose reply was cut at its token limit",
    "refused": "that the server refused",
}


@dataclass(frozen=True)
class JudgePrompt:
    """A template, and the verdicts that a reply to it may hold.

    Attributes:
        name: published, published-10, simpleqa, truth, info, or the last part of a file's name.
        template: text with the fields {question}, {answers}, {response}, and {incorrect_answers} if it is wanted.
        verdicts: spelling of a verdict, in `normal_form` -> correct, incorrect or not-attempted.
        system: the system message, or null for none.
        asks: what a verdict says of a response: that it is `correct`, or that it is `informative`.
        is_scale: whether the spellings are numbers, which are kept beside the verdict.
        is_file: whether it is the user's.
    """

    name: str
    template: str
    verdicts: Mapping[str, str] = field(hash=False)
    system: str | None = None
    asks: str = "correct"
    is_scale: bool = False
    is_file: bool = False

    @property
    def judge(self) -> str:
        """The judge's name in columns: llm_truth, llm_published_10, llm_file_mine."""
        stem = self.name.rpartition(".")[0] or self.name
        words = re.sub(r"\W+", "_", (stem if self.is_file else self.name).lower()).strip("_")
        return f"llm_file_{words}" if self.is_file else f"llm_{words}"

    @property
    def column(self) -> str:
        """The column of its verdicts: correct_llm_truth, informative_llm_info."""
        return f"{self.asks}_{self.judge}"

    @property
    def identity(self) -> str:
        """Its name with the SHA-256 of all that decides a verdict: the texts and the grammar; for the recipe."""
        decisive = [self.system, self.template, dict(self.verdicts), self.asks, self.is_scale]
        return f"{self.name} sha256:{hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()}"

    @property
    def has_not_attempted(self) -> bool:
        """Whether it knows a third grade."""
        return NOT_ATTEMPTED in self.verdicts.values()

    @property
    def needs_answers(self) -> bool:
        """Whether a response without a reference answer cannot be judged."""
        return "{answers}" in self.template

    @property
    def shows_incorrect(self) -> bool:
        """Whether known false answers are shown to the judge."""
        return "{incorrect_answers}" in self.template

    def render(self, question: str, answers: Sequence[str], response: str, incorrect: Sequence[str] = ()) -> str:
        """The whole prompt; answers one a line. In one pass: a response that holds "{answers}" is text, not a field."""
        values = {
            "question": question, "answers": "\n".join(answers) or _NONE_GIVEN, "response": response,
            INCORRECT_ANSWERS: "\n".join(incorrect) or _NONE_GIVEN,
        }  # fmt: skip
        return _FIELD.sub(lambda match: values[match[1]], self.template)


@dataclass(frozen=True)
class Verdict:
    """What a reply says: whether the claim (`asks`) holds, or null; the number on a scale, or null; the status."""

    holds: bool | None
    status: str
    grade: int | None = None


def verdict_of(reply: Reply, prompt: JudgePrompt) -> Verdict:
    """The verdict in a reply by the grammar of `verdict_in`; null with its status if there is none or it was cut."""
    if reply.text is None or reply.finish_reason == "content_filter":
        return Verdict(None, "refused")
    if reply.finish_reason == "length":
        return Verdict(None, "cut")
    if not reply.text.strip():
        return Verdict(None, "empty")
    spelling = verdict_in(reply.text, prompt.verdicts)
    if spelling is None:
        return Verdict(None, "unparsed")
    outcome = prompt.verdicts[spelling]
    grade = _number(spelling) if prompt.is_scale else None
    if outcome == NOT_ATTEMPTED:
        return Verdict(None, NOT_ATTEMPTED, grade)
    return Verdict(outcome == CORRECT, "judged", grade)


def verdict_in(text: str, verdicts: Mapping[str, str]) -> str | None:
    """The spelling of the one verdict that a reply holds, or null.

    The verdict stands alone on the first or on the last line; whatever else the reply says is not read. If both are
    verdicts and mean different things, there is none. Blank lines, lines that open or close a code fence, and what a
    reasoning model thinks aloud before </think> are no part of the reply. Spellings are compared whole, in
    `normal_form`: INCORRECT is never read as CORRECT, nor 10 as 1.
    """
    spoken = text.rpartition("</think>")[2]
    if "<think>" in spoken:  # never closed: all of it is thought
        return None
    lines = [line for line in map(str.strip, spoken.splitlines()) if line and not line.startswith("```")]
    if not lines:
        return None
    found = [form for line in (lines[0], lines[-1]) if (form := normal_form(line)) in verdicts]
    meanings = {(verdicts[form], _number(form)) for form in found}
    return found[-1] if len(meanings) == 1 else None


def _number(form: str) -> int | None:
    return int(form.partition("/")[0]) if form[:1].isdigit() else None


_LEAD = re.compile(r"(?:(?:final|my) )?(?:verdict|grade|rating|score|judge?ment|answer)\s?[:=]\s*")
_EMPHASIS = re.compile(r"(?<![\w*`])[*`]+|[*`]+(?![\w*`])")  # around a word, not within one
_AROUND = " \t\"'“”‘’()[]"


def normal_form(line: str) -> str:
    """A verdict's line as it is compared.

    Case, emphasis (* and `), quotes and brackets around it, one full stop, and a leading "Verdict:" ("Grade:",
    "Rating:", "Score:", "Judgment:", "Answer:") do not count; "not_attempted", "not-attempted" and "A: correct",
    "A) correct" are "not attempted" and "a correct".
    """
    text = _EMPHASIS.sub("", line).strip(_AROUND).casefold()
    text = _LEAD.sub("", text, count=1) if _LEAD.match(text) else text
    text = text.strip(_AROUND).removesuffix(".").strip(_AROUND)
    return re.sub(r"(?<=\w)(?:[:).]?\s+|[_-])(?=\w)", " ", text)
