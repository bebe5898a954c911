"""`hub:` names: their form, the commit, and rows through the real `datasets` library, offline."""

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import polars as pl
import pytest

from hcl_cli.data import hub
from hcl_cli.data.hub import HubSet, open_hub
from hcl_cli.data.questions import open_questions
from hcl_cli.errors import BadInput, BadOption, EnvironmentRefused
from hcl_cli.hub import Resolved

COMMIT, OTHER = "c" * 40, "d" * 40
ROWS = {
    "id": [1, 2],
    "question": ["Who?", "Where?"],
    "answer": [{"value": "Ann", "aliases": ["Anna"]}, {"value": "Here", "aliases": ["here"]}],
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which `datasets` finds OwnER/MyTrivia, config rc, at COMMIT, as after a download; no network."""
    import datasets

    pl.DataFrame(ROWS).write_parquet(tmp_path / "rows.parquet")
    builder = datasets.load_dataset_builder(
        "parquet", "rc", data_files={"validation": str(tmp_path / "rows.parquet")}, cache_dir=str(tmp_path / "made")
    )
    builder.download_and_prepare()
    root = tmp_path / "datasets"
    copy = root / "OwnER___my_trivia" / "rc" / "0.0.0" / COMMIT
    shutil.copytree(builder.cache_dir, copy)
    for file in copy.glob("parquet-*"):
        file.rename(copy / file.name.replace("parquet-", "my_trivia-", 1))
    info = copy / "dataset_info.json"
    info.write_text(
        info.read_text()
        .replace('"dataset_name":"parquet"', '"dataset_name":"my_trivia"')
        .replace(builder.config.name, "rc")
    )
    monkeypatch.setenv("HF_DATASETS_CACHE", str(root))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", root)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return root


def test_rows_come_from_the_cached_commit_which_is_named(cache: Path) -> None:
    told: list[str] = []
    opened = open_questions(
        "hub:OwnER/MyTrivia:rc", columns={"question_id": "id", "answers": "answer"}, warn=told.append
    )
    assert opened.name == "OwnER/MyTrivia"
    assert opened.identity == f"hub:OwnER/MyTrivia@{COMMIT}:rc:validation"
    assert opened.load().to_dicts() == [
        {"question_id": "1", "question": "Who?", "answers": ["Ann", "Anna"]},
        {"question_id": "2", "question": "Where?", "answers": ["Here", "here"]},
    ]
    assert told == [f"OwnER/MyTrivia: the Hub is not asked (HF_HUB_OFFLINE); using the cached commit {COMMIT}"]


def test_a_commit_that_is_not_cached_is_never_replaced_by_another(cache: Path) -> None:
    """`datasets` falls back on its newest copy whatever revision was asked for."""
    with pytest.raises(EnvironmentRefused, match=f"commit {OTHER} is not in the cache .* cached one with @{COMMIT}"):
        HubSet("OwnER/MyTrivia", "rc", "validation", OTHER).records()


def test_a_folder_of_the_same_name_is_not_read_in_its_place(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets.load_dataset("a/b")` prefers a local folder a/b, whose rows would go under the Hub's commit."""
    local = tmp_path / "here" / "OwnER" / "MyTrivia"
    local.mkdir(parents=True)
    (local / "validation.jsonl").write_text('{"question": "Fake?", "answers": ["x"]}')
    monkeypatch.chdir(tmp_path / "here")
    opened = open_questions("hub:OwnER/MyTrivia:rc", columns={"question_id": "id", "answers": "answer"})
    assert opened.load()["question"].to_list() == ["Who?", "Where?"]


def test_the_number_of_rows_is_remembered_with_the_commit(cache: Path, tmp_path: Path) -> None:
    memo = tmp_path / "memo.json"
    columns = {"question_id": "id", "answers": "answer"}
    assert open_questions("hub:OwnER/MyTrivia:rc", columns=columns, memo=memo).n_questions == 2
    for file in cache.rglob("*.arrow"):
        file.unlink()
    again = open_questions("hub:OwnER/MyTrivia:rc", columns=columns, memo=memo)
    assert again.n_questions == 2  # a cache hit needs the number and must not import datasets for it


def test_no_such_split_or_config_names_what_there_is(cache: Path) -> None:
    with pytest.raises(BadOption, match=r"no split test .*validation") as caught:
        HubSet("OwnER/MyTrivia", "rc", "test", COMMIT).records()
    assert str(caught.value).isprintable()
    with pytest.raises(BadOption, match="configuration wrong") as caught:
        HubSet("OwnER/MyTrivia", "wrong", "validation", COMMIT).records()
    assert str(caught.value).isprintable()
    with pytest.raises(BadInput, match="not in the Hub's cache"):
        open_questions("hub:OwnER/MyTrivia:wrong")


def test_errors_of_rows_name_the_set_and_the_row(cache: Path) -> None:
    with pytest.raises(BadInput, match=r"^hub:OwnER/MyTrivia \(validation\): no column answers \(it has .*answer\)"):
        open_questions("hub:OwnER/MyTrivia:rc").load()


def test_offline_and_not_cached_is_one_line(cache: Path) -> None:
    with pytest.raises(BadInput, match="^nobody/nothing: .*unset HF_HUB_OFFLINE, or give a local file$"):
        open_questions("hub:nobody/nothing")


def test_the_resolved_commit_is_what_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    class Builder:
        hash = COMMIT

        def download_and_prepare(self) -> None:
            asked.append("prepared")

        def as_dataset(self, split: str) -> Any:
            asked.append(split)
            return datasets.Dataset.from_dict({"question": ["Who?"], "answers": [["Ann"]]})

    def builder(name: str, config: str | None, *, revision: str) -> Builder:
        asked.append((name, config, revision))
        return Builder()

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    monkeypatch.setattr(
        hub, "resolve", lambda repository, **_: Resolved(COMMIT) if repository.revision == "v2" else None
    )
    opened = open_questions("hub:owner/name::test@v2")
    assert opened.identity == f"hub:owner/name@{COMMIT}::test"
    assert asked == []  # naming a set reads none of it
    assert opened.load().height == 1
    assert asked == [("hf://datasets/owner/name", None, COMMIT), "prepared", "test"]


@pytest.mark.parametrize(
    "text", ["hub:", "hub:a/b/c", "hub:a b", "hub:../x", "hub:a:b:c:d", "hub:a@", "hub:a\nb", "hub:a:b/c", "hub:@x"]
)
def test_names_of_another_form(text: str) -> None:
    with pytest.raises(BadOption, match=r"expected hub:OWNER/NAME\[:config\[:split\]\]\[@revision\]") as caught:
        open_hub(text, memo=None, warn=None)
    assert str(caught.value).isprintable()


def test_without_the_extra_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadOption, match=r"needs the package datasets; install it with pip install 'hcl-cli\[hub\]'"):
        open_hub("hub:owner/name", memo=None, warn=None)
