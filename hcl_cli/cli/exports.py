"""Files that people asked for beside the artifact: their endings and folders, checked before anything is computed."""

from pathlib import Path

from hcl_cli.errors import BadOption


def check_export(option: str, path: Path | None, endings: tuple[str, ...]) -> None:
    """Refuse a file ending that cannot be written, and a folder that is not there, before anything is computed."""
    if path is None:
        return
    if path.suffix.lower() not in endings:
        raise BadOption(f"{option} {path}: the ending says the format; expected {', '.join(endings)}")
    if not path.absolute().parent.is_dir():
        raise BadOption(f"{option} {path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise BadOption(f"{option} {path}: is a folder; expected a file name")
