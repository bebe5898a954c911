"""Runs the program: in this process (quick), or as a real one (for signals, pipes and imports)."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hcl_cli.cli import app

sys.path.insert(0, str(Path(__file__).parent))
import planted
from calling import Hcl, Result


@pytest.fixture
def hcl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Hcl:
    """The program in this process; the current folder and the store are the test's own."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("HCL_"):
            monkeypatch.delenv(name)

    def run(*arguments: object, stdin: str | bytes = b"") -> Result:
        capfdbinary.readouterr()
        data = stdin.encode() if isinstance(stdin, str) else stdin
        reader, writer = os.pipe()
        os.write(writer, data)
        os.close(writer)
        with os.fdopen(reader) as pipe, monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["hcl", *map(str, arguments)])
            patch.setattr(sys, "stdin", pipe)
            try:
                code = app._run()
            except KeyboardInterrupt:
                code = 130
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Result(code, out.decode(), err.decode())

    return run


@pytest.fixture
def spawn(tmp_path: Path) -> Callable[..., "subprocess.Popen[bytes]"]:
    """Starts the program as a real process in the test's folder."""

    def start(*arguments: object, env: Mapping[str, str] | None = None, **options: object) -> "subprocess.Popen[bytes]":
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HCL_")}
        settings: dict[str, object] = {
            "cwd": tmp_path, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
            "env": clean | dict(env or {}), **options,
        }  # fmt: skip
        return subprocess.Popen([sys.executable, "-m", "hcl_cli", *map(str, arguments)], **settings)  # type: ignore[call-overload]

    return start


@pytest.fixture(scope="session")
def planted_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model whose answers are known by construction."""
    folder = tmp_path_factory.mktemp("models") / "planted"
    planted.write_planted_model(folder)
    return folder


@pytest.fixture
def planted_run(tmp_path: Path, planted_model: Path) -> list[object]:
    """Arguments of `hcl sample` on the planted model and its questions; the prompt is the question alone."""
    planted.write_questions(tmp_path / "questions.jsonl")
    (tmp_path / "prompt.txt").write_text("{question}")
    return ["sample", tmp_path / "questions.jsonl", "-m", planted_model, "--prompt", tmp_path / "prompt.txt"]


@pytest.fixture
def dola(planted_run: list[object]) -> list[object]:
    """Arguments of `hcl dola` on the planted model and its questions."""
    return ["dola", *planted_run[1:]]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Four short texts in two tones that the planted model can read."""
    rows = [
        {"text_id": "a", "text": "ask-one paris", "tone": "calm"},
        {"text_id": "b", "text": "ask-many red green", "tone": "calm"},
        {"text_id": "c", "text": "ask-hard lyon", "tone": "loud"},
        {"text_id": "d", "text": "ask-one lyon red", "tone": "loud"},
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
