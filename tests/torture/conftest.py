"""What the tests of trainings in processes of their own share."""

import pytest

import dataset_tool
from tests.torture.kills import Trainings


@pytest.fixture(scope="package")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "faces32.zip"
    args = ["--source=procedural", "--width=32", "--height=32", "--max-images=64", "--workers=1", f"--dest={path}"]
    dataset_tool.main(args, standalone_mode=False)
    return path


@pytest.fixture(scope="package")
def trainings(tmp_path_factory):
    with Trainings(tmp_path_factory.mktemp("logs")) as trainings:
        yield trainings
