"""Only missing cells are computed, finished ones survive, and what comes out does not depend on the way there."""

import errno
import gc
import os
import random

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hcl_cli.artifacts import files
from hcl_cli.artifacts.recipe import Recipe
from hcl_cli.artifacts.store import Block, Store, produce_cells_without_store
from hcl_cli.errors import BadInput, BadOption, EnvironmentRefused, ShardsFailed
from hcl_cli.schemas import RESPONSES, Table


def shards(store):
    return sorted(store.root.glob("sample/*/*.parquet"))


def temporaries(store):
    return list(store.root.rglob("*.tmp"))


def test_rows_are_the_wanted_cells_in_order_one_row_group_per_block(store, plan):
    stage = plan.Stage()
    artifact = plan.make(store, stage)
    assert artifact.frame().collect().equals(plan.expected())
    assert (artifact.rows, artifact.computed, artifact.cached) == (36, 36, False)
    assert [index for index, _ in stage.calls] == [0, 1, 2]
    assert stage.calls[0][1] == {(q, layer): (0, 3) for q in ("q00", "q07") for layer in (1, 2)}
    metadata = pq.read_metadata(artifact.path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [12, 12, 12]
    assert len(shards(store)) == 3


def test_the_second_time_is_a_hit_without_making_the_plan(store, plan):
    first = plan.make(store)
    again = store.produce_cells(plan.recipe(), RESPONSES, lambda: pytest.fail("planned"), plan.Stage())
    assert (again.cached, again.sha256, again.computed) == (True, first.sha256, 0)


def test_rows_may_come_in_any_order(tmp_path, store, plan):
    def shuffled(block, missing):
        return plan.frame(missing).sample(fraction=1.0, shuffle=True, seed=block.index)

    other = Store(tmp_path / "other", warn=print)
    mixed = other.produce_cells(plan.recipe(), RESPONSES, plan.blocks(), shuffled)
    assert mixed.path.read_bytes() == plan.make(store).path.read_bytes()


@pytest.mark.parametrize(
    ("grown", "n_new"),
    [
        ({"limit": 7}, 6),  # the block that was half full: one more question x 2 layers x 3 samples
        ({"samples": 5}, 6 * 2 * 2),
        ({"layers": (1, 2, 4)}, 6 * 3),
        ({"limit": 9, "samples": 4, "layers": (1, 2, 3)}, 9 * 3 * 4 - 36),
        ({"limit": 3, "samples": 2, "layers": (2,)}, 0),
    ],
)
def test_growing_computes_only_the_missing_cells(tmp_path, store, plan, grown, n_new):
    plan.make(store)
    stage = plan.Stage()
    artifact = plan.make(store, stage, **grown)
    assert stage.n_cells == artifact.computed == n_new
    assert artifact.frame().collect().equals(plan.expected(**grown))
    fresh = plan.make(Store(tmp_path / "fresh", warn=print), **grown)
    assert artifact.path.read_bytes() == fresh.path.read_bytes()


def test_another_option_shares_nothing(store, plan):
    plan.make(store)
    stage = plan.Stage()
    plan.make(store, stage, top_k=3)
    assert stage.n_cells == 36


def test_a_finished_artifact_of_the_same_base_stands_in_for_its_shards(store, plan, warnings):
    plan.make(store)
    assert {one.reason for one in store.gc().removed} == {"shard whose rows are in a finished artifact"}
    assert shards(store) == []
    stage = plan.Stage()
    grown = plan.make(store, stage, limit=8, samples=4)
    assert stage.n_cells == 8 * 2 * 4 - 36
    assert grown.frame().collect().equals(plan.expected(8, 4))
    assert warnings == []


def test_a_damaged_finished_artifact_does_not(store, plan, warnings):
    finished = plan.make(store)
    store.gc()
    whole = bytearray(finished.path.read_bytes())
    whole[100] ^= 4
    finished.path.write_bytes(whole)
    grown = plan.make(store, samples=4)
    assert grown.computed == 48
    assert grown.frame().collect().equals(plan.expected(samples=4))
    assert warnings == [f"{finished.path}: its bytes do not match its .sha256; not used"]


def test_force_computes_all_again_and_leaves_no_old_shard(store, plan):
    plan.make(store)
    plan.make(store, samples=5)
    old = set(shards(store))

    def louder(block, missing):
        return plan.frame(missing).with_columns(pl.col("response").str.to_uppercase())

    forced = store.produce_cells(plan.recipe(), RESPONSES, plan.blocks(), louder, force=True)
    louder_rows = plan.expected().with_columns(pl.col("response").str.to_uppercase())
    assert forced.frame().collect().equals(louder_rows)
    assert len(shards(store)) == 3
    assert len(old) == 6
    forced.path.unlink()
    assert plan.make(store).frame().collect().equals(louder_rows)


# Resuming


def interrupted(plan, store, error, block=1, **shape):
    stage = plan.Stage({block: error})
    with pytest.raises(type(error)):
        plan.make(store, stage, **shape)
    return stage


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), MemoryError(), EnvironmentRefused("disk")])
def test_an_interrupt_stops_at_once_and_keeps_what_is_finished(tmp_path, store, plan, error):
    stage = interrupted(plan, store, error)
    assert [index for index, _ in stage.calls] == [0, 1]
    assert len(shards(store)) == 1
    assert temporaries(store) == []
    again = plan.Stage()
    resumed = plan.make(store, again)
    assert [index for index, _ in again.calls] == [1, 2]
    assert resumed.computed == 24
    assert resumed.path.read_bytes() == plan.make(Store(tmp_path / "other", warn=print)).path.read_bytes()


def test_a_resumed_growth_equals_an_uninterrupted_one_even_if_the_stage_rounds_differently(tmp_path, plan, warnings):
    """A row is taken from the same shard on either way, so its last bits are the same too."""

    class Rounding(plan.Stage):
        def __call__(self, block, missing):
            rows = super().__call__(block, missing)
            return rows.with_columns(pl.col("mean_prob") + 1e-3 * len(missing) + 1e-4 * rows.height)

    def run(store, interrupt):
        plan.make(store, Rounding(), limit=5)
        (store.root / "sample" / f"{plan.recipe(5).key[:16]}.parquet").unlink()
        for path in shards(store)[1:2]:
            path.unlink()
        plan.make(store, Rounding(), limit=5, samples=2, layers=(2, 3))
        if interrupt:
            stage = Rounding({2: KeyboardInterrupt()})
            with pytest.raises(KeyboardInterrupt):
                plan.make(store, stage, limit=7, samples=5, layers=(1, 2, 3))
        return plan.make(store, Rounding(), limit=7, samples=5, layers=(1, 2, 3)).path.read_bytes()

    straight = run(Store(tmp_path / "a", warn=warnings.append), interrupt=False)
    assert run(Store(tmp_path / "b", warn=warnings.append), interrupt=True) == straight
    assert warnings == []


# Failing blocks


def test_a_failing_block_does_not_stop_the_others(store, plan, warnings):
    stage = plan.Stage({0: RuntimeError("out of\nluck"), 2: RuntimeError("again")})
    with pytest.raises(ShardsFailed) as failure:
        plan.make(store, stage)
    assert str(failure.value) == (
        "2 of 3 blocks failed, the first (block 0) with: RuntimeError: out of luck; the finished ones are kept: run "
        "the same command again to try the others"
    )
    assert failure.value.__cause__ is stage.fail[0]
    assert [index for index, _ in stage.calls] == [0, 1, 2]
    assert warnings == ["block 0 failed: RuntimeError: out of luck", "block 2 failed: RuntimeError: again"]
    assert store.find(plan.recipe()) is None
    assert temporaries(store) == []
    again = plan.Stage()
    assert plan.make(store, again).frame().collect().equals(plan.expected())
    assert [index for index, _ in again.calls] == [0, 2]


@pytest.mark.parametrize("error", [BadInput("weights are a pickle"), BadOption("--stop")])
def test_bad_input_in_the_first_block_is_told_at_once(store, plan, error):
    assert len(interrupted(plan, store, error, block=0).calls) == 1


def test_bad_input_in_a_later_block_concerns_that_block(store, plan):
    with pytest.raises(ShardsFailed, match=r"1 of 3 .*block 1.*BadInput: question q21 is too long"):
        plan.make(store, plan.Stage({1: BadInput("question q21 is too long")}))
    assert len(shards(store)) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda frame: frame.head(-1),
        lambda frame: frame.with_columns(pl.lit(9, dtype=pl.Int16).alias("exit_layer")),
        lambda frame: frame.with_columns(pl.col("sample_index") + 1),
        lambda frame: pl.concat([frame, frame.head(1)]),
        lambda frame: frame.with_columns(extra=1),
        lambda frame: frame.drop("text"),
    ],
)
def test_rows_other_than_asked_are_never_kept(store, plan, wrong):
    with pytest.raises(ShardsFailed, match="3 of 3 blocks failed.*ValueError"):
        store.produce_cells(plan.recipe(), RESPONSES, plan.blocks(), lambda block, missing: wrong(plan.frame(missing)))
    assert shards(store) == []


# Damage and a full disk


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip, "its bytes do not match its .sha256"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "its bytes do not match its .sha256"),
        (lambda path: path.with_suffix(".sha256").unlink(), "its .sha256 is missing or unreadable"),
        (
            lambda path: [
                os.replace(shard, path.with_name(path.name.replace("00001-", "00000-")).with_suffix(shard.suffix))
                for shard in (path, path.with_suffix(".sha256"))
            ],
            "its recipe is not its name's",
        ),
    ],
)
def test_a_damaged_shard_is_a_warning_and_computed_again(store, plan, warnings, damage, reason):
    finished = plan.make(store)
    whole = finished.path.read_bytes()
    finished.path.unlink()
    damage(shards(store)[1])
    stage = plan.Stage()
    assert plan.make(store, stage).path.read_bytes() == whole
    assert [index for index, _ in stage.calls] == [1]
    assert len(warnings) == 1
    assert reason in warnings[0]


def test_a_shard_of_another_base_is_not_used(store, plan, warnings):
    plan.make(store)
    plan.make(store, top_k=1)
    one, other = sorted({path.parent for path in shards(store)})
    for path in other.iterdir():
        path.unlink()
    for path in one.iterdir():
        os.link(path, other / path.name)
    for path in store.root.glob("sample/*.parquet"):
        path.unlink()
    stages = [plan.Stage(), plan.Stage()]
    plan.make(store, stages[0])
    plan.make(store, stages[1], top_k=1)
    assert sorted(stage.n_cells for stage in stages) == [0, 36]
    assert len(warnings) == 3
    assert all("it belongs to other options" in line for line in warnings)


@pytest.mark.parametrize("shards_that_fit", [0, 1, 2])
def test_a_full_disk_keeps_finished_shards(tmp_path, store, plan, monkeypatch, shards_that_fit):
    stage = plan.Stage()
    with monkeypatch.context() as patch:
        real = os.write

        def write(descriptor, data):
            if len(shards(store)) >= shards_that_fit and stage.calls:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(descriptor, data)

        patch.setattr(files.os, "write", write)
        with pytest.raises(EnvironmentRefused, match="disk full"):
            plan.make(store, stage)
    assert temporaries(store) == []
    assert len(shards(store)) == shards_that_fit
    again = plan.Stage()
    resumed = plan.make(store, again)
    assert again.n_cells == 36 - 12 * shards_that_fit
    assert resumed.path.read_bytes() == plan.make(Store(tmp_path / "other", warn=print)).path.read_bytes()


def test_an_artifact_given_up_half_way_frees_its_writer_quietly(store, plan, monkeypatch):
    """Freed late, Arrow's writer wrote its footer into a closed file and formatted the error inside the collector.

    On CPython 3.11 that broke whatever was being compiled just then ("AST constructor recursion depth mismatch").
    """
    faults = []
    monkeypatch.setattr(files.HashedFile, "write", _noting(files.HashedFile.write, faults))
    with pytest.raises(KeyboardInterrupt):
        plan.make(store, plan.Stage({1: KeyboardInterrupt()}))
    gc.collect()
    assert faults == []


def _noting(write, faults):
    def noted(self, data):
        try:
            return write(self, data)
        except Exception as error:
            faults.append(error)
            raise

    return noted


def test_a_full_disk_inside_the_stage_stops_too(store, plan):
    stage = plan.Stage({1: OSError(errno.ENOSPC, "No space left on device")})
    with pytest.raises(EnvironmentRefused, match="disk full"):
        plan.make(store, stage)
    assert len(stage.calls) == 2


# A law over whole histories


shapes = st.fixed_dictionaries(
    {
        "limit": st.integers(1, 5),
        "samples": st.integers(1, 4),
        "layers": st.sets(st.integers(1, 3), min_size=1).map(lambda found: tuple(sorted(found))),
    }
)
steps = st.lists(
    st.tuples(shapes, st.sampled_from(["", "", "drop artifact", "drop shard", "damage shard", "gc", "force", "fail"])),
    min_size=1,
    max_size=5,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, seed=st.integers(0, 99))
def test_whatever_happened_before_the_artifact_is_its_definition(steps, seed, plan, tmp_path_factory):
    chance = random.Random(seed)
    store = Store(tmp_path_factory.mktemp("history"), warn=lambda line: None)
    for shape, event in steps:
        if event == "fail":
            try:
                plan.make(store, plan.Stage({0: RuntimeError("bad luck")}), **shape)
            except ShardsFailed:
                pass
        else:
            artifact = plan.make(store, force=event == "force", **shape)
            assert artifact.frame().collect().equals(plan.expected(**shape))
        there = shards(store)
        if event == "drop artifact":
            artifact.path.unlink()
        elif event == "drop shard" and there:
            chance.choice(there).unlink()
        elif event == "damage shard" and there:
            flip(chance.choice(there))
        elif event == "gc":
            store.gc()


# Other kinds of cells


LINES = Table(
    "lines", key=("statement", "layer", "place"), columns={"statement": "int64", "layer": "int16", "place": "int32"}
)


def lines(limit=4):
    return Recipe("lines", "entropy", 1, {"limit": limit}, grows=("limit",))


def test_cells_with_any_number_of_rows(store):
    """One row per token: a statement of length n has n rows, and a statement of length 0 none."""
    calls = []

    def compute(block, missing):
        calls.append(dict(missing))
        rows = [(s, layer, place) for s, layer in missing for place in reversed(range(s))]
        return pl.DataFrame(rows, schema=LINES.polars_schema(), orient="row")

    def blocks(limit):
        return [Block(i, {(i, 2): 1, (i, 1): 1}) for i in range(limit)]

    def make(limit):
        return store.produce_cells(
            lines(limit), LINES, blocks(limit), compute, cell_columns=("statement", "layer"), index_column=None
        )

    def expected(limit):
        return [(s, layer, place) for s in range(limit) for layer in (1, 2) for place in reversed(range(s))]

    assert make(3).frame().collect().rows() == expected(3)
    calls.clear()
    assert make(4).frame().collect().rows() == expected(4)
    assert calls == [{(3, 1): (0, 1), (3, 2): (0, 1)}]
    assert {one.reason for one in store.gc().removed} <= {"shard whose rows are in a finished artifact"}
    calls.clear()
    assert make(5).frame().collect().rows() == expected(5)
    assert set().union(*calls) <= {(0, 1), (0, 2), (4, 1), (4, 2)}


def test_cells_of_one_column(store):
    ones = Table("ones", key=("name",), columns={"name": "string", "length": "int32"})

    def compute(block, missing):
        return pl.DataFrame({"name": list(missing), "length": [len(name) for name in missing]})

    artifact = store.produce_cells(
        Recipe("ones", "dola", 1, {"limit": 3}, grows=("limit",)),
        ones,
        [Block(0, {"bb": 1, "a": 1}), Block(1, {"ccc": 1})],
        compute,
        cell_columns=("name",),
        index_column=None,
    )
    assert artifact.frame().collect().rows() == [("bb", 2), ("a", 1), ("ccc", 3)]


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([], "without blocks"),
        ([Block(0, {})], "at least one row"),
        ([Block(0, {("q", 1): 0})], "at least one row"),
        ([Block(0, {("q", 1): 1}), Block(1, {("q", 2): 1})], "'q' is in two blocks"),
        ([Block(0, {("q", 1): 1}), Block(0, {("r", 1): 1})], "same index"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(store, plan, blocks, message):
    with pytest.raises(ValueError, match=message):
        store.produce_cells(plan.recipe(), RESPONSES, blocks, plan.Stage())


def test_a_recipe_that_does_not_grow_has_no_cells(store, plan):
    with pytest.raises(ValueError, match="growing options"):
        store.produce_cells(Recipe("responses", "sample", 1, {}), RESPONSES, plan.blocks(), plan.Stage())


def test_progress_counts_blocks(store, plan, tmp_path):
    seen = []
    for make in (store.produce_cells, lambda *a, **k: produce_cells_without_store(*a, tmp_path / "x.parquet", **k)):
        make(
            plan.recipe(),
            RESPONSES,
            plan.blocks(),
            plan.Stage(),
            on_progress=lambda done, total: seen.append((done, total)),
        )
    assert seen == [(1, 3), (2, 3), (3, 3)] * 2
