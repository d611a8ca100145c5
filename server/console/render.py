"""Turns templates into pages: one Jinja environment per language, everything escaped.

Also the words for what the API has as enums, so that templates hold no logic about protobuf.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from mailing.sending_hours import hours_text
from server.console import charts, words
from server.console.catalogues import translations_of
from server.console.viewer import LANGUAGES, Viewer, span

HERE = Path(__file__).parent
STATIC = HERE / "static"
FILES = ("console.css", "console.js", "vendor/htmx.min.js", "vendor/hx-sse.min.js", "icon.svg")


@cache
def environment_of(language: str) -> Environment:
    """Return the templates in a language."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n", "jinja2.ext.do"],
    )
    catalogue = translations_of(language)
    environment.install_gettext_translations(catalogue, newstyle=True)  # type: ignore[attr-defined]
    environment.globals |= {
        "asset": asset,
        "charts": charts,
        "hours_text": hours_text,
        "languages": LANGUAGES,
        "span": span,
        "words": words.Words(catalogue.gettext),
    }
    return environment


@cache
def asset(name: str) -> str:
    """Return the address of a static file, which changes with the file."""
    return f"/static/{name}?{sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"


def fragment(viewer: Viewer, name: str, context: dict[str, Any]) -> Markup:
    """Return one part of a page, as it stands in the page and as it is sent when it changes."""
    template = environment_of(viewer.language).get_template(f"fragments/{name}.html")
    return Markup(template.render(viewer=viewer, **context))  # noqa: S704 - the template escapes


def page(request: Request, viewer: Viewer, name: str, context: dict[str, Any], status: int = 200) -> HTMLResponse:
    """Return a whole page."""
    template = environment_of(viewer.language).get_template(name)
    return HTMLResponse(template.render(viewer=viewer, request=request, **context), status)
