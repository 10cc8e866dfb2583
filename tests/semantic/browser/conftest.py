import shutil
import threading
import time

import pytest

import legacy
from semantic.browser.desk import Desk
from semantic.browser.networks import NetworkShelf
from tests.semantic.browser.pages import open_page

QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def bundled():
    return legacy.load_network("faces64")


@pytest.fixture(scope="session")
def shelf(bundled):
    """The smaller bundled network under two names; what is found out about it serves all tests."""
    return NetworkShelf(
        lambda source: bundled, {"faces": legacy.resolve("faces64"), "others": "others.pkl"}, short=["faces"]
    )


@pytest.fixture
def desk(shelf):
    desk = Desk(shelf, "faces")
    yield desk
    desk.close()


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium for the tests of a module. While it runs, other tests could not run coroutines."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def serve():
    """A function that serves a desk and returns the address."""
    uvicorn = pytest.importorskip("uvicorn", reason="the extra web is not installed")
    from semantic.browser.server import create_app

    running = []

    def start(desk):
        config = uvicorn.Config(create_app(desk, ("127.0.0.1",)), port=0, log_level="warning", server_header=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.02)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join()


@pytest.fixture
def address(serve, desk):
    return serve(desk)


@pytest.fixture
def page(browser, address):
    with open_page(browser, address) as page:
        yield page
