"""The editor in the browser."""

import os
import threading
import webbrowser
from pathlib import Path

if __name__ == "__main__":  # before PyTorch is imported: its threads shall sleep while they wait, as other programs run
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import click

import legacy
from dnnlib import Command, UserError
from semantic.adaptation.layer_swap import blend_option
from torch_utils.devices import select_device

LOCAL = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")
TUNED = "tuned.npz"


@click.command(cls=Command, context_settings={"show_default": True})
@click.option(
    "--network", metavar="FILE|URL|DIR", help="Network, or run directory.  [default: the bundled or newest one]"
)
@click.option(
    "--photo",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Output folder of projector.py: open its photo, with its tuned network if it has one.",
)
@blend_option
@click.option(
    "--networks",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Folder of networks and run directories for the page.",
)
@click.option("--host", default="127.0.0.1", help="Address of the server. Use 0.0.0.0 for other machines.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="Port of the server. 0 takes a free port.")
@click.option("--no-browser", is_flag=True, help="Do not open the page in a browser.")
@click.option(
    "--device", type=click.Choice(["auto", "cuda", "cpu", "mps"]), default="auto", help="Device for the computation."
)
def main(
    network: str | None,
    photo: Path | None,
    blend: tuple[str, ...],
    networks: Path | None,
    host: str,
    port: int,
    no_browser: bool,
    device: str,
) -> None:
    """Edit generated faces and photos region by region, in the browser.

    The page shows an image and its mask. Click a region, change its shape or texture, move it, or take it from another
    face. Only this machine reaches the server, unless --host names another address. Needs the extra `web`.

    \b
    The network that comes with the project:
      python visualizer.py
    A network of your own, and all runs beside it:
      python visualizer.py --network=training-runs/00000-faces-semantic --networks=training-runs
    A photo that projector.py found, with what --pti-steps changed in the network:
      python visualizer.py --photo=out/me
    For other machines in the same network:
      python visualizer.py --host=0.0.0.0 --no-browser
    """
    from semantic.browser.desk import Desk
    from semantic.browser.networks import NetworkShelf
    from semantic.browser.photos import projected_photo
    from semantic.browser.server import create_app

    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise UserError("To use the editor, install uvicorn: pip install 'semantic-stylegan[web]'") from error

    tuned = photo / TUNED if photo is not None and (photo / TUNED).is_file() else None
    named = name_networks(network, tuned, blend)
    first = next(iter(named))
    shelf = NetworkShelf(legacy.load_network, named, networks, select_device(device), legacy.NAMED)
    desk = Desk(shelf, first, photo)
    opened = shelf.get(first)  # a network that does not open ends the command with a line, not the first visit
    if photo is not None:
        projected_photo(opened, photo)  # and so does a photo
    app = create_app(desk, () if host in EVERYWHERE else (*LOCAL, host.lower()))
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", server_header=False, access_log=False)
    server = uvicorn.Server(config)
    sockets = [bound(config)]
    address = f"http://{'localhost' if host in (*LOCAL, *EVERYWHERE) else host}:{sockets[0].getsockname()[1]}"
    click.echo(f"The editor is at {address}. Stop it with Ctrl-C.")
    if not no_browser:
        threading.Timer(1, webbrowser.open, [address]).start()
    server.run(sockets)


def find(network: str | None) -> tuple[str, str]:
    """Returns name and path of the first network."""
    path = legacy.choose_network(network)
    known = {source: name for name, source in legacy.NAMED.items()}
    return known.get(path, Path(path).stem), path


def name_networks(network: str | None, tuned: Path | None, blend: tuple[str, ...]) -> dict[str, object]:
    """Returns the named networks of the page, {name: `Source`}. The first one comes first.

    The user's network takes the place of a bundled network of the same name. A changed network has a name of its own,
    and the unchanged network stays in the list.
    """
    from semantic.browser.networks import Source

    name, path = find(network)
    others = {bundled: Source(file) for bundled, file in legacy.NAMED.items() if Path(file).is_file()}
    others.pop(name, None)
    plain, changed = Source(path), Source(path, None if tuned is None else str(tuned), blend)
    if changed == plain:
        return {name: plain, **others}
    return {f"{name} ({'blended' if tuned is None else 'tuned'})": changed, name: plain, **others}


def bound(config) -> object:
    """Returns the socket of the server.

    Raises:
        UserError: the port is taken, or the address is not of this machine.
    """
    import socket

    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((config.host, config.port))
    except OSError as error:
        raise UserError(
            f"Cannot serve on {config.host} port {config.port}: {error.strerror}. Choose another --port."
        ) from error
    return found


if __name__ == "__main__":
    main()
