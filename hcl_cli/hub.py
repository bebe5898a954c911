"""Which commit of a Hub repository is meant, and what to say when the Hub refuses or is silent."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hcl_cli.errors import BadInput, EnvironmentRefused, HclError, shown
from hcl_cli.memo import recall, remember

ANSWER_TIMEOUT_S = 3.0
COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)

RepoType = Literal["model", "dataset"]


@dataclass(frozen=True)
class Repository:
    """A repository at a revision, as the user named it: NAME or NAME@REVISION."""

    type: RepoType
    name: str
    revision: str = "main"

    @property
    def label(self) -> str:
        return self.name if self.revision == "main" else f"{self.name}@{shown(self.revision)}"

    @property
    def page(self) -> str:
        return f"https://huggingface.co/{'datasets/' if self.type == 'dataset' else ''}{self.name}"


@dataclass(frozen=True)
class Resolved:
    """A commit, and the repository's file names if the Hub was asked (else None)."""

    commit: str
    files: tuple[str, ...] | None = None


def is_hub_name(text: str) -> bool:
    """Whether the text can be a Hub name: NAME or OWNER/NAME of letters, digits, `.`, `_` and `-`."""
    return _NAME.fullmatch(text) is not None and ".." not in text and "--" not in text


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE (or its older names) forbids asking."""
    from huggingface_hub.constants import is_offline_mode

    return bool(is_offline_mode())


def resolve(
    repository: Repository,
    *,
    cached: Callable[[str | None], str | None],
    memo: Path | None,
    warn: Callable[[str], None] | None,
) -> Resolved:
    """The commit that a name stands for.

    The Hub is asked, for at most 3 seconds. If it must not be asked or does not answer, the commit that was found
    last time is used, and `warn` is told which. A revision that is a whole commit hash is not asked for.

    Args:
        repository: what the user named.
        cached: given a commit, returns it if the local cache holds it; given None, the commit that the cache holds
            for this revision. None if there is nothing.
        memo: a JSON file that remembers commits.
        warn: is told when the cached commit is used.
    Raises:
        BadInput: no such repository or revision; or nothing is cached and HF_HUB_OFFLINE forbids asking.
        EnvironmentRefused: access is refused; or nothing is cached and the Hub does not answer.
    """
    if COMMIT.fullmatch(repository.revision):
        return Resolved(repository.revision)
    key = f"{repository.type} {repository.name}@{repository.revision}"
    reason = "the Hub is not asked (HF_HUB_OFFLINE)"
    offline = is_offline()
    if not offline:
        try:
            resolved = _ask(repository)
        except HclError:
            raise
        except Exception as error:
            if (refusal := refused(repository, error)) is not None:
                raise refusal from None
            if not no_answer(error):
                raise
            reason = f"the Hub gives no answer ({type(error).__name__})"
        else:
            remember(memo, "commits", {key: resolved.commit})
            return resolved
    remembered = recall(memo, "commits").get(key)
    commit = (cached(remembered) if isinstance(remembered, str) else None) or cached(None)
    if commit is None:
        here = "folder" if repository.type == "model" else "file"
        message = (
            f"{repository.label}: not in the Hub's cache on this machine, and {reason}; check the spelling, "
            f"{'unset HF_HUB_OFFLINE' if offline else 'check the network'}, or give a local {here}"
        )
        # A bare word is a misspelt folder or built-in name far more often than one of the Hub's few ownerless names.
        raise BadInput(message) if offline or "/" not in repository.name else EnvironmentRefused(message)
    if warn is not None:
        warn(f"{repository.label}: {reason}; using the cached commit {commit}")
    return Resolved(commit)


def _ask(repository: Repository) -> Resolved:
    from huggingface_hub import HfApi

    api = HfApi()
    ask = api.model_info if repository.type == "model" else api.dataset_info

    def request() -> Resolved:
        info = ask(repository.name, revision=repository.revision, timeout=ANSWER_TIMEOUT_S)
        names = tuple(sibling.rfilename for sibling in info.siblings) if info.siblings else None
        return Resolved(str(info.sha), names)

    return _within(ANSWER_TIMEOUT_S, request)


def _within(seconds: float, request: Callable[[], Resolved]) -> Resolved:
    """The answer, or TimeoutError. A thread, because a client's timeout does not cover the name look-up."""
    box: list[Any] = []

    def run() -> None:
        try:
            box.append(request())
        except BaseException as error:
            box.append(error)

    thread = threading.Thread(target=run, daemon=True, name="hub-commit")
    thread.start()
    thread.join(seconds)
    if not box:
        raise TimeoutError(f"no answer within {seconds:g} s")
    if isinstance(box[0], BaseException):
        raise box[0]
    answer: Resolved = box[0]
    return answer


def refused(repository: Repository, error: Exception) -> HclError | None:
    """The one-line error for an answer that says no; None if the error is of another kind."""
    from huggingface_hub import errors

    name, kind = repository.label, repository.type
    token = "`hf auth login` or HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return EnvironmentRefused(
            f"{name}: access to this {kind} is gated; accept its licence on {repository.page} and give a token "
            f"with {token}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return BadInput(f"{repository.name}: the Hub has no revision {shown(repository.revision)} of this {kind}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return BadInput(
            f"{name}: neither here nor on the Hub; check the spelling with `hcl {kind}s`, "
            f"or, if the {kind} is private, give a token with {token}"
        )
    if isinstance(error, errors.HFValidationError):
        return BadInput(f"{shown(name)}: not a name that the Hub allows, expected OWNER/NAME")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return EnvironmentRefused(
            f"{name}: the Hub refuses access ({status}); give a valid token with {token} "
            f"and accept the licence on {repository.page}"
        )
    return None


def no_answer(error: BaseException) -> bool:
    """Whether an error of a request means silence: not reached, too slow, overloaded. Ask `refused` first."""
    from huggingface_hub import errors

    # OSError and the base error of the HTTP client that huggingface_hub carries (httpx2 today, httpx before).
    return isinstance(error, errors.HfHubHTTPError.__bases__)
