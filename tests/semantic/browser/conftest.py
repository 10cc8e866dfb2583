import pytest

import legacy
from semantic.browser.desk import Desk
from semantic.browser.networks import NetworkShelf


@pytest.fixture(scope="session")
def bundled():
    return legacy.load_network(legacy.find_network())


@pytest.fixture
def desk(bundled):
    """The editor with the bundled network under two names."""
    shelf = NetworkShelf(lambda source: bundled, {"faces": "faces.pkl", "others": "others.pkl"}, short=["faces"])
    desk = Desk(shelf, "faces")
    yield desk
    desk.close()
