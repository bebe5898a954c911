"""The only way to bundled files: works from a clone, an editable install and a wheel."""

from functools import cache
from pathlib import Path

from hcl_cli.errors import EnvironmentRefused


@cache
def data_root() -> Path:
    """The folder that holds `sets/`, `lab/` and `models/`.

    In a wheel the data lies inside the package (`hcl_cli/_data`); in a clone and in an editable install of one it
    is the `data/` folder beside the package.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / "_data", package.parent / "data"):
        if (candidate / "sets").is_dir():
            return candidate
    raise EnvironmentRefused(
        f"the bundled data was not found beside {package}; install again with `pip install .` from a whole clone"
    )


def data_file(*parts: str) -> Path:
    """The path of one bundled file or folder, e.g. `data_file("models", "lab")`."""
    return data_root().joinpath(*parts)
