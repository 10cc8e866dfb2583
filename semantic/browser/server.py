"""The server of the editor: routes, checks of requests, and headers."""

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dnnlib import UserError
from semantic.browser.desk import Desk
from semantic.browser.session import MAX_SESSION_FILE, MAX_UPLOAD, Session
from semantic.browser.work import Overtaken

try:
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
except ModuleNotFoundError as error:
    raise UserError(f"To use the editor, install {error.name}: pip install 'semantic-stylegan[web]'") from error

STATIC = Path(__file__).parent / "static"
SCRIPTS = (
    "api", "app", "blend", "controls", "dom", "donors", "face", "files", "history", "keys", "messages", "network",
    "photo", "pictures", "pointer", "regions", "requests", "scene", "session", "stage", "state", "widgets",
)  # fmt: skip
FILES = (*(f"{name}.js" for name in SCRIPTS), "style.css", "icon.svg", "lock.svg")
KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""Kinds of the files. They do not depend on the system's list, which names scripts differently from one to another."""
MAX_JSON = 1 << 20
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class TooLarge(UserError):
    """A request has more bytes than it may have."""


def create_app(desk: Desk, hosts: tuple[str, ...]) -> FastAPI:
    """Returns the web application.

    Args:
        desk: object that does the work of the routes.
        hosts: allowed host names of the server, without port. A request for another name is refused. So a foreign page
            cannot reach the server through its own host name. Lower case. Empty allows all names.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPI(title="Semantic StyleGAN editor", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        refusal = refused(request, hosts)
        response = JSONResponse({"error": refusal}, 403) if refusal else await call_next(request)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(UserError)
    async def explain(request: Request, error: UserError) -> JSONResponse:
        message = error.message.encode(errors="replace").decode()  # text from JSON may hold halves of characters
        return JSONResponse({"error": message}, 413 if isinstance(error, TooLarge) else 400)

    @app.exception_handler(Overtaken)
    async def overtaken(request: Request, error: Overtaken) -> JSONResponse:
        return JSONResponse({"error": "A newer picture was asked for."}, 409)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> JSONResponse:
        message = "The server met an unexpected error. Its terminal shows the error."
        return JSONResponse({"error": message}, 500, headers=HEADERS)  # this answer does not pass `guard`

    @app.get("/")
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/static/{name}")
    async def static(name: str) -> Response:
        if name not in FILES:
            return JSONResponse({"error": "There is no such file."}, 404)
        return FileResponse(STATIC / name, media_type=KINDS[Path(name).suffix])

    @app.post("/api/session")
    async def session(request: Request) -> dict[str, Any]:
        data = await read_json(request)
        return {**await desk.begin(data.get("network")), "max_upload": MAX_UPLOAD}

    @app.post("/api/view")
    async def view(request: Request) -> dict[str, Any]:
        session, data = session_of(request), await read_json(request)
        turn = data.get("turn")
        if isinstance(turn, bool) or not isinstance(turn, int) or not 0 <= turn < 2**53:
            raise UserError("The page must send the number of its request.")
        work = desk.draw, session, data.get("scene"), data.get("preview") is True
        return await desk.workshop.run_newest(session, turn, *work)

    @app.post("/api/faces")
    async def faces(request: Request) -> dict[str, Any]:
        session, data = session_of(request), await read_json(request)
        return await desk.workshop.run(desk.faces, session, data.get("seeds"), data.get("psi"), data.get("label", 0))

    @app.post("/api/mask")
    async def mask(request: Request) -> Response:
        return await file(request, desk.mask_file, "image/png")

    @app.post("/api/latents")
    async def latents(request: Request) -> Response:
        return await file(request, desk.latents_file, "application/octet-stream")

    @app.post("/api/latents/base")
    async def base_latents(request: Request) -> Response:
        return await file(request, desk.base_latents_file, "application/octet-stream")

    @app.post("/api/blend")
    async def blend(request: Request) -> Response:
        return await file(request, desk.blended, "image/png")

    @app.post("/api/directions/file")
    async def directions_file(request: Request) -> Response:
        return await file(request, desk.directions_file, "application/octet-stream")

    async def file(request: Request, work: Callable[..., bytes], kind: str) -> Response:
        session, data = session_of(request), await read_json(request)
        return Response(await desk.workshop.run(work, session, data), media_type=kind)

    @app.post("/api/directions")
    async def directions(request: Request) -> StreamingResponse:
        session, data = session_of(request), await read_json(request)
        return lines(desk.find_directions(session, data.get("region")))

    @app.post("/api/photo")
    async def photo(request: Request) -> StreamingResponse:
        session = session_of(request)
        return lines(desk.open_photo(session, await read(request, MAX_UPLOAD, "A photo")))

    @app.post("/api/session/save")
    async def save(request: Request) -> dict[str, Any]:
        session, data = session_of(request), await read_json(request)
        return await desk.workshop.run(desk.save_session, session, data.get("scenes"))

    @app.post("/api/session/open")
    async def open_session(request: Request) -> dict[str, Any]:
        session, data = session_of(request), await read_json(request, MAX_SESSION_FILE)
        return await desk.open_session(session, data.get("kept"))

    def session_of(request: Request) -> Session:
        return desk.sessions.get(request.headers.get("x-session"))

    return app


def refused(request: Request, hosts: tuple[str, ...]) -> str | None:
    """Returns why a request is refused: it names another host, or comes from another site's page.

    Returns None for an accepted request.
    """
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    try:
        name = urlsplit(f"//{host}").hostname or ""
        place = host if origin is None else urlsplit(origin).netloc
    except ValueError:
        return "The browser sent an address that cannot be read."
    if hosts and name not in hosts:
        return "This server does not answer under that name."
    if place != host:
        return "Requests from pages of other sites are refused."
    if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return "Requests from pages of other sites are refused."
    return None


async def read(request: Request, limit: int, what: str) -> bytes:
    """Returns the body of a request.

    Raises:
        TooLarge: the body has more bytes than `limit`. At most this number of bytes is read.
    """
    message = f"{what} may have {limit >> 20} MB at most. Choose a smaller file."
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise TooLarge(message)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise TooLarge(message)
        parts.append(part)
    return b"".join(parts)


async def read_json(request: Request, limit: int = MAX_JSON) -> dict[str, Any]:
    """Returns the JSON object in the body of a request.

    Raises:
        UserError: there is none.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise UserError("The request must be JSON.")
    try:
        data = json.loads(await read(request, limit, "A request"))
    except (ValueError, RecursionError) as error:
        raise UserError("The request is not JSON.") from error
    if not isinstance(data, dict):
        raise UserError("The request must be a JSON object.")
    return data


def lines(found: AsyncIterator[dict[str, Any]]) -> StreamingResponse:
    """Returns objects as they come, each as one line of JSON. An error comes last."""

    async def encoded() -> AsyncIterator[bytes]:
        try:
            async for item in found:
                yield json.dumps(item).encode() + b"\n"
        except UserError as error:
            yield json.dumps({"error": error.message}).encode() + b"\n"

    return StreamingResponse(encoded(), media_type="application/x-ndjson")
