"""The project around the code: what the README says runs, what is pinned, what is carried and how large it is."""

import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from hcl_cli import __version__
from hcl_cli.cli import app

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def readme_commands() -> list[str]:
    """Every `hcl` call in the README, split at the pipes."""
    lines = [line.strip() for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("    ")]
    pieces = [piece.strip() for line in lines for piece in line.split("|")]
    return [piece for piece in pieces if piece.startswith("hcl ")]


def test_the_readmes_commands_are_understood() -> None:
    commands = readme_commands()
    assert len(commands) >= 6
    for command in commands:
        name, *arguments = shlex.split(command)[1:]
        context = app.program().load(name).make_context(name, arguments)
        assert context.params


def test_every_make_target_of_the_readme_and_the_contract_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    contract = "setup demo check test test-long bench lab-model smoke table-hcb help".split()
    named = re.findall(r"(?:`|^    )make ([a-z][a-z-]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert "demo" in named
    assert targets >= set(contract) | set(named)


def test_every_dependency_is_pinned_exactly() -> None:
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    )
    assert pins["torch"] == "2.13.0"  # no local version: the registry's own wheel
    wanted = list(PYPROJECT["project"]["dependencies"])
    for extra in PYPROJECT["project"]["optional-dependencies"].values():
        wanted += extra
    for requirement in wanted:
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)
        assert name is not None
        assert name[0].lower() in {pin.lower().replace("_", "-") for pin in pins}, requirement


def test_the_changelog_knows_this_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a git checkout knows what is tracked")
def test_the_repository_stays_small() -> None:
    sizes = {path: path.stat().st_size for path in tracked_files()}
    assert max(sizes.values()) <= 12_000_000
    for name in ("lab", "lab-base"):
        folder = ROOT / "data" / "models" / name
        assert sum(size for path, size in sizes.items() if path.is_relative_to(folder)) <= 4_000_000


@pytest.mark.long
def test_the_wheel_carries_everything_and_works_in_an_empty_folder(tmp_path: Path) -> None:
    """The wheel alone, unpacked, in an empty folder, without network: the whole pipeline."""
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    for needed in (
        "sets/LICENSES.md",
        "sets/triviaqa.parquet",
        "lab/questions.parquet",
        "models/lab/model.safetensors",
    ):
        assert f"hcl_cli/_data/{needed}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (tmp_path / "empty").mkdir()
    script = (
        'set -euo pipefail; hcl() { python -P -m hcl_cli "$@"; }; hcl sample --limit 20 -n 10 | hcl score | hcl hcb'
    )
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(tmp_path / "installed"),
        "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path),
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path / "empty", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_file()
    assert done.stdout.strip().startswith(str(tmp_path / "empty" / ".hcl" / "hcb"))
