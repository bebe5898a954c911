"""Which commit a Hub name means, with a Hub that answers, refuses, is silent or is not to be asked."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import errors

from hcl_cli import hub
from hcl_cli.errors import BadInput, EnvironmentRefused, HclError
from hcl_cli.hub import Repository, Resolved, is_hub_name, resolve

COMMIT, OTHER = "a" * 40, "b" * 40
REPOSITORY = Repository("model", "owner/model")
SECRET = "hf_" + "S" * 34


class Hub:
    """Stands in for HfApi; `answer` is a commit or an exception."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer: Any = COMMIT
        self.asked: list[tuple[str, str]] = []
        self.delay = 0.0
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", SECRET)

    def model_info(self, name: str, *, revision: str, timeout: float) -> Any:
        assert timeout == 3.0
        self.asked.append((name, revision))
        time.sleep(self.delay)
        if isinstance(self.answer, Exception):
            raise self.answer
        return SimpleNamespace(sha=self.answer, siblings=[SimpleNamespace(rfilename="config.json")])

    dataset_info = model_info


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(monkeypatch)


def http_error(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    request = httpx2.Request("GET", "https://huggingface.co/x", headers={"authorization": f"Bearer {SECRET}"})
    return kind(f"{status} for\nurl with {SECRET}", response=httpx2.Response(status, request=request))


def go(
    repository: Repository = REPOSITORY, cached: str | None = None, memo: Path | None = None
) -> tuple[Resolved, list[str]]:
    told: list[str] = []
    kept = {None: cached, cached: cached}
    return resolve(repository, cached=lambda commit: kept.get(commit), memo=memo, warn=told.append), told


def refusal(repository: Repository = REPOSITORY) -> HclError:
    with pytest.raises(HclError) as caught:
        go(repository)
    message = str(caught.value)
    assert message.isprintable() and SECRET not in message and repository.name in message
    return caught.value


def test_the_answer_is_taken_and_remembered(web: Hub, tmp_path: Path) -> None:
    memo = tmp_path / "memo.json"
    assert go(memo=memo) == (Resolved(COMMIT, ("config.json",)), [])
    assert web.asked == [("owner/model", "main")]
    web.answer = OTHER  # the branch moved: asked again, not remembered for ever
    assert go(memo=memo)[0].commit == OTHER
    web.answer = httpx2.ConnectError("no route")
    resolved, told = go(cached=OTHER, memo=memo)
    assert resolved == Resolved(OTHER)
    assert told == [f"owner/model: the Hub gives no answer (ConnectError); using the cached commit {OTHER}"]


def test_a_remembered_commit_that_the_cache_lost_is_not_used(web: Hub, tmp_path: Path) -> None:
    go(memo=tmp_path / "memo.json")
    web.answer = httpx2.ReadTimeout("late")
    assert go(cached=OTHER, memo=tmp_path / "memo.json")[0] == Resolved(OTHER)
    with pytest.raises(EnvironmentRefused, match="not in the Hub's cache on this machine"):
        go(memo=tmp_path / "memo.json")


def test_a_whole_commit_is_not_asked_for(web: Hub) -> None:
    assert go(Repository("model", "owner/model", OTHER)) == (Resolved(OTHER), [])
    assert web.asked == []


def test_offline_asks_nobody(web: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    resolved, told = go(cached=COMMIT)
    assert resolved == Resolved(COMMIT) and told[0].endswith(f"using the cached commit {COMMIT}")
    message = refusal()
    assert isinstance(message, BadInput) and "unset HF_HUB_OFFLINE, or give a local folder" in str(message)
    assert web.asked == []


def test_silence_lasts_three_seconds_at_most(web: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own timeout does not cover the look-up of the name, which can hang for half a minute."""
    monkeypatch.setattr(hub, "ANSWER_TIMEOUT_S", 0.2)
    monkeypatch.setattr(Hub, "model_info", lambda self, name, **_: time.sleep(5))
    began = time.monotonic()
    resolved, told = go(cached=COMMIT)
    assert time.monotonic() - began < 3
    assert resolved == Resolved(COMMIT) and "no answer (TimeoutError)" in told[0]


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (http_error(errors.GatedRepoError, 403), EnvironmentRefused,
         "gated; accept its licence on https://huggingface.co/owner/model and give a token with `hf auth login` or HF"),
        (http_error(errors.RepositoryNotFoundError, 404), BadInput, "`hcl models`"),
        (http_error(errors.RepositoryNotFoundError, 401), BadInput, "HF_TOKEN"),
        (http_error(errors.RevisionNotFoundError, 404), BadInput, "the Hub has no revision main of this model"),
        (http_error(errors.HfHubHTTPError, 401), EnvironmentRefused, "refuses access (401)"),
        (errors.HFValidationError("bad\nname"), BadInput, "not a name that the Hub allows"),
        (http_error(errors.HfHubHTTPError, 503), EnvironmentRefused, "no answer (HfHubHTTPError)"),
        (httpx2.ConnectTimeout("late"), EnvironmentRefused, "no answer (ConnectTimeout); check the spelling, check"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_without_the_token(web: Hub, error: Exception, kind: type[HclError], said: str) -> None:
    web.answer = error
    refused = refusal()
    assert type(refused) is kind and said in str(refused)


def test_a_word_without_owner_is_taken_for_a_misspelling(web: Hub) -> None:
    web.answer = httpx2.ConnectError("no route")
    assert type(refusal(Repository("model", "lba"))) is BadInput
    assert type(refusal(Repository("model", "owner/lba"))) is EnvironmentRefused


def test_a_fault_of_ours_keeps_its_own_error(web: Hub) -> None:
    web.answer = ZeroDivisionError("ours")
    with pytest.raises(ZeroDivisionError):
        go(cached=COMMIT)


def test_hub_names() -> None:
    assert all(map(is_hub_name, ["gpt2", "meta-llama/Llama-3.2-1B", "a_b/c.d-e", "0x/1"]))
    bad = ["", "/", "a/", "/a", "a/b/c", "../x", "./x", "a b", "a\nb", "a\n", "é", "-a", "a..b/c", "a--b", "a:b", "~/x"]
    assert not any(map(is_hub_name, bad))
