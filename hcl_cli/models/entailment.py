"""Entailment models: finding one (light) and asking it (loads torch).

Any sequence classifier for natural language inference: a text (premise) entails another (hypothesis), contradicts it,
or neither. Which of its classes is which is read from the names in its config, never assumed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hcl_cli.errors import BadOption, shown
from hcl_cli.models.side_models import file_sha256, files_identity, hub_folder, model_files, split_revision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Pair = tuple[str, str]  # premise, hypothesis

CONTRADICTION, NEUTRAL, ENTAILMENT = range(3)
# For messages: one that is listed with safetensors. The published one (Farquhar et al. 2024),
# microsoft/deberta-v2-xlarge-mnli, is listed without: it needs a converted copy or revision.
EXAMPLE = "cross-encoder/nli-deberta-v3-base"
_NAMES = (
    (CONTRADICTION, r"contradict(ion|s|ory)?"),
    (NEUTRAL, r"neutral|undetermined|unknown"),
    (ENTAILMENT, r"entail(ment|s|ed)?"),
)
_NOT_ENTAILED = r"(not|non|no)[ _-]?entail(ment|s|ed)?"
_HEAD = "ForSequenceClassification"
CHUNK = 2048  # pairs that are asked before their answers are kept
# Tokens in a batch, padding counted: those of a small encoder read as quickly on a CPU at 512 as at 4096.
_BATCH_TOKENS = {"cpu": 2048}
_BATCH_TOKENS_ELSEWHERE = 32768


class EntailmentModel(Protocol):
    """What tells whether one text entails another.

    Attributes:
        n_cut: pairs that were longer than the model reads and were cut, of all that were asked.
    """

    @property
    def n_cut(self) -> int: ...

    def probabilities(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        """[n, 3], of contradiction, neutral and entailment, for (premise, hypothesis) each; rows sum to 1."""


class Memo(Protocol):
    """Where answers are kept: three numbers by a key of 16 bytes."""

    def find(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]: ...

    def add(self, keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None: ...


@dataclass(frozen=True)
class EntailmentRef:
    """A model that was found but not loaded.

    Attributes:
        name: the Hub name, or the last part of a folder's name.
        folder: where its files lie.
        identity: "sha256:..." over all its files.
        classes: of each class of the head, in its order, which of CONTRADICTION, NEUTRAL, ENTAILMENT it is. Two
            classes are NEUTRAL (for "not entailment") and ENTAILMENT.
    """

    name: str
    folder: Path
    identity: str
    classes: tuple[int, ...]

    @property
    def tells_contradiction(self) -> bool:
        """Whether it has three classes; one with two knows only whether a text is entailed."""
        return CONTRADICTION in self.classes


def find_entailment(
    name: str | None, *, sha256: Callable[[Path], str] = file_sha256, needed_by: str = "--judge nli"
) -> EntailmentRef:
    """The model of that name, without loading it; imports neither torch nor transformers.

    Args:
        name: a folder, or a Hub name with an optional `@revision`. There is no default: none can be had offline.
        sha256: digest of a file; a caller that remembers digests passes its own.
        needed_by: the option that needs it, for the message where none is named.
    Raises:
        BadOption: none named, no such model, one without safetensors, or one that is no classifier of entailment.
    """
    sha256 = cache(sha256)
    if name is None:
        raise BadOption(
            f"{needed_by}: needs an entailment model; name a folder or a Hub name, like --nli-model {EXAMPLE}"
        )
    if Path(name).expanduser().is_dir():
        folder = Path(name).expanduser().resolve()
        return _checked(folder.name, folder, sha256)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BadOption(f"--nli-model {name}: no such folder; expected a folder or a Hub name such as {EXAMPLE}")
    fetched, why = hub_folder(*split_revision(name))
    if fetched is None:
        raise BadOption(
            f"--nli-model {name}: not a folder, not in the Hub's cache, and not fetched ({why}); expected a folder or "
            f"a Hub name such as {EXAMPLE}"
        )
    return _checked(name, fetched, sha256)


def _checked(name: str, folder: Path, sha256: Callable[[Path], str]) -> EntailmentRef:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is not an object")
    except (OSError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise BadOption(
            f"--nli-model {name}: its config.json cannot be read ({first}); expected the folder of an NLI classifier"
        ) from None
    classes = _classes(name, config)
    files = model_files(folder)
    if not any(path.suffix == ".safetensors" for path in files):
        raise BadOption(
            f"--nli-model {name}: no .safetensors file in it; weights in other formats are not read, name a converted "
            "copy or a revision that has them (NAME@refs/pr/1)"
        )
    return EntailmentRef(name, folder, files_identity(folder, files, sha256), classes)


def _classes(name: str, config: dict[str, Any]) -> tuple[int, ...]:
    """Which class of the head is what, by the names in the config."""
    architectures = [str(one) for one in config.get("architectures") or ()]
    if not any(one.endswith(_HEAD) for one in architectures):
        met = ", ".join(map(shown, architectures)) or "none"
        raise BadOption(
            f"--nli-model {name}: its architecture is {met}; expected a sequence classifier (...{_HEAD}) for natural "
            f"language inference, such as {EXAMPLE}"
        )
    named = config.get("id2label")
    labels: list[str] = []
    if isinstance(named, dict) and all(str(key).isdigit() for key in named):
        labels = [str(named[key]) for key in sorted(named, key=int)]
    found = tuple(_class_of(label) for label in labels)
    two = sorted(str(one) for one in found) == sorted(map(str, (NEUTRAL, ENTAILMENT)))
    if not (sorted(str(one) for one in found) == sorted(map(str, (CONTRADICTION, NEUTRAL, ENTAILMENT))) or two):
        met = ", ".join(shown(label, 40) for label in labels) or "none"
        raise BadOption(
            f"--nli-model {name}: its config names the classes {met}; expected entailment, neutral and contradiction, "
            "or entailment and not_entailment (id2label of config.json); name a model for natural language inference"
        )
    return tuple(one for one in found if one is not None)


def _class_of(label: str) -> int | None:
    plain = label.strip().lower()
    if re.fullmatch(_NOT_ENTAILED, plain):
        return NEUTRAL
    return next((kind for kind, pattern in _NAMES if re.fullmatch(pattern, plain)), None)


def load_entailment(ref: EntailmentRef, device: str = "cpu") -> EntailmentModel:
    """The model, ready to be asked, in float32.

    Raises:
        BadOption: it cannot be loaded, or its files lack weights of the head.
    """
    return _Classifier(ref, device)


class _Classifier:
    """A sequence classifier of transformers from a local folder.

    Attributes:
        n_cut: pairs that were longer than the model reads and were cut, of all that were asked.
    """

    def __init__(self, ref: EntailmentRef, device: str) -> None:
        from safetensors import SafetensorError
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        verbosity = logging.get_verbosity()
        logging.set_verbosity(50)  # critical only: what is missing is one line here, not a table
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                ref.folder, local_files_only=True, trust_remote_code=False
            )
            model, report = AutoModelForSequenceClassification.from_pretrained(
                ref.folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype="float32",
                output_loading_info=True,
            )  # fmt: skip
        except (
            OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError
        ) as error:  # fmt: skip
            first = str(error).strip().partition("\n")[0]
            raise BadOption(f"--nli-model {ref.name}: cannot be loaded as a classifier ({first})") from error
        finally:
            logging.set_verbosity(verbosity)
        absent = sorted({*report["missing_keys"], *(key for key, *_ in report.get("mismatched_keys") or ())})
        if absent:
            raise BadOption(
                f"--nli-model {ref.name}: {len(absent)} weights are not in its files or have another shape, the first "
                f"{shown(absent[0])}, and would be random; expected a trained classifier, with its head"
            )
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.unk_token
        model.config.pad_token_id = self._tokenizer.pad_token_id
        self._tokenizer.padding_side = "right"
        self._model = model.to(device).eval()
        self._classes = ref.classes
        self._budget = _BATCH_TOKENS.get(device, _BATCH_TOKENS_ELSEWHERE)
        self._longest = min(int(self._tokenizer.model_max_length), _positions(model))
        self.n_cut = 0

    def probabilities(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        """[n, 3]; each distinct pair is read once, in batches that do not depend on the order of the pairs."""
        import numpy as np
        import torch

        from hcl_cli.models.encoders import batches
        from hcl_cli.models.memory import run_or_halve

        distinct = sorted(set(pairs))
        found = np.zeros((len(distinct), 3), dtype=np.float32)
        encoded = self._encoded(distinct)
        device = self._model.device

        def run(rows: list[int]) -> NDArray[np.float32]:
            padded = self._tokenizer.pad([encoded[row] for row in rows], return_tensors="pt").to(device)
            logits = self._model(**padded).logits.float()
            values: NDArray[np.float32] = torch.softmax(logits, dim=-1).cpu().numpy()
            return values

        queue = batches([len(one["input_ids"]) for one in encoded], self._budget)
        with torch.inference_mode():
            while queue:
                rows = queue.pop()  # the longest, which may not fit, first
                values = run_or_halve(
                    rows, queue, run, device, lambda row: f"a pair of {len(encoded[row]['input_ids'])} tokens", "pair"
                )
                if values is not None:
                    for at, kind in enumerate(self._classes):
                        found[rows, kind] = values[:, at]
        if not np.isfinite(found).all():
            raise BadOption("--nli-model: its logits are not finite; name another model")
        place = {pair: at for at, pair in enumerate(distinct)}
        return found[[place[pair] for pair in pairs]].reshape(len(pairs), 3)

    def _encoded(self, pairs: Sequence[Pair]) -> list[dict[str, list[int]]]:
        """Token ids (and types, where the model has them), cut to what it reads; the longer text loses first."""
        if not pairs:
            return []
        first, second = [one for one, _ in pairs], [other for _, other in pairs]
        options = {"truncation": "longest_first", "max_length": self._longest}
        tokens = self._tokenizer(first, second, **options)
        names = list(tokens.keys())
        encoded = [{name: tokens[name][row] for name in names} for row in range(len(pairs))]
        full = [row for row, one in enumerate(encoded) if len(one["input_ids"]) >= self._longest]
        if full:  # only these may have been cut
            whole = self._tokenizer([first[row] for row in full], [second[row] for row in full], verbose=False)
            self.n_cut += sum(len(ids) > self._longest for ids in whole["input_ids"])
        return encoded


class Remembered:
    """A model whose answers are kept as they come: an interruption loses at most `CHUNK` of them.

    Attributes:
        n_cut: of the pairs asked in this run.
    """

    def __init__(self, model: EntailmentModel, memo: Memo) -> None:
        self._model = model
        self._memo = memo

    @property
    def n_cut(self) -> int:
        """See `EntailmentModel`."""
        return self._model.n_cut

    def probabilities(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        """[n, 3]; see `EntailmentModel`."""
        import numpy as np

        keys = [_key(pair) for pair in pairs]
        known = self._memo.find(keys)
        new = sorted({pair: key for pair, key in zip(pairs, keys, strict=True) if key not in known}.items())
        for start in range(0, len(new), CHUNK):
            chunk = new[start : start + CHUNK]
            told = self._model.probabilities([pair for pair, _ in chunk])
            self._memo.add([key for _, key in chunk], told)
            known.update(zip((key for _, key in chunk), told, strict=True))
        return np.array([known[key] for key in keys], dtype=np.float32).reshape(len(pairs), 3)


def _key(pair: Pair) -> bytes:
    digest = hashlib.sha256()
    for text in pair:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()[:16]


def _positions(model: Any) -> int:
    """Most tokens that the model has positions for."""
    from torch import nn

    positions = int(getattr(model.config, "max_position_embeddings", 0) or 10**9)
    for name, module in model.named_modules():
        # A table with a padding row of its own begins to count behind it.
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            positions = min(positions, module.num_embeddings - module.padding_idx - 1)
    return positions
