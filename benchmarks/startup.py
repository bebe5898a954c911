"""How long `hcl --help` and cache hits take, against bare imports of the libraries they cannot do without.

    python benchmarks/startup.py [--runs 11]

Prints CPU seconds (user + system, of the whole process) as medians, interleaved A B A B, and the median of the pairwise
ratios. Each peer is a fresh Python that imports what the command needs: typer and rich, and pyarrow.parquet for a hit.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HELP_PEER = "import typer, rich"
HIT_PEER = "import typer, rich, pyarrow.parquet"


def cpu_seconds(command: list[str], folder: Path) -> float:
    """CPU time of one run of a command, from the operating system's own accounting."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(label: str, command: list[str], peer: str, target: float, folder: Path, runs: int) -> None:
    """Print one row."""
    baseline = [sys.executable, "-c", peer]
    pairs = []
    for run in range(runs + 1):
        pair = cpu_seconds(command, folder), cpu_seconds(baseline, folder)
        if run:  # the first fills the disk cache
            pairs.append(pair)
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    print(f"{label:<18} {ours:8.3f} {theirs:8.3f} {ratio:8.2f}x {target:8.1f}x   n={runs}   against: {peer}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=11)
    runs = parser.parse_args().runs
    os.environ["HF_HUB_OFFLINE"] = "1"
    hcl = [sys.executable, "-m", "hcl_cli"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def path(*arguments: str) -> str:
            done = subprocess.run([*hcl, *arguments], cwd=folder, check=True, capture_output=True, text=True)
            return done.stdout.strip()

        sample = ("sample", "--limit", "8", "-n", "4", "-q")
        sampled = path(*sample)
        scored = path("score", sampled, "-q")
        path("hcb", scored, "-q")
        print(f"{'CPU seconds':<18} {'hcl':>8} {'peer':>8} {'ratio':>9} {'at most':>9}")
        compare("hcl --help", [*hcl, "--help"], HELP_PEER, 2.5, folder, runs)
        compare("hcl sample, hit", [*hcl, *sample], HIT_PEER, 2.0, folder, runs)
        compare("hcl score, hit", [*hcl, "score", sampled, "-q"], HIT_PEER, 2.0, folder, runs)
        compare("hcl hcb, hit", [*hcl, "hcb", scored, "-q"], HIT_PEER, 2.0, folder, runs)


if __name__ == "__main__":
    main()
