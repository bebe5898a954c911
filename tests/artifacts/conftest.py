"""Fixtures of the store's tests."""

import importlib.util
import sys
from pathlib import Path

import pytest

from hcl_cli.artifacts.store import Store


def _plan():
    spec = importlib.util.spec_from_file_location("artifacts_plan", Path(__file__).with_name("plan.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["artifacts_plan"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def plan():
    """The made-up stage of plan.py."""
    return _plan()


@pytest.fixture
def warnings():
    """Lines that stores warned of."""
    return []


@pytest.fixture
def store(tmp_path, warnings):
    return Store(tmp_path / "store", warn=warnings.append)
