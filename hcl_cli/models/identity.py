"""Which model is meant: its folder, its content's identity and its shape, without loading it.

Neither torch nor transformers is imported here: a cache hit needs to know the model, not to have it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hcl_cli.errors import BadInput, EnvironmentRefused, shown
from hcl_cli.hub import COMMIT, Repository, is_hub_name, is_offline, no_answer, refused, resolve
from hcl_cli.memo import recall, remember
from hcl_cli.resources import data_file

BUILT_IN = ("lab", "lab-base")

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "chat_template.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "tekken.json", "tokenizer.model",
    "vocab.json", "vocab.txt",
)  # fmt: skip
# A vocabulary is in one of these; the others only say how it is used.
_VOCABULARIES = (
    "tokenizer.json", "sentencepiece.bpe.model", "spiece.model", "tekken.json", "tokenizer.model", "vocab.json",
    "vocab.txt",
)  # fmt: skip
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_HUB_FILES = ("model*.safetensors", _INDEX, "config.json", "generation_config.json", *TOKENIZER_FILES)

_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


@dataclass(frozen=True)
class ModelRef:
    """A model that can be named without being loaded.

    Attributes:
        name: the Hub name without revision, or the last part of the folder; never a path.
        folder: where config.json is; the weights are there for a local model, else after `fetch_weights`.
        identity: "hub:<commit>", or "sha256:<digest>" over weights, config and generation config.
        tokenizer_identity: the same over the tokenizer's files.
        n_layers: transformer blocks, L.
        config_dtype: the dtype named by config.json (also inside `text_config`), "float32" if it names none.
        model_type: as in config.json.
        attention: what `--attention auto` means for it: "eager" if its attention scores are soft-capped, which sdpa
            cannot do, else "sdpa".
        is_local: a folder of this machine and not the Hub's cache.
    """

    name: str
    folder: Path
    identity: str
    tokenizer_identity: str
    n_layers: int
    config_dtype: str
    model_type: str
    attention: str
    is_local: bool


def resolve_model(name: str, *, memo: Path | None = None, warn: Callable[[str], None] | None = None) -> ModelRef:
    """The model that `--model` names. Of a Hub model only config.json is downloaded.

    Args:
        name: `lab`, `lab-base`, a folder, or a Hub name with an optional @revision. A folder is looked for before
            the Hub is; one that is called like a built-in model is written `./lab`.
        memo: a JSON file that remembers digests of files and commits of names; None remembers nothing.
        warn: is told which commit is used when the Hub gave no answer.
    Raises:
        BadInput: no such model, no config.json, not a causal language model, weights only as pickle.
        EnvironmentRefused: access is refused, or nothing is cached and the Hub does not answer.
    """
    if name in BUILT_IN:
        folder = data_file("models", name)
        if not (folder / "config.json").is_file():
            raise EnvironmentRefused(f"the bundled model {name} is missing; install again from a whole copy")
        return _local(folder, name, memo)
    path = Path(name).expanduser() if name.startswith("~") else Path(name)
    if name and os.path.isdir(path):
        last = (path.name if path.name not in ("", "..") else path.resolve().name) or "model"
        return _local(path, last.encode("utf-8", "replace").decode(), memo)
    if name and os.path.exists(path):
        raise BadInput(f"--model {shown(name)}: a file, expected the folder that holds config.json and the weights")
    base, at, revision = name.partition("@")
    if not is_hub_name(base) or (at and not revision):
        raise BadInput(
            f"--model {shown(name)}: no such folder, nor a Hub name (OWNER/NAME[@revision]); `hcl models` names some"
        )
    return _from_hub(Repository("model", base, revision or "main"), memo, warn)


def fetch_weights(ref: ModelRef, *, code: bool = False) -> ModelRef:
    """The same model with weights and tokenizer on disk: `folder` can be loaded with no network. Local: unchanged.

    Args:
        ref: what `resolve_model` gave.
        code: fetch the repository's Python files too. Only for a user who allowed this model's own code by name.
    Raises:
        BadInput: the repository has no safetensors weights or no tokenizer.
        EnvironmentRefused: network, disk or licence.
    """
    if ref.is_local:
        return ref
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    repository = Repository("model", ref.name, ref.identity.removeprefix("hub:"))
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        found = snapshot_download(
            ref.name,
            revision=repository.revision,
            allow_patterns=[*_HUB_FILES, *(["*.py"] if code else [])],
            etag_timeout=10,
        )
    except Exception as error:
        raise _fetch_refusal(repository, error) from None
    folder = Path(found)
    try:
        _weights(folder, ref.name)
        _tokenizer(folder, ref.name)
    except BadInput:
        if is_offline():  # an unfinished download looks the same
            raise EnvironmentRefused(
                f"{ref.name}: not whole in the cache and HF_HUB_OFFLINE forbids fetching the rest; unset it once"
            ) from None
        raise
    return replace(ref, folder=folder)


# ----------------------------------------------------------------------------------------------- folders


def _local(folder: Path, name: str, memo: Path | None) -> ModelRef:
    label = shown(name)
    config = read_config(folder / "config.json", label)
    shape = _shape(config, label)
    weights, tokenizer = _weights(folder, label), _tokenizer(folder, label)
    model_files = [*weights, *(folder / extra for extra in ("config.json", "generation_config.json"))]
    if "auto_map" in config:  # the model's own code, which runs if the user allows it
        model_files += sorted(folder.glob("*.py"))
    digests = _digests([file for file in {*model_files, *tokenizer} if file.is_file()], memo, label)
    return ModelRef(name, folder, _combined(model_files, digests), _combined(tokenizer, digests), *shape, is_local=True)


def _weights(folder: Path, label: str) -> list[Path]:
    """The safetensors files that a load reads: model.safetensors, else the shards of the index, and the index."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    if "adapter_config.json" in names:
        # transformers would load the adapter's base model, from somewhere else, in place of this folder's.
        raise BadInput(
            f"{label}: the folder holds an adapter; merge it and save the whole model in a folder of its own"
        )
    if "model.safetensors" in names:
        return [folder / "model.safetensors"]
    if _INDEX in names:
        listed = _read_json(folder / _INDEX, label).get("weight_map")
        shards = set(listed.values()) if isinstance(listed, dict) and all(map(_is_name, listed.values())) else set()
        if not shards:
            raise BadInput(f"{label}: {_INDEX} has no weight_map that names files of the folder")
        if missing := sorted(shards - set(names)):
            raise BadInput(f"{label}: {len(missing)} of the weight files are missing, first {shown(missing[0])}")
        return [*(folder / name for name in sorted(shards)), folder / _INDEX]
    raise _no_weights(names, label)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.endswith(".safetensors") and "/" not in value and "\\" not in value


def _no_weights(names: Iterable[str], label: str) -> BadInput:
    files = list(names)
    if "adapter_config.json" in files:
        return BadInput(f"{label}: an adapter without its base model; merge it and save the whole model")
    if any(_SHARD.fullmatch(name) for name in files):
        return BadInput(f"{label}: weight shards without {_INDEX}; save the model again (save_pretrained writes both)")
    if pickles := [name for name in files if name.endswith(_PICKLES)]:
        return BadInput(
            f"{label}: weights only as {shown(pickles[0])}, a pickle, which is never read; "
            "save the model as safetensors (save_pretrained does)"
        )
    return BadInput(f"{label}: no weights, expected model.safetensors or its shards beside config.json")


def _tokenizer(folder: Path, label: str) -> list[Path]:
    files = [folder / name for name in sorted(TOKENIZER_FILES) if (folder / name).is_file()]
    if not any(file.name in _VOCABULARIES for file in files):
        raise BadInput(f"{label}: no tokenizer, expected tokenizer.json (or another vocabulary) beside config.json")
    return files


def _combined(files: Iterable[Path], digests: dict[Path, str]) -> str:
    """One digest over names and contents; the order of the folder does not matter, the names do."""
    lines = sorted(f"{file.name} {digests[file]}\n" for file in files if file in digests)
    return f"sha256:{hashlib.sha256(''.join(lines).encode('utf-8', 'surrogateescape')).hexdigest()}"


def _digests(files: list[Path], memo: Path | None, label: str) -> dict[Path, str]:
    """SHA-256 of each file, remembered by path, size, time of change and inode."""
    known, new, found = recall(memo, "files"), {}, {}
    for file in files:
        try:
            key = os.path.realpath(file)
            before = _stamp(key)
            entry = known.get(key)
            if isinstance(entry, list) and entry[:-1] == before and isinstance(entry[-1], str):
                found[file] = entry[-1]
                continue
            with open(key, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if _stamp(key) != before:
                raise BadInput(f"{label}: {shown(file.name)} was changed while it was read; run the command again")
        except OSError as error:
            raise EnvironmentRefused(f"{label}: {shown(file.name)} cannot be read ({error.strerror})") from None
        found[file] = digest
        # A file changed this very moment could change again within the clock's step and look the same.
        if time.time_ns() - before[1] > 2_000_000_000:
            new[key] = [*before, digest]
    remember(memo, "files", {key: value for key, value in new.items() if _is_text(key)})
    return found


def remembered_sha256(file: Path, memo: Path | None) -> str:
    """SHA-256 of one file in hex, remembered like a model's files."""
    return _digests([file], memo, shown(file.name))[file]


def _stamp(path: str) -> list[int]:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _is_text(path: str) -> bool:
    return not re.search("[\ud800-\udfff]", path)


# ------------------------------------------------------------------------------------------------ config


def read_config(file: Path, label: str) -> dict[str, Any]:
    """config.json as it is. Raises BadInput if it is missing or broken."""
    if not file.is_file():
        raise BadInput(f"{label}: the folder has no config.json, expected one as save_pretrained writes it")
    return _read_json(file, label)


def _read_json(file: Path, label: str) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except OSError as error:
        raise EnvironmentRefused(f"{label}: {file.name} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{label}: {file.name} is not valid JSON ({shown(error, 80)})") from None
    if not isinstance(value, dict):
        raise BadInput(f"{label}: {file.name} holds no JSON object")
    return value


def _shape(config: dict[str, Any], label: str) -> tuple[int, str, str, str]:
    """(n_layers, dtype, model_type, attention). Raises BadInput for what cannot be a causal language model."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise BadInput(f"{label}: config.json names no model_type")
    _require_causal(config, model_type, label)
    inner = config.get("text_config")
    levels = [config, inner] if isinstance(inner, dict) else [config]
    found = [level[key] for level in levels for key in _LAYER_KEYS if level.get(key) is not None]
    if not found or not isinstance(found[0], int) or isinstance(found[0], bool) or found[0] < 1:
        met = f"{_LAYER_KEYS[0]} is {shown(found[0], 40)}" if found else f"none of {', '.join(_LAYER_KEYS)}"
        raise BadInput(f"{label}: config.json does not say how many layers there are ({met})")
    dtypes = [level[key] for level in levels for key in ("dtype", "torch_dtype") if level.get(key) is not None]
    dtype = dtypes[0] if dtypes else "float32"
    if not isinstance(dtype, str):
        raise BadInput(f"{label}: config.json has a dtype that is not a name ({shown(dtype, 40)})")
    capped = any(level.get("attn_logit_softcapping") for level in levels)
    return found[0], dtype.removeprefix("torch."), model_type, "eager" if capped else "sdpa"


def _require_causal(config: dict[str, Any], model_type: str, label: str) -> None:
    """Refuse what config.json already tells; the rest is checked when the model is loaded."""
    named = config.get("architectures")
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    met = shown(names[0] if names else model_type, 60)
    if config.get("is_encoder_decoder") is True:
        raise BadInput(f"{label}: {met} is an encoder-decoder, expected a causal language model")
    # Some text-and-image families keep their language model under ForConditionalGeneration.
    if names and not any("ForCausalLM" in n or "LMHead" in n or n.endswith("ForConditionalGeneration") for n in names):
        raise BadInput(f"{label}: {met} is not a causal language model; `hcl models` names some")


# --------------------------------------------------------------------------------------------------- hub


def _from_hub(repository: Repository, memo: Path | None, warn: Callable[[str], None] | None) -> ModelRef:
    from huggingface_hub import hf_hub_download

    resolved = resolve(repository, cached=lambda commit: _cached_commit(repository, commit), memo=memo, warn=warn)
    files = resolved.files
    if files is not None:
        if "config.json" not in files:
            raise BadInput(f"{repository.label}: the repository has no config.json, so it is not a transformers model")
        if "model.safetensors" not in files and _INDEX not in files:
            raise _no_weights(files, repository.label)
    try:
        config_file = hf_hub_download(repository.name, "config.json", revision=resolved.commit, etag_timeout=3)
    except Exception as error:
        raise _fetch_refusal(repository, error) from None
    shape = _shape(_read_json(Path(config_file), repository.label), repository.label)
    identity = f"hub:{resolved.commit}"
    return ModelRef(repository.name, Path(config_file).parent, identity, identity, *shape, is_local=False)


def _cached_commit(repository: Repository, commit: str | None) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository.name, "config.json", revision=commit or repository.revision)
    if isinstance(found, str) and COMMIT.fullmatch(folder := Path(found).parent.name):
        return folder
    return None


def _fetch_refusal(repository: Repository, error: Exception) -> Exception:
    """What to raise for a failed download; a fault of ours is handed back as it is."""
    from huggingface_hub import errors

    if (refusal := refused(repository, error)) is not None:
        return refusal
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return BadInput(f"{repository.label}: the repository has no config.json, so it is not a transformers model")
    if isinstance(error, errors.LocalEntryNotFoundError) and is_offline():
        return EnvironmentRefused(
            f"{repository.label}: not whole in the cache and HF_HUB_OFFLINE forbids fetching it; unset it once"
        )
    if no_answer(error):
        return EnvironmentRefused(
            f"{repository.label}: cannot be fetched or stored ({shown(error, 120)}); check network and disk, then run "
            "again: what has arrived is kept"
        )
    return error
