"""What gc may take and what it must leave."""

import os
import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hcl_cli.artifacts import housekeeping
from hcl_cli.artifacts.housekeeping import Entry
from hcl_cli.artifacts.locks import making
from hcl_cli.artifacts.recipe import Input, Recipe
from hcl_cli.errors import EnvironmentRefused
from hcl_cli.schemas import QUESTIONS

DAY = 86_400.0


def artifact(store, name, *parents, age=0.0, rows=1):
    """An artifact made of others, so many seconds ago."""
    frame = pl.DataFrame(
        {"question_id": [str(i) for i in range(rows)], "question": name, "answers": [[name]] * rows},
        schema=QUESTIONS.polars_schema(),
    )
    recipe = Recipe(
        "questions", "score", 1, {"name": name}, inputs=tuple(Input(one.sha256, one.key) for one in parents)
    )
    made = store.produce(recipe, QUESTIONS, lambda: frame)
    when = time.time() - age
    os.utime(made.path, (when, when))
    return made


def removed(report):
    return {one.path.name: one.reason for one in report.removed}


def names(store):
    return sorted(path.name for path in store.root.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_entries_are_listed_by_stage_the_oldest_first(store, plan):
    new = artifact(store, "new")
    old = artifact(store, "old", age=DAY, rows=3)
    cells = plan.make(store)
    (store.root / "models" / "pruned").mkdir(parents=True)
    (store.root / "models" / "x.parquet").write_text("not an artifact")
    store.log(stage="score")
    found = list(store.entries())
    assert [(one.stage, one.key, one.table, one.rows) for one in found] == [
        ("sample", cells.key, "responses", 36),
        ("score", old.key, "questions", 3),
        ("score", new.key, "questions", 1),
    ]
    assert [one.n_bytes for one in found] == [one.path.stat().st_size for one in (cells, old, new)]
    assert found[1].recipe == old.recipe
    assert abs(found[1].modified - (time.time() - DAY)) < 60
    new.path.write_text("x")
    assert [bool(one.problem) for one in store.entries()] == [False, False, True]


def test_an_empty_or_absent_store_has_no_entries_and_nothing_to_collect(store):
    assert list(store.entries()) == list(store.verify()) == []
    assert store.gc().removed == ()
    assert not store.root.exists()


def test_verify_checks_artifacts_and_shards_in_full(store, plan):
    made = plan.make(store)
    assert [(one.problem, one.is_shard) for one in store.verify()] == [(None, False)] + [(None, True)] * 3
    shard = sorted(store.root.glob("sample/*/*.parquet"))[1]
    for path in (made.path, shard):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    mismatch = "its bytes do not match its .sha256"
    assert {one.path: one.problem for one in store.verify() if one.problem} == {made.path: mismatch, shard: mismatch}


def test_gc_takes_what_killed_processes_left_and_leaves_what_is_being_written(store):
    made = artifact(store, "kept")
    folder = made.path.parent
    here = f".{made.path.name}"
    from hcl_cli.artifacts.files import temporary_path

    running = temporary_path(made.path)  # of this process
    dead = running.with_name(running.name.replace(f".{os.getpid()}.", ".4194304."))  # beyond the largest process id
    other_host = dead.with_name(".".join([here, "ffffffff", "1", "00000000", "tmp"]))
    old_host = other_host.with_name(other_host.name.replace("00000000", "11111111"))
    orphan, fresh_orphan = folder / "0123456789abcdef.sha256", folder / "fedcba9876543210.sha256"
    for path in (running, dead, other_host, old_host, orphan, fresh_orphan):
        path.write_text("half")
    (folder / ".mine.tmp").write_text("of somebody else")
    long_ago = time.time() - 3 * DAY
    os.utime(old_host, (long_ago, long_ago))
    os.utime(orphan, (long_ago, long_ago))
    assert (
        removed(store.gc(dry_run=True))
        == removed(store.gc())
        == {
            dead.name: "temporary file of a process that is gone",
            old_host.name: "temporary file of a process that is gone",
            orphan.name: "digest without a file",
        }
    )
    assert names(store) == sorted(
        [".mine.tmp", running.name, other_host.name, fresh_orphan.name, made.path.name, f"{made.path.stem}.sha256"]
    )


def test_files_that_are_not_ours_are_left_alone(store, plan):
    """A store may be made in a folder that holds other things, e.g. --store . ."""
    plan.make(store)
    mine = ["results/table.parquet", "results/table.sha256", "results/lonely.sha256", "sample/x.parquet", "x.parquet"]
    mine += ["results/0123456789abcdef/notes.parquet", "results/0123456789abcdef/notes.sha256"]
    for name in mine:
        path = store.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        os.utime(path, (1, 1))
    assert len(list(store.entries())) == 1
    assert len(list(store.verify())) == 4
    store.gc(older_than=0, max_size=0, force=True, versions={"sample": 9})
    assert sorted(n for n in names(store) if not n.startswith(".")) == sorted(os.path.basename(name) for name in mine)


def test_gc_takes_shards_that_a_finished_artifact_holds_and_keeps_the_others(store, plan):
    plan.make(store)
    with pytest.raises(KeyboardInterrupt):
        plan.make(store, plan.Stage({1: KeyboardInterrupt()}), samples=5)
    assert len(list(store.root.glob("sample/*/*.parquet"))) == 4
    report = store.gc()
    assert set(removed(report).values()) == {"shard whose rows are in a finished artifact"}
    assert len(report.removed) == 6  # three shards and their digests
    assert report.n_bytes > 3000
    (kept,) = store.root.glob("sample/*/*.parquet")
    stage = plan.Stage()
    assert plan.make(store, stage, samples=5).frame().collect().equals(plan.expected(samples=5))
    assert [index for index, _ in stage.calls] == [1, 2]
    store.gc()
    assert list(store.root.glob("sample/*/")) == []
    assert not kept.exists()


def test_gc_keeps_shards_if_the_finished_artifact_is_damaged(store, plan):
    made = plan.make(store)
    made.path.write_bytes(made.path.read_bytes()[:-1])
    assert store.gc().removed == ()


def test_gc_takes_damaged_shards_and_those_of_another_stage_version(store, plan):
    with pytest.raises(KeyboardInterrupt):
        plan.make(store, plan.Stage({2: KeyboardInterrupt()}))
    first, second = sorted(store.root.glob("sample/*/*.parquet"))
    first.write_bytes(first.read_bytes()[:-1])
    assert removed(store.gc(versions={"sample": 1})) == dict.fromkeys(
        [first.name, f"{first.stem}.sha256"], "damaged shard: its bytes do not match its .sha256"
    )
    assert removed(store.gc(versions={"score": 2})) == {}
    assert set(removed(store.gc(versions={"sample": 2})).values()) == {"shard of stage version 1, now 2"}
    assert not second.parent.exists()


def test_gc_leaves_shards_that_a_running_process_is_filling(store, plan):
    plan.make(store)
    (folder,) = store.root.glob("sample/*/")
    with making(folder, lambda line: None):
        assert store.gc(versions={"sample": 9}).removed == ()
    assert len(store.gc(versions={"sample": 9}).removed) == 6


def test_gc_takes_no_artifact_unless_asked(store):
    made = artifact(store, "old", age=1000 * DAY)
    assert store.gc().removed == ()
    assert set(removed(store.gc(older_than=999 * DAY))) == {made.path.name, f"{made.path.stem}.sha256"}
    assert list(store.entries()) == []


def test_gc_never_takes_what_a_kept_artifact_came_from(store):
    responses = artifact(store, "responses", age=30 * DAY)
    scored = artifact(store, "scored", responses, age=20 * DAY)
    layers = artifact(store, "layers", scored)
    alone = artifact(store, "alone", age=30 * DAY)
    report = store.gc(older_than=10 * DAY)
    assert set(removed(report)) == {alone.path.name, f"{alone.path.stem}.sha256"}
    assert set(report.kept_for) == {responses.path, scored.path}
    assert {one.key for one in store.entries()} == {responses.key, scored.key, layers.key}
    forced = store.gc(older_than=10 * DAY, force=True)
    assert {responses.path.name, scored.path.name} < set(removed(forced))
    assert [one.key for one in store.entries()] == [layers.key]


def test_lineage_follows_bytes_too(store):
    """An input that was read from a copy elsewhere has no key that could be followed, only its SHA-256."""
    responses = artifact(store, "responses", age=30 * DAY)
    recipe = Recipe("questions", "score", 1, {"name": "x"}, inputs=(Input(responses.sha256),))
    store.produce(recipe, QUESTIONS, lambda: responses.frame().collect())
    assert store.gc(older_than=DAY).removed == ()


def test_gc_by_size_takes_the_oldest_first_and_whole_chains_from_their_end(store):
    a = artifact(store, "a", age=40 * DAY)
    b = artifact(store, "b", a, age=30 * DAY)
    c = artifact(store, "c", age=20 * DAY)
    d = artifact(store, "d", age=10 * DAY)
    total = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())
    assert store.gc(max_size=total).removed == ()
    assert removed(store.gc(max_size=total - 1, dry_run=True)).keys() == {b.path.name, f"{b.path.stem}.sha256"}
    assert len(list(store.entries())) == 4
    store.gc(max_size=total - b.path.stat().st_size - 1)
    assert {one.key for one in store.entries()} == {c.key, d.key}
    store.gc(max_size=0)
    assert list(store.entries()) == []


def test_a_file_that_cannot_be_removed_is_told(store, monkeypatch):
    made = artifact(store, "old", age=DAY)

    def unlink(self, missing_ok=False):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(made.path), "unlink", unlink)
    with pytest.raises(EnvironmentRefused, match="Permission denied"):
        store.gc(older_than=1)


def test_links_to_nothing_and_folders_with_an_artifacts_name_are_left_alone(store):
    """A link whose target is gone ended `hcl store ls` and `gc` with a stack."""
    folder = artifact(store, "kept").path.parent
    (folder / "0123456789abcdef.parquet").symlink_to(folder / "gone.parquet")
    (folder / "fedcba9876543210.parquet").mkdir()
    assert [one.rows for one in store.entries()] == [1]
    assert [one.problem for one in store.verify()] == [None]
    assert len(store.gc(older_than=-1.0).removed) == 2
    assert sorted(path.name for path in folder.glob("*.parquet")) == [
        "0123456789abcdef.parquet",
        "fedcba9876543210.parquet",
    ]


@st.composite
def families(draw):
    """Artifacts in the order of their making, each made of some earlier ones, and the oldest few of them."""
    count = draw(st.integers(1, 8))
    entries = []
    for i in range(count):
        parents = draw(st.sets(st.integers(0, i - 1), max_size=2)) if i else set()
        recipe = {"inputs": [{"key": f"k{j}", "sha256": ""} for j in sorted(parents)]}
        entries.append(Entry(Path(f"{i}"), "score", f"k{i}", "scored", 1, draw(st.integers(1, 5)), float(i), recipe))
    going = draw(st.sets(st.sampled_from(range(count))))
    return entries, [entries[i] for i in sorted(going)]


def parents(one):
    return {item["key"] for item in one.recipe["inputs"]}


@given(families())
def test_what_goes_by_age_is_the_most_that_leaves_no_kept_artifact_without_its_origin(family):
    entries, going = family
    gone = housekeeping._without_ancestors(going, housekeeping._lineage(entries))
    plain = list(going)
    while blocked := [one for one in plain if any(one.key in parents(kept) for kept in entries if kept not in plain)]:
        plain = [one for one in plain if one not in blocked]
    assert gone == plain


@given(families(), st.integers(0, 40), st.booleans())
def test_what_goes_by_size_is_the_oldest_that_may_go_each_time(family, excess, force):
    entries, _ = family
    gone = housekeeping._until_small(entries, [], excess, force, housekeeping._lineage(entries))
    plain = []
    while sum(one.n_bytes for one in plain) < excess:
        kept = [one for one in entries if one not in plain]
        free = [one for one in kept if force or not any(one.key in parents(other) for other in kept)]
        if not free:
            break
        plain.append(free[0])
    assert gone == plain
