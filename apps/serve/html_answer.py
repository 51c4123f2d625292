"""A page that runs nothing and asks for nothing but what it carries itself, and the browser is told so."""

import base64
import hashlib
import re
from importlib.resources import files

from starlette.responses import HTMLResponse


def read_page(name: str) -> str:
    """A page of this package."""
    return files("apps.serve").joinpath(name).read_text(encoding="utf-8")


def html_answer(page: str) -> HTMLResponse:
    """The page, with a policy that lets in its own script and style, pictures of the reader, and this server alone.

    Source: Content Security Policy Level 3, https://www.w3.org/TR/CSP3/
    """
    policy = (
        f"default-src 'none'; script-src {_hashes('script', page)}; style-src {_hashes('style', page)}; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return HTMLResponse(page, headers=headers)


def _hashes(tag: str, page: str) -> str:
    contents = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in contents]
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
