"""The planted questions with best, correct and incorrect answers."""

import json
from pathlib import Path
from typing import Any

REFERENCES: list[dict[str, Any]] = [
    {"question_id": "one", "question": "ask-one", "answers": ["paris"], "best_answer": "paris",
     "correct_answers": ["paris"], "incorrect_answers": ["lyon", "rome"]},
    {"question_id": "many", "question": "ask-many", "answers": ["red", "green"], "best_answer": "red",
     "correct_answers": ["red", "green"], "incorrect_answers": ["lyon"]},
    {"question_id": "hard", "question": "ask-hard", "answers": ["rome"], "best_answer": "rome",
     "correct_answers": ["rome"], "incorrect_answers": ["paris"]},
]  # fmt: skip


def write_references(folder: Path) -> None:
    """Put them in place of the planted questions."""
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in REFERENCES))
