"""The registry of configurations, and what each one says about itself."""

import subprocess
import sys
from pathlib import Path

import pytest

import train
from dnnlib import get_obj_by_name
from training.configurations import Configuration
from training.registry import CONFIGURATIONS, find_configuration


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_takes_options_that_train_py_has(name):
    options = {parameter.name for parameter in train.main.params}
    found = find_configuration(name)
    assert issubclass(found, Configuration)
    assert found.accepted() <= options
    assert set(found.loss_weights) <= found.accepted()
    get_obj_by_name(found.dataset_class)


def test_every_option_of_train_py_belongs_to_a_configuration():
    accepted = set().union(*(find_configuration(name).accepted() for name in CONFIGURATIONS))
    assert {parameter.name for parameter in train.main.params if parameter.expose_value} == accepted


def test_help_does_not_import_torch():
    code = "import sys, train; print('torch' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(train.__file__).parent, capture_output=True, text=True, check=True
    )
    assert found.stdout == "False\n"
