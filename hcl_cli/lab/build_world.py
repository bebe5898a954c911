"""Write `data/lab/questions.parquet` and `data/lab/statements.parquet`, and check what the world promises.

python -m hcl_cli.lab.build_world            write both files
python -m hcl_cli.lab.build_world --close    list the questions whose answers the embedder cannot tell apart
"""

from __future__ import annotations

import argparse
import re
import string
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hcl_cli.lab.facts import shuffled, spread
from hcl_cli.lab.questions import Question, stratum
from hcl_cli.lab.statements import Statement
from hcl_cli.lab.world import World, load_world
from hcl_cli.models.encoders import find_encoder, load_encoder
from hcl_cli.resources import data_file

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

# Of each stratum, how many questions are shipped for sampling; half are of the split "choose", half of "report".
SHIPPED = {"several": 1000, "common": 120, "two-step": 80, "rare": 60, "held": 40}
CLOSEST = 0.75  # cosine; the clustering threshold is 0.8, the margin is for other spellings of the blank and the case


def shipped_questions(world: World) -> list[Question]:
    """The questions for sampling, in an order whose every prefix is balanced over kinds, frequencies and splits."""
    groups: dict[str, list[Question]] = {}
    for name, limit in SHIPPED.items():
        for split in ("choose", "report"):
            dealt = [question for question in world.questions if (stratum(question), question.split) == (name, split)]
            by_relation: dict[str, list[Question]] = defaultdict(list)
            for question in dealt:
                by_relation[question.relation].append(question)
            parts = {key: shuffled(part, "shipped", "question_id") for key, part in by_relation.items()}
            mixed = spread(parts, f"shipped:{name}:{split}")
            groups[f"{name}:{split}"] = mixed[: limit // 2]
    return spread(groups, "shipped")


def questions_frame(world: World) -> pl.DataFrame:
    """Columns question_id, question, answers (right answers, then their other spellings), kind, frequency, split."""
    import polars as pl

    rows = [
        {
            "question_id": question.question_id,
            "question": question.wordings[0],
            "answers": [*question.answers, *(alias for group in question.aliases for alias in group)],
            "kind": question.kind,
            "frequency": question.frequency,
            "split": question.split,
        }
        for question in shipped_questions(world)
    ]
    return pl.DataFrame(rows)


def statements_frame(world: World) -> pl.DataFrame:
    """Columns statement_id, statement, label (int8: 1 true, 0 false), topic, entity, judged, held."""
    import polars as pl

    names = ("statement_id", "statement", "label", "topic", "entity", "judged", "held")
    ordered: list[Statement] = shuffled(world.statements, "statement order", "statement_id")
    rows = [{name: getattr(item, name) for name in names} for item in ordered]
    return pl.DataFrame(rows, schema_overrides={"label": pl.Int8})


def with_counts(readme: str, world: World) -> str:
    """The README's text with the counts of the world put in: its sentence of totals and its table of files."""
    totals = (
        f"It holds {len(world.facts):,} facts, {len(world.questions):,} questions and\n"
        f"{len(world.statements):,} statements"
    )
    readme = re.sub(r"It holds [\d,]+ facts, [\d,]+ questions and\n[\d,]+ statements", totals, readme)
    counts = Counter((fact.relation, kind) for fact in world.facts for kind in ("all", fact.frequency))
    first = {fact.relation: fact for fact in reversed(world.facts)}
    rows = "".join(
        f"| `{name}.tsv` | {counts[name, 'all']} | {counts[name, 'rare']} | {counts[name, 'held']} "
        f"| {fact.entity} / {fact.object} |\n"
        for name, fact in reversed(first.items())
    )
    return re.sub(r"(?:^\| `\w+\.tsv` .*\n)+", lambda _: rows, readme, flags=re.MULTILINE)


def write_files(folder: Path) -> tuple[Path, Path, Path]:
    """Write both Parquet files (zstd) and the README's counts into the folder and return the three paths."""
    world = load_world()
    questions, statements, readme = (folder / name for name in ("questions.parquet", "statements.parquet", "README.md"))
    questions_frame(world).write_parquet(questions, compression="zstd")
    statements_frame(world).write_parquet(statements, compression="zstd")
    readme.write_text(with_counts(readme.read_text(encoding="utf-8"), world), encoding="utf-8")
    return questions, statements, readme


def normalised(text: str) -> str:
    """TriviaQA's normal form: lower case, punctuation to blanks, articles out, blanks collapsed."""
    text = text.lower().replace("_", " ")
    text = "".join(" " if letter in set(string.punctuation) | set("‘’´`") else letter for letter in text)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def contained_answers(world: World) -> list[tuple[str, str, str]]:
    """(place, shorter, longer) for every answer whose tokens stand in another answer of the same place.

    A place is one list, or all answers asked for by one relation and direction: there a wrong answer that contains
    the right one would be judged right.
    """
    places: dict[str, set[str]] = defaultdict(set)
    for question in world.questions:
        direction = "inverse" if "-inverse-" in question.question_id else question.kind
        place = question.question_id if question.relation == "members" else f"{question.relation}:{direction}"
        places[place].update(question.answers)
    found: list[tuple[str, str, str]] = []
    for place, answers in sorted(places.items()):
        forms = {answer: f" {normalised(answer)} " for answer in sorted(answers)}
        found += [
            (place, short, long)
            for short, form in forms.items()
            for long, other in forms.items()
            if short != long and form in other
        ]
    return found


def close_answers(
    world: World, encode: Callable[[Sequence[str]], np.ndarray], limit: float = CLOSEST
) -> list[tuple[str, str, str, float]]:
    """(question, answer, answer, cosine) for every two right answers of one question at `limit` or more.

    Args:
        encode: texts -> [text, dimension], unit length.
    """
    questions = [question for question in world.questions if question.kind == "several"]
    texts = sorted({form for question in questions for answer in question.answers for form in as_written(answer)})
    row = dict(zip(texts, encode(texts), strict=True))
    found: list[tuple[str, str, str, float]] = []
    for question in questions:
        for i, one in enumerate(question.answers):
            for other in question.answers[i + 1 :]:
                cosine = max(float(row[a] @ row[b]) for a in as_written(one) for b in as_written(other))
                if cosine >= limit:
                    found.append((question.question_id, one, other, round(cosine, 3)))
    return found


def as_written(answer: str) -> tuple[str, str]:
    """The answer as it stands and with a capital first letter."""
    return answer, answer[:1].upper() + answer[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the lab's questions and statements.")
    parser.add_argument("--close", action="store_true", help="list answers that are too close, write nothing")
    if parser.parse_args().close:
        for row in close_answers(load_world(), load_encoder(find_encoder()).encode):
            print(*row, sep="\t")
        return
    for path in write_files(data_file("lab")):
        print(path, file=sys.stderr)


if __name__ == "__main__":
    main()
