"""Figures and tables on disk: whole or not at all."""

import os
import tempfile
from pathlib import Path

from hcl_cli.errors import EnvironmentRefused


def write_file(option: str, path: Path, content: bytes) -> None:
    """Write the bytes through a temporary file in the same folder.

    Args:
        option: the option that named the file, for the message.
        path: where to; an existing file is replaced.
        content: what to write.
    Raises:
        EnvironmentRefused: if the folder or the disk refuses.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # mkstemp makes the file private; a table is as readable as any other new file.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise EnvironmentRefused(f"{option} {path}: {error.strerror or error}; choose another place") from None
