"""Real processes: killed at any moment, two at once, and a disk that really takes no more."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hcl_cli.artifacts.store import Store

SCRIPT = Path(__file__).with_name("plan.py")
ENVIRONMENT = {**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}


def start(root, *arguments):
    command = [sys.executable, str(SCRIPT), str(root), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def run(root, *arguments):
    process = start(root, *arguments)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def whole(plan, tmp_path_factory):
    """The bytes of the artifact of an uninterrupted run."""
    return plan.make(Store(tmp_path_factory.mktemp("whole"), warn=print)).path.read_bytes()


def resumed_calls(plan, root, whole, warnings=None):
    """Run the same command in this process; give the blocks it computed, after checking what it made."""
    stage = plan.Stage()
    artifact = plan.make(Store(root, warn=(warnings or []).append), stage)
    assert artifact.path.read_bytes() == whole
    assert list(root.rglob("*.tmp")) == []
    return [index for index, _ in stage.calls]


def test_killed_in_a_block_the_run_goes_on_there_and_the_bytes_are_equal(tmp_path, plan, whole):
    code, out, _ = run(tmp_path, "--die-in-block", 2)
    assert (code, out) == (-signal.SIGKILL, "")
    assert list(tmp_path.rglob(".*.tmp"))  # the artifact that was being put together
    assert resumed_calls(plan, tmp_path, whole) == [2]


# Renames of one run: two for each of the three shards (digest, rows), then two for the artifact.
@pytest.mark.parametrize(("rename", "left"), [(1, [0, 1, 2]), (2, [0, 1, 2]), (3, [1, 2]), (6, [2]), (7, []), (8, [])])
def test_killed_while_a_file_gets_its_name_nothing_half_is_left(tmp_path, plan, whole, rename, left):
    assert run(tmp_path, "--die-at-rename", rename)[0] == -signal.SIGKILL
    warnings = []
    assert Store(tmp_path, warn=warnings.append).find(plan.recipe()) is None
    assert resumed_calls(plan, tmp_path, whole, warnings) == left
    assert warnings == []


@pytest.mark.long
def test_killed_at_random_moments(tmp_path, plan, whole):
    chance = random.Random(0)
    for attempt in range(40):
        root = tmp_path / str(attempt)
        process = start(root, "--pause", 0.02)
        time.sleep(chance.uniform(0.2, 1.2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        finished = len(list(root.glob("sample/*/*.parquet")))
        if Store(root, warn=print).find(plan.recipe()) is None:
            assert resumed_calls(plan, root, whole) == list(range(finished, 3))


def test_two_processes_started_together_make_one_artifact(tmp_path, plan, whole):
    calls = tmp_path / "calls"
    pair = [start(tmp_path / "store", "--calls", calls, "--pause", 0.2) for _ in range(2)]
    (out_a, err_a), (out_b, err_b) = (process.communicate(timeout=60) for process in pair)
    assert [process.returncode for process in pair] == [0, 0]
    path = tmp_path / "store" / "sample" / f"{plan.recipe().key[:16]}.parquet"
    assert sorted([out_a, out_b]) == [f"{path} 0\n", f"{path} 36\n"]
    assert path.read_bytes() == whole
    assert len(calls.read_text().splitlines()) == 3
    maker = calls.read_text().split()[0]
    waited = err_a + err_b
    assert waited == "" or waited.startswith(f"waiting for process {maker} on ")
    assert waited.count("\n") <= 1


def test_two_processes_that_differ_in_growth_share_their_work(tmp_path, plan):
    calls = tmp_path / "calls"
    small = start(tmp_path / "store", "--calls", calls, "--pause", 0.2, "--limit", 4)
    while not calls.exists() and small.poll() is None:
        time.sleep(0.01)
    code, out, err = run(tmp_path / "store", "--calls", calls)
    assert small.wait() == 0
    assert small.communicate() == (f"{tmp_path / 'store' / 'sample' / plan.recipe(4).key[:16]}.parquet 24\n", "")
    assert (code, out.split()[1]) == (0, "12")
    assert err.startswith(f"waiting for process {small.pid} on ")


def test_a_killed_holder_blocks_nobody(tmp_path, plan, whole):
    calls = tmp_path / "calls"
    holder = start(tmp_path / "store", "--calls", calls, "--pause", 60)
    while not calls.exists() and holder.poll() is None:
        time.sleep(0.01)
    waiter = start(tmp_path / "store", "--calls", tmp_path / "more")
    assert waiter.stderr.readline().startswith(f"waiting for process {holder.pid} on ")
    holder.send_signal(signal.SIGKILL)
    out, _ = waiter.communicate(timeout=60)
    assert out.endswith(" 36\n")
    assert (tmp_path / "store" / "sample" / f"{plan.recipe().key[:16]}.parquet").read_bytes() == whole
    holder.communicate()


def test_a_file_that_may_not_grow_is_refused_and_leaves_nothing_half(tmp_path, plan, whole):
    """The system's own refusal (EFBIG), not a made-up one: each shard fits, the artifact does not."""
    code, out, err = run(tmp_path, "--file-size", 8500)
    assert (code, out) == (4, "")
    assert err.count("\n") == 1
    assert "disk full (File too large)" in err
    assert len(list(tmp_path.glob("sample/*/*.parquet"))) == 3
    assert list(tmp_path.rglob("*.tmp")) == []
    assert resumed_calls(plan, tmp_path, whole) == []
