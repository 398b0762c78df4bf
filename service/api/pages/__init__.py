"""The pages: one to drop images on, and /openapi.json made readable. They load nothing from another host."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse

from service.problems import NotFound

FOLDER = Path(__file__).parent
SAMPLES = {path.name: path for path in sorted((FOLDER / "samples").iterdir()) if path.suffix in (".png", ".jpg")}
HEADERS = {"Content-Security-Policy": "default-src 'self' 'unsafe-inline'; img-src 'self' blob: data:"}

router = APIRouter()


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def front_page() -> HTMLResponse:
    """A page to drop images on."""
    return _page("index.html")


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
async def docs_page() -> HTMLResponse:
    """/openapi.json made readable, without anything from another host."""
    return _page("docs.html")


@router.get("/samples/{name}", response_class=FileResponse, include_in_schema=False)
async def sample(name: str) -> FileResponse:
    """An image to try the page with."""
    if name not in SAMPLES:
        raise NotFound(f"there is no sample {name[:100]!r}; there are {', '.join(SAMPLES)}")
    return FileResponse(SAMPLES[name])


def _page(name: str) -> HTMLResponse:
    return HTMLResponse((FOLDER / name).read_text(encoding="utf-8"), headers=HEADERS)
