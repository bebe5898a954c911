"""hcl: a command-line laboratory for open-weight language models, layer by layer."""

__version__ = "0.1.0"
