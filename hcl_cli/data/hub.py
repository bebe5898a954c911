"""Question sets from the Hub through `datasets`: which commit, and its rows."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hcl_cli.errors import BadInput, BadOption, EnvironmentRefused, shown
from hcl_cli.hub import Repository, is_hub_name, no_answer, refused, resolve
from hcl_cli.records import Records, table_records

# The split of most question sets that people are evaluated on; written out, so that an identity is never ambiguous.
DEFAULT_SPLIT = "validation"


@dataclass(frozen=True)
class HubSet:
    """One split of a data set at one commit.

    Attributes:
        name: OWNER/NAME.
        config: the configuration, or "" for the data set's default one.
        split: e.g. validation.
        commit: 40 hex digits.
    """

    name: str
    config: str
    split: str
    commit: str

    @property
    def identity(self) -> str:
        """ "hub:OWNER/NAME@COMMIT:CONFIG:SPLIT"."""
        return f"hub:{self.name}@{self.commit}:{self.config}:{self.split}"

    def records(self) -> Records:
        """The rows; downloads what the cache lacks. Dataset scripts are never run.

        Raises:
            BadOption: no such configuration or split.
            BadInput, EnvironmentRefused: the data cannot be read or fetched.
        """
        import datasets

        datasets.utils.logging.set_verbosity_error()
        datasets.disable_progress_bars()
        try:
            # hf:// because a folder of that name here would otherwise be read in place of the Hub's set.
            address = f"hf://datasets/{self.name}"
            builder = datasets.load_dataset_builder(address, self.config or None, revision=self.commit)
            if builder.hash != self.commit:  # datasets falls back on its newest cached copy without an error
                raise EnvironmentRefused(
                    f"hub:{self.name}: commit {self.commit} is not in the cache and cannot be fetched now; "
                    f"name the cached one with @{shown(builder.hash)}"
                )
            builder.download_and_prepare()
            table = builder.as_dataset(split=self.split).with_format("arrow")[:]
        except (OSError, ValueError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as error:
            raise self._refusal(error) from None
        return table_records(table, f"hub:{self.name} ({self.split})")

    def _refusal(self, error: Exception) -> Exception:
        label, said = f"--dataset hub:{self.name}", shown(error, 160)
        text = str(error)
        if "split" in text.lower() and isinstance(error, ValueError):
            return BadOption(
                f"{label}: no split {shown(self.split)} ({said}); name one, like hub:{self.name}:{self.config}:test"
            )
        if "onfig" in text and isinstance(error, ValueError):
            return BadOption(f"{label}: configuration {shown(self.config) or '(none)'}: {said}")
        if "scripts are no longer supported" in text:
            return BadInput(f"{label}: the set is a script, which is never run; export it to Parquet and name the file")
        if (refusal := refused(Repository("dataset", self.name, self.commit), error)) is not None:
            return refusal
        if isinstance(error, ConnectionError) or no_answer(error):
            return EnvironmentRefused(f"{label}: cannot be fetched or stored ({said}); check network and disk")
        return BadInput(f"{label}: {said}")


def open_hub(text: str, *, memo: Path | None, warn: Callable[[str], None] | None) -> HubSet:
    """`hub:NAME[:config[:split]][@revision]` at the commit it stands for now. Reads no row.

    Args:
        text: as given; the split is `validation` unless named.
        memo: a JSON file that remembers commits.
        warn: is told when a cached commit is used for want of an answer.
    Raises:
        BadOption: not of that form, or the extra `hub` is not installed.
        BadInput, EnvironmentRefused: see `hcl_cli.hub.resolve`.
    """
    spec, _, revision = text.removeprefix("hub:").partition("@")
    name, config, split = (*spec.split(":"), "", "")[:3]
    if not is_hub_name(name) or spec.count(":") > 2 or ("@" in text and not revision) or "/" in config + split:
        raise BadOption(f"--dataset {shown(text)}: expected hub:OWNER/NAME[:config[:split]][@revision]")
    if importlib.util.find_spec("datasets") is None:
        raise BadOption(
            f"--dataset {shown(text)}: needs the package datasets; install it with pip install 'hcl-cli[hub]'"
        )
    repository = Repository("dataset", name, revision or "main")
    resolved = resolve(repository, cached=lambda commit: _cached_commit(name, config, commit), memo=memo, warn=warn)
    return HubSet(name, config, split or DEFAULT_SPLIT, resolved.commit)


def _cached_commit(name: str, config: str, commit: str | None) -> str | None:
    """The commit of the newest prepared copy in the cache of `datasets`, or `commit` if a copy of it is there."""
    copies = []
    for folder in _cache_root().glob(f"{_cache_name(name)}/{config or '*'}/*/{commit or '*'}"):
        if re.fullmatch("[0-9a-f]{40}", folder.name) and (folder / "dataset_info.json").is_file():
            copies.append((folder.stat().st_mtime, folder.name))
    return max(copies)[1] if copies else None


def _cache_root() -> Path:
    """Where `datasets` keeps prepared data, found without importing it (0.6 s)."""
    from huggingface_hub.constants import HF_HOME

    return Path(os.environ.get("HF_DATASETS_CACHE", os.path.join(HF_HOME, "datasets"))).expanduser()


def _cache_name(name: str) -> str:
    """OWNER/TriviaQA -> OWNER___trivia_qa, as `datasets` names its folders."""
    *owner, last = name.split("/")
    last = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", last)
    return "___".join([*owner, re.sub(r"([a-z\d])([A-Z])", r"\1_\2", last).lower()])
