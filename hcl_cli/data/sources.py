"""The data sets that the package carries: what each holds, where it comes from, under which licence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hcl_cli.errors import EnvironmentRefused
from hcl_cli.resources import data_file

Kind = Literal["questions", "statements", "texts", "completions", "labelled"]


@dataclass(frozen=True)
class Source:
    """One bundled set.

    Attributes:
        name: what `--dataset` calls it.
        kind: `questions` can be sampled; `statements` are true or false sentences for probes; `texts` are running
            text; `completions` are prefixes with one factual and three false continuations; `labelled` are short texts
            with a label each, for zero-shot classification.
        licence: of the data, as an SPDX expression where one exists, else in words.
        title: one line that says what it is.
        path: parts of the file's path under the bundled data.
        credit: who made it.
        url: the page of the original.
    """

    name: str
    kind: Kind
    licence: str
    title: str
    path: tuple[str, ...]
    credit: str
    url: str | None = None

    @property
    def file(self) -> Path:
        """The bundled file. Raises EnvironmentRefused if the installation lost it."""
        file = data_file(*self.path)
        if not file.is_file():
            raise EnvironmentRefused(
                f"the bundled data set {self.name} is missing ({'/'.join(self.path)}); install again from a whole copy"
            )
        return file

    @property
    def rows(self) -> int:
        """Rows of the file, read from its footer: the number lives there and nowhere else."""
        import pyarrow.parquet as pq

        return int(pq.read_metadata(self.file).num_rows)


def _set(name: str, kind: Kind, licence: str, title: str, credit: str, url: str) -> Source:
    return Source(name, kind, licence, title, ("sets", f"{name}.parquet"), credit, url)


def _github(repository: str) -> str:
    return f"https://github.com/{repository}"


_ALL = (
    Source(
        "lab",
        "questions",
        "CC0-1.0",
        "questions about the small world that the lab models were trained on",
        ("lab", "questions.parquet"),
        "written for this project",
    ),
    Source(
        "lab-statements",
        "statements",
        "CC0-1.0",
        "true and false statements about the same world, for probes",
        ("lab", "statements.parquet"),
        "written for this project",
    ),
    Source(
        "prompts",
        "questions",
        "CC0-1.0",
        "100 factual and 100 creative instructions of like length, for comparing the two kinds",
        ("prompts", "instructions.parquet"),
        "written for this project",
    ),
    Source(
        "prompts-openings",
        "questions",
        "CC0-1.0",
        "100 factual and 100 creative beginnings of a text, the same for base models",
        ("prompts", "openings.parquet"),
        "written for this project",
    ),
    Source(
        "sentiment",
        "labelled",
        "CC0-1.0",
        "100 positive and 100 negative short sentences of ten topics",
        ("sentiment", "sentences.parquet"),
        "written for this project",
    ),
    _set(
        "truthfulqa",
        "questions",
        "Apache-2.0",
        "questions that invite a common misconception, with right and wrong answers",
        "Lin, Hilton, Evans 2022",
        _github("sylinrl/TruthfulQA"),
    ),
    _set(
        "nq_open",
        "questions",
        "CC-BY-SA-3.0",
        "questions put to a search engine, short answers; the dev split",
        "Kwiatkowski et al. 2019; Lee, Chang, Toutanova 2019",
        _github("google-research-datasets/natural-questions"),
    ),
    _set(
        "efficientqa",
        "questions",
        "CC-BY-SA-3.0",
        "the same kind of question, answers of real systems judged by people; every second test question",
        "Min et al. 2021",
        _github("google-research-datasets/natural-questions"),
    ),
    _set(
        "triviaqa",
        "questions",
        "Apache-2.0",
        "trivia questions with every alias; 1,000 of the open-domain evaluation questions",
        "Joshi, Choi, Weld, Zettlemoyer 2017",
        _github("mandarjoshi90/triviaqa"),
    ),
    _set(
        "popqa",
        "questions",
        "MIT",
        "questions about entities of known popularity; 1,000 of 14,267",
        "Mallen et al. 2023",
        _github("AlexTMallen/adaptive-retrieval"),
    ),
    _set(
        "simpleqa",
        "questions",
        "MIT",
        "hard questions with one short answer",
        "Wei et al. 2024",
        _github("openai/simple-evals"),
    ),
    _set(
        "gsm8k",
        "questions",
        "MIT",
        "school mathematics in words, a number as the answer; the test split",
        "Cobbe et al. 2021",
        _github("openai/grade-school-math"),
    ),
    _set(
        "strategyqa",
        "questions",
        "MIT",
        "yes/no questions that need several implicit steps",
        "Geva et al. 2021",
        _github("eladsegal/strategyqa"),
    ),
    _set(
        "halueval_qa",
        "questions",
        "MIT AND CC-BY-SA-4.0",
        "questions with a right answer and made-up wrong ones",
        "Li et al. 2023; questions and passages from HotpotQA, Yang et al. 2018",
        _github("RUCAIBox/HaluEval"),
    ),
    _set(
        "true_false",
        "statements",
        "MIT (the original set was published without a stated licence)",
        "true and false statements of several topics, with negations and conjunctions",
        "Azaria, Mitchell 2023; Levinstein, Herrmann 2023",
        _github("balevinstein/Probes"),
    ),
    _set(
        "factor_expert",
        "completions",
        "MIT",
        "a prefix, its factual continuation and three false ones",
        "Muhlgay et al. 2023",
        _github("AI21Labs/factor"),
    ),
    _set(
        "wikitext2",
        "texts",
        "CC-BY-SA-3.0",
        "Wikipedia articles in the tokenised edition; validation and test splits",
        "Merity, Xiong, Bradbury, Socher 2016; text by the authors of Wikipedia",
        _github("pytorch/examples"),
    ),
    _set(
        "tinystories",
        "texts",
        "CDLA-Sharing-1.0",
        "five short stories in simple words: a smoke test and no more",
        "Eldan, Li 2023",
        _github("stanford-cs336/assignment1-basics"),
    ),
)

SOURCES: dict[str, Source] = {source.name: source for source in _ALL}
