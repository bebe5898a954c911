"""Nothing is computed twice, nothing computed is lost: kills, second processes, growing runs, damage."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import planted
import polars as pl
import pytest
from calling import Hcl

INTERRUPTED = "hcl: interrupted; what was finished is kept, and the same command goes on from there\n"
Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def many_questions(tmp_path: Path, planted_model: Path) -> list[object]:
    """320 questions: ten shards."""
    lines = [planted.QUESTIONS[index % 3] | {"question_id": f"q{index}"} for index in range(320)]
    (tmp_path / "many.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "prompt.txt").write_text("{question}")
    return ["sample", "many.jsonl", "-m", planted_model, "--prompt", "prompt.txt", "-n", 30, "--temperature", 1.5]


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("sample/*/*.parquet"))


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_killed_run_goes_on_where_it_was(
    hcl: Hcl, spawn: Spawn, tmp_path: Path, many_questions: list[object], signum: int, code: int
) -> None:
    process = spawn(*many_questions, "--store", "killed")
    wait_for(lambda: len(shards(tmp_path / "killed")) >= 3, process)
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == b""
    assert err.decode() == ("" if signum == signal.SIGKILL else INTERRUPTED)
    kept = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in shards(tmp_path / "killed")}
    assert 3 <= len(kept) < 10
    if signum != signal.SIGKILL:
        assert not list((tmp_path / "killed").rglob("*.tmp*"))

    resumed = hcl(*many_questions, "--store", "killed").path
    whole = hcl(*many_questions, "--store", "whole").path
    assert resumed.read_bytes() == whole.read_bytes()
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept} == kept
    assert len(shards(tmp_path / "killed")) == 10


def test_two_processes_make_one_artifact_and_both_print_its_path(
    spawn: Spawn, tmp_path: Path, many_questions: list[object]
) -> None:
    pair = [spawn(*many_questions, "--json") for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert answers[0]["path"] == answers[1]["path"]
    assert sorted(answer["cached"] for answer in answers) == [False, True]
    assert len(list((tmp_path / ".hcl" / "sample").glob("*.parquet"))) == 1


def cells(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path).sort("question_id", "exit_layer", "sample_index")


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the streams that the engine is asked for."""
    from hcl_cli.stages import sample

    asked: list[int] = []
    decode = sample.decode

    def counting(loaded, prompts, wanted, sampling, **rest):  # type: ignore[no-untyped-def]
        asked.append(sum(cell.stop - cell.first for cell in wanted))
        return decode(loaded, prompts, wanted, sampling, **rest)

    monkeypatch.setattr(sample, "decode", counting)
    return asked


@pytest.mark.parametrize(
    ("small", "large", "missing"),
    [
        (["-n", 5], ["-n", 12], 20 * 4 * 7),
        (["--limit", 10, "-n", 6], ["-n", 6], 10 * 4 * 6),
        (["--exit-layers", "1,3", "-n", 6], ["-n", 6], 20 * 2 * 6),
        (["--exit-layers", "2", "--limit", 7, "-n", 3], ["-n", 6], 20 * 4 * 6 - 7 * 3),
        (["-n", 6], ["--limit", 9, "-n", 4, "--exit-layers", "2"], 0),
    ],
)
def test_growing_computes_only_the_missing_cells(
    hcl: Hcl,
    tmp_path: Path,
    planted_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    small: list[object],
    large: list[object],
    missing: int,
) -> None:
    lines = [planted.QUESTIONS[index % 3] | {"question_id": f"q{index}"} for index in range(20)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "prompt.txt").write_text("{question}")
    run = ["sample", "q.jsonl", "-m", planted_model, "--prompt", "prompt.txt", "--dtype", "float64"]
    run += ["--temperature", 1.5]
    hcl(*run, *small)
    asked = count_decoded(monkeypatch)
    grown = hcl(*run, *large).path
    assert sum(asked) == missing
    fresh = hcl(*run, *large, "--store", "other").path
    assert cells(grown).equals(cells(fresh))


def test_a_dry_run_says_why_it_is_a_miss(hcl: Hcl, planted_run: list[object], tmp_path: Path) -> None:
    first = hcl(*planted_run, "-n", 2, "--dry-run")
    assert first.code == 0
    assert first.out.startswith("miss ")
    assert not (tmp_path / ".hcl" / "sample").exists()
    made = json.loads(hcl(*planted_run, "-n", 2, "--json").out)
    hit = hcl(*planted_run, "-n", 2, "--dry-run")
    assert hit.out.split()[:2] == ["hit", made["key"]]
    other = hcl(*planted_run, "-n", 2, "--temperature", 0.7, "--dry-run").out
    assert other.startswith("miss ")
    assert "temperature was 0.6, now 0.7" in other
    as_json = json.loads(hcl(*planted_run, "-n", 2, "--seed", 5, "--dry-run", "--json").out)
    assert as_json["hit"] is False
    assert "seed was 0, now 5" in as_json["reason"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--temperature", 0.7), ("--top-p", 0.8), ("--top-k", 3), ("--max-new-tokens", 7), ("--seed", 1), ("-n", 3),
        ("--clean", "published"), ("--stop", "x"), ("--dtype", "float64"), ("--batch-tokens", 999),
        ("--exit-layers", "2"), ("--limit", 2), ("--attention", "eager"), ("--long-prompts", "truncate"),
        ("--prompt", "plain"),
    ],
)  # fmt: skip
def test_every_option_that_can_change_a_row_changes_the_key(
    hcl: Hcl, planted_run: list[object], option: str, value: object
) -> None:
    def key(*more: object) -> str:
        return str(json.loads(hcl(*planted_run, *more, "--dry-run", "--json").out)["key"])

    assert key("-n", 2) != key("-n", 2, option, value)
    assert key("-n", 2) == key("-n", 2, "--device", "cpu")
    assert key("-n", 2) == key("-n", 2, "--store", "elsewhere")


def test_damage_is_noticed_and_never_used(hcl: Hcl, planted_run: list[object]) -> None:
    path = hcl(*planted_run, "-n", 4).path
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[40] ^= 1  # in the first data page
    for damaged in (bytes(flipped), whole[:-7], b"", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        assert hcl("store", "verify").code == 2
        again = hcl(*planted_run, "-n", 4)
        assert "not used" in again.err
        assert again.path.read_bytes() == whole
    path.write_bytes(bytes(flipped))
    passed_on = hcl("score", "--cluster", "exact", path)
    assert passed_on.code == 2
    assert passed_on.out == ""


def test_a_read_only_store_still_serves_hits(hcl: Hcl, spawn: Spawn, tmp_path: Path, planted_run: list[object]) -> None:
    path = hcl(*planted_run, "-n", 2).path
    folders = [tmp_path / ".hcl", *(p for p in (tmp_path / ".hcl").rglob("*") if p.is_dir())]
    if os.geteuid() == 0:
        # root ignores permission bits, so the refusal is shown on a store that lies behind a file.
        for folder in folders:
            folder.chmod(0o555)
        assert hcl(*planted_run, "-n", 2).path == path
        (tmp_path / "blocked").write_text("")
        refused = hcl(*planted_run, "-n", 2, "--store", "blocked/store")
    else:
        for folder in folders:
            folder.chmod(0o555)
        assert hcl(*planted_run, "-n", 2).path == path
        refused = hcl(*planted_run, "-n", 3)
    for folder in folders:
        folder.chmod(0o755)
    assert refused.code == 4
    assert refused.err.count("\n") == 1
    assert "store" in refused.err


def test_a_full_disk_is_one_line_and_loses_no_finished_shard(
    hcl: Hcl, tmp_path: Path, many_questions: list[object]
) -> None:
    """A limit on the size of written files stands for the full disk: the shards fit, the whole artifact does not."""
    whole = hcl(*many_questions, "--store", "whole").path
    room = whole.stat().st_size - 1
    script = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room})); "
        "from hcl_cli.cli.app import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, many_questions), "--store", "full"],
        cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert done.stdout == b""
    assert b"Traceback" not in done.stderr
    assert len(shards(tmp_path / "full")) == 10
    assert not list((tmp_path / "full" / "sample").glob("*.parquet"))
    assert hcl(*many_questions, "--store", "full").path.read_bytes() == whole.read_bytes()
