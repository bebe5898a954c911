"""A cache hit shows the table without paying for the libraries that computed it."""

import subprocess
import sys


def test_showing_the_table_and_reading_the_weights_import_nothing_heavy():
    code = """
import sys
from hcl_cli.report import files, labels, plots, tables, terminal
from hcl_cli.report import entropy_labels, entropy_plots, entropy_tables, entropy_terminal, entropy_words
from hcl_cli.report import calibration_plots, calibration_tables, calibration_terminal, calibration_words
from hcl_cli.report import rejection_plots, rejection_tables, rejection_terminal, rejection_words
from hcl_cli.report import comparison_tables, comparison_terminal, comparison_words, findings_tables
from hcl_cli.report import power_terminal, power_words
from hcl_cli.report import dola_plots, dola_published, dola_tables, dola_terminal, dola_words
from hcl_cli.report import probe_labels, probe_plots, probe_published, probe_tables, probe_terminal, probe_words
from hcl_cli.report import columns, grids, prune_labels, prune_plots, prune_tables, prune_terminal, prune_words
from hcl_cli.report import mitigate_tables, mitigate_terminal, mitigate_words, quality_plots
from hcl_cli.report import retained_labels, retained_tables
from hcl_cli.stages.hcb import parse_weights
parse_weights("script")
heavy = {"polars", "scipy", "matplotlib", "torch", "pandas", "transformers"} & set(sys.modules)
sys.exit(", ".join(sorted(heavy)) or None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
