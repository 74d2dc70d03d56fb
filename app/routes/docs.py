"""`GET /docs`: the OpenAPI document as a page."""

import base64
import hashlib
import re

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from app.headers import page_policy

router = APIRouter()

# An empty picture, so that the browser asks nobody for one.
_NO_ICON = "data:,"


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """Swagger UI, which the browser fetches from where the framework's page says; nothing else."""
    app = request.app
    page = get_swagger_ui_html(
        openapi_url=app.openapi_url, title=f"{app.title}: API", swagger_favicon_url=_NO_ICON
    )
    return HTMLResponse(
        page.body, headers={"Content-Security-Policy": _policy(bytes(page.body).decode())}
    )


def _policy(page: str) -> str:
    """Allows exactly the scripts and styles that stand in the page, and requests to ourselves."""
    scripts = re.findall(r'<script src="([^"]+)"', page)
    inline = re.findall(r"<script>(.*?)</script>", page, re.S)
    styles = re.findall(r'<link[^>]+rel="stylesheet"[^>]+href="([^"]+)"', page)
    return page_policy(
        {
            "script-src": [*scripts, *(_hash(script) for script in inline)],
            # Swagger UI sets the style attributes of what it draws.
            "style-src": [*styles, "'unsafe-inline'"],
            # It shows an answer that is an image by an address of its own making.
            "img-src": ["data:", "blob:"],
            "connect-src": ["'self'"],
        }
    )


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
