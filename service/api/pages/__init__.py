"""The pages: one to drop an image on, and /openapi.json made readable. They load nothing from another host."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

FOLDER = Path(__file__).parent
HEADERS = {"Content-Security-Policy": "default-src 'self' 'unsafe-inline'; img-src 'self' blob: data:"}

router = APIRouter()


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def front_page() -> HTMLResponse:
    """A page to drop an image on."""
    return _page("index.html")


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
async def docs_page() -> HTMLResponse:
    """/openapi.json made readable, without anything from another host."""
    return _page("docs.html")


def _page(name: str) -> HTMLResponse:
    return HTMLResponse((FOLDER / name).read_text(encoding="utf-8"), headers=HEADERS)
