"""The judge against a real OpenAI-compatible server, transformers' own, on this machine.

It serves the lab model, whose replies are no verdicts, and a planted one whose are. It takes seconds to start.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import planted
import polars as pl
import pytest
from calling import Hcl

from hcl_cli.resources import data_file

CHAT = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


def with_chat_template(folder: Path) -> Path:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": CHAT}))
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base address of `transformers serve`, without a network and with a cache of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cache = tmp_path_factory.mktemp("serve")
    program = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; main()"
    arguments = ["serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with (cache / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdout=log, stderr=log, cwd=cache,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            for _ in range(240):
                assert process.poll() is None, (cache / "log").read_text()
                try:
                    opener.open(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                except (urllib.error.URLError, OSError):
                    time.sleep(0.25)
            else:
                raise AssertionError((cache / "log").read_text())
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    texts = ("paris", "lyon", "rome", "")
    rows = [{"question": "capital?", "answers": ["paris"], "response": text, "sample_index": i}
            for i, text in enumerate(texts)]  # fmt: skip
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.long
def test_a_planted_model_behind_a_real_server_judges(
    hcl: Hcl, served: str, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After "paris" it says YES, after "lyon" NO, after any other word nothing."""
    words = ("<s>", "</s>", "<unk>", "paris", "lyon", "YES", "NO")
    ends = {(0, word): {"</s>": 3.0} for word in ("<unk>", "YES", "NO")}
    monkeypatch.setattr(planted, "WORDS", words)
    monkeypatch.setattr(planted, "ADDED", ends | {(0, "paris"): {"YES": 3.0}, (0, "lyon"): {"NO": 3.0}})
    planted.write_planted_model(tmp_path / "judge")
    folder = with_chat_template(tmp_path / "judge")
    (tmp_path / "mine.txt").write_text("{question} {answers} : {response}")
    run = ["score", rows, "--judge", "llm", "--cluster", "exact", "--llm-url", served, "--llm-model", folder]
    run += ["--llm-prompt", "mine.txt", "--llm-max-tokens", 8]
    done = hcl(*run)
    scored = pl.read_parquet(done.path)
    assert scored["correct"].to_list() == [True, False, None, False], done.err
    assert scored["status_llm_file_mine"].to_list() == ["judged", "judged", "empty", "blank"]
    (reported,) = scored["reported_llm_file_mine"].drop_nulls().unique()
    assert reported.startswith("judge") and str(tmp_path) not in reported


@pytest.mark.long
def test_the_lab_model_behind_a_real_server_gives_no_verdicts(
    hcl: Hcl, served: str, rows: Path, tmp_path: Path
) -> None:
    shutil.copytree(data_file("models", "lab"), tmp_path / "lab")
    folder = with_chat_template(tmp_path / "lab")
    run = ["score", rows, "--judge", "llm", "--cluster", "exact", "--llm-url", served, "--llm-model", folder]
    done = hcl(*run, "--llm-prompt", "truth,info,simpleqa", "--llm-max-tokens", 8)
    scored = pl.read_parquet(done.path)
    for judge in ("llm_truth", "llm_info", "llm_simpleqa"):
        assert set(scored[f"status_{judge}"]) <= {"unparsed", "empty", "cut", "blank"}, judge
    assert scored["correct"].to_list() == [None, None, None, False]
    assert scored["informative_llm_info"].to_list() == [None, None, None, False]
