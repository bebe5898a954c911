"""Small models beside the one under study (sentence encoders, entailment classifiers): their folder, files, identity.

Light: neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

READ = ("*.safetensors", "*.json", "*.txt", "*.model")  # what is fetched from the Hub and what identifies a folder


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hub_folder(name: str, revision: str | None, *, needs: str = "") -> tuple[Path | None, str]:
    """The folder of a Hub repository, from the cache if it is there; else None and why not.

    Args:
        needs: a package without which nothing could read what a download would bring.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = [*READ, *(f"*/{pattern}" for pattern in READ)]
    # Exports for other runtimes lie beside the weights and are several times as large.
    unwanted = ["onnx/*", "openvino/*"]
    try:
        folder = Path(
            snapshot_download(
                name, revision=revision, allow_patterns=wanted, ignore_patterns=unwanted, local_files_only=True
            )
        )
        if (folder / "config.json").is_file():  # else it is there in part
            return folder, ""
    except (LocalEntryNotFoundError, FileNotFoundError):
        pass  # not in the cache: ask the Hub
    except HFValidationError:
        return None, "not a valid Hub name"
    if needs and importlib.util.find_spec(needs) is None:
        return None, f"{needs.replace('_', '-')} is not installed"
    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=unwanted, etag_timeout=3)
        ), ""
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return None, "the Hub has no such repository or revision"
    except LocalEntryNotFoundError:
        return None, "the Hub was not reached"
    except (HfHubHTTPError, OSError) as error:
        return None, f"the Hub was asked and failed: {type(error).__name__}"


def model_files(folder: Path) -> list[Path]:
    """The files that make a model, in the folder itself and one below (a module's own)."""
    patterns = [*READ, *(f"*/{pattern}" for pattern in READ)]
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def files_identity(folder: Path, files: Sequence[Path], sha256: Callable[[Path], str]) -> str:
    """ "sha256:..." over the names and contents of the files."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()} {sha256(path)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def split_revision(name: str) -> tuple[str, str | None]:
    """A Hub name and its revision, if there is one behind an @."""
    hub_name, _, revision = name.partition("@")
    return hub_name, revision or None
