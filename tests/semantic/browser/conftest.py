import pytest

import legacy
from semantic.browser.desk import Desk
from semantic.browser.networks import NetworkShelf


@pytest.fixture(scope="session")
def bundled():
    return legacy.load_network(legacy.find_network())


@pytest.fixture(scope="session")
def shelf(bundled):
    """The bundled network under two names; what is found out about it serves all tests."""
    return NetworkShelf(lambda source: bundled, {"faces": "faces.pkl", "others": "others.pkl"}, short=["faces"])


@pytest.fixture
def desk(shelf):
    desk = Desk(shelf, "faces")
    yield desk
    desk.close()
