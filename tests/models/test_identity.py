"""Which model is meant: content, shape, and the one line that says why a folder or name is none."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hcl_cli.errors import BadInput, EnvironmentRefused, HclError
from hcl_cli.models import catalogue, identity
from hcl_cli.models.catalogue import MODELS, count_parameters
from hcl_cli.models.identity import ModelRef, fetch_weights, resolve_model

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 4, "dtype": "bfloat16"}
COMMIT = "e" * 40


def folder_of(path: Path, config: Any = CONFIG, **files: str | bytes | None) -> Path:
    """A model folder; `files` replaces or (None) leaves out; `__` in a name stands for a dot."""
    path.mkdir(parents=True)
    contents: dict[str, str | bytes | None] = {
        "config.json": config if isinstance(config, str | bytes) else json.dumps(config),
        "model.safetensors": b"weights",
        "tokenizer.json": "{}",
    }
    contents.update({name.replace("__", "."): content for name, content in files.items()})
    for name, content in contents.items():
        if content is not None:
            (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(name: str | Path) -> str:
    with pytest.raises(HclError) as caught:
        resolve_model(str(name))
    message = str(caught.value)
    assert message.isprintable()
    return message


def age(folder: Path) -> None:
    """Make the files older than the two seconds in which a digest is not yet remembered."""
    for file in folder.iterdir():
        os.utime(file, (1_700_000_000, 1_700_000_000))


# ----------------------------------------------------------------------------------------------- folders


def test_a_folder_is_known_by_its_content_and_not_by_its_place(tmp_path: Path) -> None:
    first = resolve_model(str(folder_of(tmp_path / "my model ü")))
    second = resolve_model(str(folder_of(tmp_path / "elsewhere" / "copy")))
    assert (first.name, second.name) == ("my model ü", "copy")
    assert replace(first, name="", folder=Path()) == replace(second, name="", folder=Path())
    assert (first.n_layers, first.config_dtype, first.model_type, first.is_local) == (4, "bfloat16", "llama", True)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "my model ü")
    assert resolve_model(f"{link}/").name == "link"
    assert resolve_model(f"{link}/").identity == first.identity


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "generation_config.json"])
def test_each_model_file_is_in_the_identity_and_not_in_the_tokenizers(tmp_path: Path, file: str) -> None:
    plain = resolve_model(str(folder_of(tmp_path / "a")))
    content = json.dumps(CONFIG | {"rope_theta": 1}) if file == "config.json" else "{}"
    other = resolve_model(str(folder_of(tmp_path / "b", **{file.replace(".", "__"): content})))
    assert other.identity != plain.identity
    assert other.tokenizer_identity == plain.tokenizer_identity


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "merges.txt"])
def test_each_tokenizer_file_is_in_the_tokenizers_identity_alone(tmp_path: Path, file: str) -> None:
    plain = resolve_model(str(folder_of(tmp_path / "a")))
    other = resolve_model(str(folder_of(tmp_path / "b", **{file.replace(".", "__"): "other"})))
    assert other.tokenizer_identity != plain.tokenizer_identity
    assert other.identity == plain.identity


def test_code_counts_where_the_config_names_it(tmp_path: Path) -> None:
    own = CONFIG | {"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}
    refs = [
        resolve_model(str(folder_of(tmp_path / f"{i}", config, modeling_x__py=code)))
        for i, (config, code) in enumerate([(own, "a"), (own, "b"), (CONFIG, "a"), (CONFIG, "b")])
    ]
    assert refs[0].identity != refs[1].identity
    assert refs[2].identity == refs[3].identity


def test_what_a_load_does_not_read_is_not_in_the_identity(tmp_path: Path) -> None:
    plain = resolve_model(str(folder_of(tmp_path / "a")))
    more = folder_of(tmp_path / "b", README__md="notes", pytorch_model__bin=b"pickle", training__log="")
    assert resolve_model(str(more)).identity == plain.identity


def test_swapped_contents_of_two_shards_are_another_model(tmp_path: Path) -> None:
    index = json.dumps(
        {"weight_map": {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}}
    )

    def sharded(name: str, one: bytes, two: bytes) -> str:
        folder = folder_of(tmp_path / name, model__safetensors=None, **{"model__safetensors__index__json": index})
        (folder / "model-00001-of-00002.safetensors").write_bytes(one)
        (folder / "model-00002-of-00002.safetensors").write_bytes(two)
        return resolve_model(str(folder)).identity

    assert sharded("a", b"1", b"2") != sharded("b", b"2", b"1")
    (tmp_path / "a" / "model-00002-of-00002.safetensors").unlink()
    assert "1 of the weight files are missing, first model-00002-of-00002.safetensors" in refusal(tmp_path / "a")


def test_digests_are_paid_once_and_a_change_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, memo = folder_of(tmp_path / "m"), tmp_path / "store" / "memo.json"
    age(folder)
    read: list[str] = []
    digest_of = identity.hashlib.file_digest
    monkeypatch.setattr(
        identity.hashlib, "file_digest", lambda f, kind: read.append(Path(f.name).name) or digest_of(f, kind)
    )
    first = resolve_model(str(folder), memo=memo)
    assert sorted(read) == ["config.json", "model.safetensors", "tokenizer.json"]
    read.clear()
    assert resolve_model(str(folder), memo=memo) == first
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert resolve_model(str(link), memo=memo).identity == first.identity
    assert read == []
    # Same size, same time, another inode: a file put in place of the old one.
    (tmp_path / "new").write_bytes(b"WEIGHTS")
    os.utime(tmp_path / "new", (1_700_000_000, 1_700_000_000))
    os.replace(tmp_path / "new", folder / "model.safetensors")
    assert resolve_model(str(folder), memo=memo).identity != first.identity
    assert read == ["model.safetensors"]


def test_a_file_written_this_moment_is_not_yet_remembered(tmp_path: Path) -> None:
    """Rewritten in place within one tick of the clock, it would keep size, time and inode."""
    folder, memo = folder_of(tmp_path / "m"), tmp_path / "memo.json"
    first = resolve_model(str(folder), memo=memo)
    status = (folder / "model.safetensors").stat()
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")
    os.utime(folder / "model.safetensors", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert resolve_model(str(folder), memo=memo).identity != first.identity


@pytest.mark.parametrize("entry", [None, 3, "x", [], [1], [7, 1_700_000_000_000_000_000, None, "sha"], {"a": 1}])
def test_a_damaged_memo_entry_is_not_believed(tmp_path: Path, entry: Any) -> None:
    folder, memo = folder_of(tmp_path / "m"), tmp_path / "memo.json"
    age(folder)
    honest = resolve_model(str(folder)).identity
    memo.write_text(json.dumps({"files": {os.path.realpath(folder / "model.safetensors"): entry}}))
    assert resolve_model(str(folder), memo=memo).identity == honest


# ------------------------------------------------------------------------------------------------ config


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 12}, (12, "float32")),
        ({"model_type": "x", "num_layers": 3, "torch_dtype": "torch.float16"}, (3, "float16")),
        (
            {
                "model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"],
                "text_config": {"num_hidden_layers": 26, "dtype": "bfloat16"},
                "vision_config": {"num_hidden_layers": 9},
            },
            (26, "bfloat16"),
        ),
        ({"model_type": "x", "n_layers": 2, "dtype": None, "text_config": None}, (2, "float32")),
    ],
)  # fmt: skip
def test_layers_and_dtype_are_found_where_families_put_them(
    tmp_path: Path, config: dict[str, Any], expected: tuple[int, str]
) -> None:
    ref = resolve_model(str(folder_of(tmp_path / "m", config)))
    assert (ref.n_layers, ref.config_dtype) == expected


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (CONFIG | {"architectures": ["BertForSequenceClassification"]},
         "BertForSequenceClassification is not a causal language model"),
        (CONFIG | {"architectures": ["LlamaModel"]}, "LlamaModel is not a causal language model"),
        (CONFIG | {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
         "T5ForConditionalGeneration is an encoder-decoder"),
        ({"num_hidden_layers": 4}, "config.json names no model_type"),
        ({"model_type": "llama"}, "does not say how many layers there are (none of num_hidden_layers, n_layer"),
        ({"model_type": "llama", "n_layer": 0}, "(num_hidden_layers is 0)"),
        ({"model_type": "llama", "n_layer": True}, "(num_hidden_layers is True)"),
        (CONFIG | {"dtype": {"a": 1}}, "a dtype that is not a name"),
        ("{", "config.json is not valid JSON"),
        (b"\xff\xfe", "config.json is not valid JSON"),
        ("[1]", "config.json holds no JSON object"),
        ("[" * 100_000, "config.json is not valid JSON"),
    ],
)  # fmt: skip
def test_a_config_that_is_no_causal_model(tmp_path: Path, config: Any, said: str) -> None:
    message = refusal(folder_of(tmp_path / "named", config))
    assert message.startswith("named: ") and said in message


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from([*CONFIG, "text_config", "is_encoder_decoder", "torch_dtype", "n_layer"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*CONFIG]), inner, max_size=2),
            max_leaves=4,
        ),
    )
)
def test_any_config_gives_a_shape_or_one_line(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = tmp_path / "m"
    if not folder.exists():
        folder_of(folder)
    (folder / "config.json").write_text(json.dumps(config))
    try:
        ref = resolve_model(str(folder))
    except BadInput as error:
        assert str(error).isprintable() and str(error).startswith("m: ")
    else:
        assert ref.n_layers >= 1 and ref.model_type and isinstance(ref.config_dtype, str)


# ----------------------------------------------------------------------------------------------- refused


def test_folders_that_cannot_be_loaded(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refusal(empty) == "empty: the folder has no config.json, expected one as save_pretrained writes it"
    pickle = folder_of(tmp_path / "pickle", model__safetensors=None, pytorch_model__bin=b"\x80")
    assert "weights only as pytorch_model.bin, a pickle, which is never read" in refusal(pickle)
    bare = folder_of(tmp_path / "bare", model__safetensors=None)
    assert "no weights, expected model.safetensors" in refusal(bare)
    mute = folder_of(tmp_path / "mute", tokenizer__json=None, tokenizer_config__json="{}")
    assert "no tokenizer, expected tokenizer.json" in refusal(mute)
    adapter = folder_of(tmp_path / "adapter", adapter_config__json="{}")
    assert "the folder holds an adapter" in refusal(adapter)
    loose = folder_of(tmp_path / "loose", **{"model__safetensors": None, "model-00001-of-00002__safetensors": b"1"})
    assert "weight shards without model.safetensors.index.json" in refusal(loose)
    for listed in ({}, {"weight_map": {}}, {"weight_map": {"x": "../a.safetensors"}}, {"weight_map": {"x": 1}}):
        (loose / "model.safetensors.index.json").write_text(json.dumps(listed))
        assert "has no weight_map that names files of the folder" in refusal(loose)


def test_a_path_is_looked_for_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing folder otherwise gives the library's `Repo id must be in the form ...`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: pytest.fail("the Hub was asked"))
    folder_of(tmp_path / "gpt2")
    assert resolve_model("gpt2").is_local
    (tmp_path / "file").write_text("")
    assert "a file, expected the folder" in refusal("file")
    for name in (
        "./gone",
        "/no/such/folder",
        "a/b/c",
        "",
        "..x/y",
        "a b",
        "gpt2@",
        "a\nb",
        "nul\0",
        "x" * 5000 + "/..",
    ):
        assert "no such folder, nor a Hub name" in refusal(name)


def test_built_in_names_win_over_folders_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "lab", CONFIG | {"num_hidden_layers": 77})
    bundled = folder_of(tmp_path / "bundled" / "models" / "lab")
    monkeypatch.setattr(identity, "data_file", lambda *parts: (tmp_path / "bundled").joinpath(*parts))
    assert (resolve_model("lab").n_layers, resolve_model("lab").folder) == (4, bundled)
    assert (resolve_model("./lab").n_layers, resolve_model("./lab").name) == (77, "lab")
    with pytest.raises(EnvironmentRefused, match="the bundled model lab-base is missing"):
        resolve_model("lab-base")


# --------------------------------------------------------------------------------------------------- hub


class Cache:
    """A Hub cache on disk and an API that answers from `files`; downloads are counted."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files = ["config.json", "model.safetensors", "tokenizer.json", "pytorch_model.bin", "modeling_x.py"]
        self.folder = root / "models--owner--model" / "snapshots" / COMMIT
        self.downloads: list[Any] = []
        self.error: Exception | None = None
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(root))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot)

    def model_info(self, name: str, **_: Any) -> Any:
        return SimpleNamespace(sha=COMMIT, siblings=[SimpleNamespace(rfilename=file) for file in self.files])

    def download(self, name: str, file: str, *, revision: str, etag_timeout: float) -> str:
        if self.error is not None:
            raise self.error
        self.downloads.append((name, file, revision))
        if not self.folder.exists():
            folder_of(self.folder, model__safetensors=None, tokenizer__json=None)
        return str(self.folder / file)

    def snapshot(self, name: str, *, revision: str, allow_patterns: list[str], etag_timeout: float) -> str:
        from huggingface_hub.utils import filter_repo_objects

        if self.error is not None:
            raise self.error
        wanted = list(filter_repo_objects(self.files, allow_patterns=allow_patterns))
        self.downloads.append((name, wanted, revision))
        for file in wanted:
            if not (self.folder / file).exists():
                (self.folder / file).write_text("{}")
        return str(self.folder)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    return Cache(tmp_path / "hub", monkeypatch)


def test_a_hub_model_is_its_commit_and_its_weights_come_later(cache: Cache) -> None:
    ref = resolve_model("owner/model")
    assert ref == ModelRef(
        "owner/model", cache.folder, f"hub:{COMMIT}", f"hub:{COMMIT}", 4, "bfloat16", "llama", "sdpa", False
    )
    assert cache.downloads == [("owner/model", "config.json", COMMIT)]
    assert fetch_weights(ref) == ref
    # Never the pickle; code only for those who allow it.
    assert cache.downloads[1:] == [("owner/model", ["config.json", "model.safetensors", "tokenizer.json"], COMMIT)]
    fetch_weights(ref, code=True)
    assert cache.downloads[-1][1] == ["config.json", "model.safetensors", "tokenizer.json", "modeling_x.py"]
    assert resolve_model(f"owner/model@{COMMIT}").identity == ref.identity
    local = resolve_model(str(cache.folder))
    assert fetch_weights(local) is local


def test_a_repository_without_usable_weights_is_refused_before_any_download(cache: Cache) -> None:
    for files, said in [
        (["config.json", "pytorch_model.bin"], "weights only as pytorch_model.bin, a pickle"),
        (["model.safetensors"], "the repository has no config.json"),
        (["config.json", "README.md"], "no weights"),
    ]:
        cache.files = files
        with pytest.raises(BadInput, match=f"^owner/model: .*{said}"):
            resolve_model("owner/model")
    assert cache.downloads == []


def test_a_failed_download_is_one_line(cache: Cache) -> None:
    ref = resolve_model("owner/model")
    cache.error = OSError(28, "No space left on device")
    with pytest.raises(EnvironmentRefused, match="No space left on device.*what has arrived is kept$"):
        fetch_weights(ref)
    cache.error = ZeroDivisionError("ours")
    with pytest.raises(ZeroDivisionError):
        fetch_weights(ref)


def test_offline_uses_the_cached_commit_and_says_so(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = resolve_model("owner/model")
    (cache.folder.parents[1] / "refs").mkdir()
    (cache.folder.parents[1] / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    told: list[str] = []
    assert resolve_model("owner/model", warn=told.append) == ref
    assert told == [f"owner/model: the Hub is not asked (HF_HUB_OFFLINE); using the cached commit {COMMIT}"]
    cache.files = ["config.json"]  # only the config has ever arrived
    with pytest.raises(EnvironmentRefused, match="not whole in the cache and HF_HUB_OFFLINE forbids"):
        fetch_weights(ref)
    with pytest.raises(BadInput, match="^owner/other: not in the Hub's cache"):
        resolve_model("owner/other")


# ------------------------------------------------------------------------------------------------ others


def test_naming_a_model_or_a_set_imports_nothing_heavy(tmp_path: Path) -> None:
    folder_of(tmp_path / "m")
    code = (
        "import sys, hcl_cli.models.catalogue, hcl_cli.data.prompts\n"
        "from hcl_cli.models.identity import resolve_model\n"
        "from hcl_cli.data.questions import open_questions\n"
        f"resolve_model({str(tmp_path / 'm')!r}); open_questions('triviaqa')\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'polars', 'pyarrow', 'numpy', 'huggingface_hub', "
        "'jinja2', 'httpx2') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_the_catalogue_names_each_model_once_and_the_published_checkpoints() -> None:
    names = [model.name for model in MODELS]
    assert len(set(names)) == len(names) and names[:2] == ["lab", "lab-base"]
    # The README of facebookresearch/LayerSkip: llama2-7B/13B/70B, codellama-7B/34B, llama3-8B, llama3.2-1B
    assert {n.removeprefix("facebook/layerskip-") for n in names if "layerskip" in n} == {
        "llama2-7B", "llama2-13B", "llama2-70B", "codellama-7B", "codellama-34B", "llama3-8B", "llama3.2-1B",
    }  # fmt: skip


def test_numbers_of_the_bundled_models_come_from_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    folder = folder_of(tmp_path / "lab")
    tensors = {"a": np.zeros((300, 5000)), "b": np.zeros(7, dtype=np.float16), "c": np.zeros(())}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert count_parameters(folder / "model.safetensors") == 300 * 5000 + 7 + 1
    monkeypatch.setattr(catalogue, "data_file", lambda *parts: tmp_path / parts[-1])
    lab, lab_base, *others = catalogue.models()
    assert (lab.name, lab.n_layers, lab.parameters) == ("lab", 4, "1.5M")
    assert lab_base.n_layers is None  # not there yet: unknown, not an error
    assert tuple(others) == MODELS[2:]


@pytest.mark.parametrize(("cap", "expected"), [(None, "sdpa"), (50.0, "eager")])
def test_soft_capped_attention_is_eager(tmp_path: Path, cap: float | None, expected: str) -> None:
    """sdpa has no soft-capping: the library refuses it for such models, so `--attention auto` must not name it."""
    from hcl_cli.models.identity import _shape

    config = {"model_type": "gemma2", "num_hidden_layers": 2, "attn_logit_softcapping": cap}
    assert _shape(config, "m") == (2, "float32", "gemma2", expected)
