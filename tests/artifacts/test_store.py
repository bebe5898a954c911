"""Found or made once, written whole, never believed unchecked."""

import errno
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hcl_cli.artifacts import files
from hcl_cli.artifacts.recipe import Recipe
from hcl_cli.artifacts.store import Store, produce_cells_without_store, produce_without_store, write_copy
from hcl_cli.errors import BadOption, EnvironmentRefused
from hcl_cli.schemas import QUESTIONS, RESPONSES, Table

NUMBERS = Table(
    "numbers",
    key=("name",),
    columns={"name": "string", "small": "int16", "score": "float64", "good": "bool", "words": "list[string]"},
    not_null=("name",),
)


def numbers(rows):
    return pl.DataFrame(rows, schema=NUMBERS.polars_schema(), orient="row")


ROWS = numbers([("a", 1, 0.5, True, ["x", "y"]), ("b", None, None, None, None), ("c", -3, 2.0, False, [])])


def recipe(stage="hcb", **options):
    return Recipe("numbers", stage, 1, options)


def make(store, frame=ROWS, force=False, **options):
    """The artifact, and whether it had to be computed."""
    computed = []
    artifact = store.produce(recipe(**options), NUMBERS, lambda: computed.append(1) or frame, force=force)
    assert artifact.cached == (not computed)
    return artifact, bool(computed)


def all_files(root):
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_the_second_time_is_a_hit_and_computes_nothing(store, warnings):
    first, computed = make(store)
    again, recomputed = make(store)
    assert (computed, recomputed) == (True, False)
    assert (again.path, again.key, again.sha256, again.rows) == (first.path, first.key, first.sha256, 3)
    assert first.path == store.root / "hcb" / f"{recipe().key[:16]}.parquet"
    assert all_files(store.root) == [f"hcb/{first.key[:16]}.parquet", f"hcb/{first.key[:16]}.sha256"]
    assert again.frame().collect().equals(ROWS)
    assert again.rows_as_dicts() == ROWS.to_dicts()
    assert warnings == []


def test_other_options_are_another_file(store):
    assert make(store, seed=0)[0].path != make(store, seed=1)[0].path
    assert make(store, seed=1)[1] is False


def test_force_computes_again_and_replaces(store):
    make(store)
    replaced, computed = make(store, frame=ROWS.head(1), force=True)
    assert computed
    assert replaced.rows == 1
    assert make(store)[0].frame().collect().equals(ROWS.head(1))


def test_the_same_recipe_and_rows_give_the_same_bytes(tmp_path, store):
    in_pieces = pl.concat([ROWS.slice(0, 1), ROWS.slice(1)], rechunk=False)
    shuffled_columns = in_pieces.select("words", "name", "good", "score", "small")
    other = Store(tmp_path / "elsewhere", warn=print)
    assert make(store)[0].path.read_bytes() == make(other, frame=shuffled_columns)[0].path.read_bytes()


def test_digest_is_readable_by_sha256sum(store):
    path = make(store)[0].path
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.with_suffix(".sha256").read_text() == f"{digest}  {path.name}\n"


def test_footer_holds_the_recipe_and_nothing_of_this_run(store):
    path = make(store, weights="script")[0].path
    stored = json.loads(pq.read_metadata(path).metadata[b"hcl"])
    assert stored == recipe(weights="script").document()
    assert json.loads(pl.read_parquet_metadata(path)["hcl"]) == stored
    assert str(store.root) not in json.dumps(stored)


def test_others_read_it_with_no_help(store, tmp_path, monkeypatch):
    path = make(store)[0].path
    assert pl.read_parquet(path).equals(ROWS)
    assert pq.read_table(path).to_pylist() == ROWS.to_dicts()
    assert pq.read_metadata(path).row_group(0).column(0).compression == "ZSTD"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    loaded = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.to_list() == ROWS.to_dicts()


def test_a_hit_imports_neither_polars_nor_torch_nor_filelock(store):
    make(store)
    program = (
        "import sys; from pathlib import Path; from hcl_cli.artifacts.recipe import Recipe;"
        "from hcl_cli.artifacts.store import Store, read_source, write_copy;"
        "a = Store(Path(sys.argv[1]), warn=print).produce(Recipe('numbers', 'hcb', 1), None, None);"
        "write_copy(a, Path(sys.argv[2])); a.rows_as_dicts();"
        "print(a.rows, sorted({'torch', 'polars', 'transformers', 'datasets', 'filelock', 'pandas', 'scipy'} & "
        "set(sys.modules)))"
    )
    out = store.root / "copy.parquet"
    done = subprocess.run([sys.executable, "-c", program, store.root, out], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("3 []\n", "")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (ROWS.drop("score"), "columns \\['score'\\] are missing"),
        (ROWS.with_columns(extra=1), "unknown columns \\['extra'\\]"),
        (ROWS.with_columns(score=pl.lit(float("nan"))), "column score holds NaN"),
        (ROWS.with_columns(name=pl.lit(None, dtype=pl.String)), "column name holds null"),
        (ROWS.with_columns(name=pl.lit("a")), "key name is not unique"),
        (ROWS.with_columns(small=pl.lit(40_000)), "numbers"),
        (ROWS.with_columns(small=pl.lit(1.5)), "small holds a fraction"),
        (ROWS.with_columns(good=pl.lit("perhaps")), "numbers"),
    ],
)
def test_a_frame_that_does_not_conform_is_refused_and_nothing_is_written(store, frame, message):
    with pytest.raises(ValueError, match=message):
        make(store, frame=frame)
    assert all_files(store.root) == []


def test_types_are_cast_where_that_is_exact(store):
    wide = ROWS.with_columns(pl.col("small").cast(pl.Float64), pl.col("score").cast(pl.Float32))
    assert make(store, frame=wide)[0].frame().collect().equals(ROWS)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.text(),
            st.none() | st.integers(-(2**15), 2**15 - 1),
            st.none() | st.floats(allow_nan=False),
            st.none() | st.booleans(),
            st.none() | st.lists(st.text(), max_size=4),
        ),
        unique_by=lambda row: row[0],
        max_size=30,
    )
)
def test_write_then_read_is_the_identity(rows, tmp_path_factory):
    frame = numbers(rows)
    artifact, _ = make(Store(tmp_path_factory.mktemp("store"), warn=print), frame=frame)
    assert artifact.frame().collect().equals(frame)
    assert artifact.rows == len(rows)


# Damage


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.long)])
def test_every_truncated_length_is_a_warning_and_a_miss(store, warnings, step):
    path = make(store)[0].path
    whole = path.read_bytes()
    lengths = sorted({*range(12), *range(0, len(whole), step), *range(len(whole) - 12, len(whole))})
    for length in lengths:
        path.write_bytes(whole[:length])
        assert store.find(recipe()) is None
    assert len(warnings) == len(lengths)
    assert set(warnings) == {f"{path}: its bytes do not match its .sha256; not used"}
    path.write_bytes(whole)
    assert store.find(recipe()).rows == 3


def test_a_flipped_bit_anywhere_is_noticed_in_data_pages_too(store, warnings):
    path = make(store)[0].path
    whole = path.read_bytes()
    column = pq.read_metadata(path).row_group(0).column(2)  # `score`
    page = range(column.data_page_offset, column.data_page_offset + 20)
    chance = random.Random(0)
    for place in [*page, *(chance.randrange(len(whole)) for _ in range(200))]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        assert store.find(recipe()) is None
    assert len(warnings) == len(page) + 200


def test_damage_is_made_again_with_one_warning(store, warnings):
    path = make(store)[0].path
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    _, computed = make(store)
    assert computed
    assert path.read_bytes() == whole
    assert warnings == [f"{path}: its bytes do not match its .sha256; not used"]


def write_digest(path):
    path.with_suffix(".sha256").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")


def renamed(store, path):
    other = make(store, seed=7)[0].path
    os.replace(other, path)


def foreign(store, path):
    ROWS.write_parquet(path)


def not_parquet(store, path):
    path.write_text("PAR1 but not for long")


def other_columns(store, path):
    ROWS.rename({"score": "points"}).write_parquet(path, metadata={"hcl": pl.read_parquet_metadata(path)["hcl"]})


def other_types(store, path):
    ROWS.cast({"score": pl.Float32}).write_parquet(path, metadata={"hcl": pl.read_parquet_metadata(path)["hcl"]})


def not_a_recipe(store, path):
    ROWS.write_parquet(path, metadata={"hcl": "{}"})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (renamed, "its recipe has the key"),
        (foreign, "it has no recipe, so hcl did not write it"),
        (not_parquet, "not a whole Parquet file"),
        (other_columns, "its columns are not those of table numbers"),
        (other_types, "column score is float, not double"),
        (not_a_recipe, "its recipe is not one that this version can read"),
    ],
)
def test_a_file_that_is_not_the_artifact_is_not_used_even_with_a_right_digest(store, warnings, damage, reason):
    path = make(store)[0].path
    whole = path.read_bytes()
    damage(store, path)
    write_digest(path)
    assert store.find(recipe(), NUMBERS) is None
    assert reason in warnings[0]
    assert make(store)[1] is True
    assert path.read_bytes() == whole


@pytest.mark.parametrize("text", [None, "", "sha256", "0" * 63, "g" * 64, "\xff"])
def test_without_its_digest_an_artifact_is_not_verified(store, warnings, text):
    path = make(store)[0].path
    path.with_suffix(".sha256").unlink()
    if text is not None:
        path.with_suffix(".sha256").write_text(text, encoding="latin-1")
    assert store.find(recipe()) is None
    assert warnings == [f"{path}: its .sha256 is missing or unreadable; not used"]


def test_a_file_that_vanishes_or_cannot_be_read_is_a_miss(store, warnings):
    path = make(store)[0].path
    path.unlink()
    assert store.find(recipe()) is None
    assert warnings == []
    path.mkdir()
    assert store.find(recipe()) is None
    assert "cannot be read" in warnings[0]


# The disk says no


def refuse_writes(monkeypatch, code):
    """Every attempt to open a file for writing, or to make a folder, fails."""
    real = os.open

    def opening(path, flags, *rest, **named):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(code, os.strerror(code), str(path))
        return real(path, flags, *rest, **named)

    def making(self, *rest, **named):
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(Path, "mkdir", making)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_read_only_store_serves_hits_and_refuses_a_miss_before_computing(store, monkeypatch, plan, code):
    make(store)
    hit = plan.make(store)
    refuse_writes(monkeypatch, code)
    assert make(store)[1] is False
    assert plan.make(store).sha256 == hit.sha256
    with pytest.raises(EnvironmentRefused, match=r"cannot be written .*--store or \$HCL_STORE"):
        make(store, seed=1)
    stage = plan.Stage()
    with pytest.raises(EnvironmentRefused, match="cannot be written"):
        plan.make(store, stage, samples=9)
    assert stage.calls == []


def test_a_store_that_is_a_link_to_nothing_is_a_bad_option(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(BadOption, match=r"--store .*link: is not a folder"):
        Store(tmp_path / "link", warn=print)


def test_a_store_that_is_a_file_is_a_bad_option(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadOption, match=r"--store .*file: is not a folder"):
        Store(tmp_path / "file", warn=print)


def test_a_store_below_a_file_is_refused_before_computing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentRefused, match="name another store"):
        make(Store(tmp_path / "file" / "store", warn=print))


def full_after(monkeypatch, n_bytes):
    """The disk takes so many more bytes."""
    real, left = os.write, [n_bytes]

    def write(descriptor, data):
        if len(data) > left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= len(data)
        return real(descriptor, data)

    monkeypatch.setattr(files.os, "write", write)


@pytest.mark.parametrize("n_bytes", [3, 10, 500, 1500])
def test_a_full_disk_leaves_no_half_artifact(store, monkeypatch, n_bytes):
    with monkeypatch.context() as patch:
        full_after(patch, n_bytes)
        with pytest.raises(EnvironmentRefused, match="disk full .*run the same command again"):
            make(store)
    assert [name for name in all_files(store.root) if not name.endswith(".sha256")] == []
    assert make(store)[1] is True


def test_a_log_that_cannot_be_written_is_a_warning(store, warnings, monkeypatch):
    make(store)
    refuse_writes(monkeypatch, errno.EROFS)
    store.log(stage="hcb")
    assert warnings == [f"{store.root / 'log.jsonl'}: not written (Read-only file system)"]


def test_the_log_is_one_json_object_per_line(store):
    make(store)
    store.log(stage="hcb", device="cpu", elapsed_s=0.25)
    store.log(stage="score", libraries={"torch": "2.13.0"})
    lines = [json.loads(line) for line in (store.root / "log.jsonl").read_text().splitlines()]
    assert [line.pop("at")[-1] for line in lines] == ["Z", "Z"]
    assert lines == [
        {"stage": "hcb", "device": "cpu", "elapsed_s": 0.25},
        {"stage": "score", "libraries": {"torch": "2.13.0"}},
    ]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, MemoryError, RuntimeError])
def test_an_interrupted_write_leaves_nothing(store, monkeypatch, interrupt):
    def syncing(descriptor):
        raise interrupt

    monkeypatch.setattr(files.os, "fsync", syncing)
    with pytest.raises(interrupt):
        make(store)
    assert all_files(store.root) == []


# Without the store, and copies


def test_without_store_nothing_is_kept(tmp_path, plan, monkeypatch):
    monkeypatch.chdir(tmp_path)
    artifact = produce_without_store(recipe(), NUMBERS, lambda: ROWS, Path("out.parquet"))
    cells = produce_cells_without_store(
        plan.recipe(), RESPONSES, plan.blocks, plan.Stage(), Path("cells.parquet"), on_progress=None
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells.parquet", "out.parquet"]
    assert artifact.frame().collect().equals(ROWS)
    assert cells.frame().collect().equals(plan.expected())


def test_without_store_the_bytes_are_the_stores(tmp_path, store, plan):
    apart = produce_cells_without_store(plan.recipe(), RESPONSES, plan.blocks(), plan.Stage(), tmp_path / "x.parquet")
    assert apart.path.read_bytes() == plan.make(store).path.read_bytes()


def test_a_copy_has_the_same_bytes_and_replaces(store, tmp_path):
    artifact, _ = make(store)
    out = tmp_path / "out.parquet"
    out.write_text("old")
    link = tmp_path / "link.parquet"
    link.symlink_to(out)
    assert write_copy(artifact, link) == out
    assert link.is_symlink()
    assert out.read_bytes() == artifact.path.read_bytes()
    assert write_copy(artifact, artifact.path) == artifact.path
    assert store.find(recipe()) is not None


@pytest.mark.parametrize("name", [".", "/dev/null", "no/such/folder.parquet"])
def test_a_copy_onto_a_folder_or_device_is_refused(store, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    artifact, _ = make(store)
    with pytest.raises(BadOption, match="-o "):
        write_copy(artifact, Path(name))
    with pytest.raises(BadOption, match="-o "):
        produce_without_store(recipe(), NUMBERS, lambda: pytest.fail("computed"), Path(name))


def test_an_output_that_cannot_be_written_says_so(store, tmp_path, monkeypatch):
    artifact, _ = make(store)
    refuse_writes(monkeypatch, errno.EROFS)
    for write in (
        lambda: write_copy(artifact, tmp_path / "out.parquet"),
        lambda: produce_without_store(recipe(), NUMBERS, lambda: pytest.fail("computed"), tmp_path / "out.parquet"),
    ):
        with pytest.raises(EnvironmentRefused, match="cannot be written .* name another file with -o$"):
            write()


def test_a_copy_of_changed_bytes_is_refused(store, tmp_path):
    artifact, _ = make(store)
    artifact.path.write_bytes(artifact.path.read_bytes()[:-1])
    with pytest.raises(EnvironmentRefused, match="changed while it was copied"):
        write_copy(artifact, tmp_path / "out.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


# Why a miss


def test_a_miss_names_what_differs_from_the_nearest_entry(store):
    assert store.explain(recipe(weights="script")).reason == f"nothing of hcl hcb in {store.root} yet"
    make(store, weights="script", seed=0)
    near, _ = make(store, weights="title", seed=1)
    answer = store.explain(recipe(weights="script", seed=1))
    assert not answer.hit
    assert answer.nearest == near.key
    assert answer.differences == (("--weights", "title", "script"),)
    assert str(answer) == (
        f'miss {recipe(weights="script", seed=1).key}: nearest is {near.key[:16]}: --weights was "title", now "script"'
    )
    hit = store.explain(recipe(weights="title", seed=1))
    assert hit.hit
    assert hit.reason == str(near.path)


def test_a_miss_names_new_options_other_inputs_and_damage(store):
    near, _ = make(store)
    assert store.explain(recipe(seed=0)).differences == (("--seed", None, 0),)
    near.path.write_bytes(b"")
    answer = store.explain(recipe())
    assert (answer.hit, answer.reason) == (False, f"{near.path}: its bytes do not match its .sha256")


def test_another_table_of_the_stage_is_no_near_entry(store):
    make(store)
    other = Recipe("questions", "hcb", 1)
    assert other.table == QUESTIONS.name
    assert "nothing of hcl hcb" in store.explain(other).reason
