"""From a Jinja2 template of `apps` to a page in one file that needs no network."""

from pathlib import Path
from typing import Any

import jinja2

from apps import files
from apps.console import duration, percent

FOLDER = Path(__file__).resolve().parent.parent


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write a page, whole or not at all.

    Args:
        path: The file.
        template: Its name below `apps`, such as "report/report.html.jinja"; it extends "pages/base.html.jinja".
        values: What the template asks for; one that it does not get is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, duration=duration, count=count)
    files.write_text(path, environment.get_template(template).render(**values))


def count(number: int) -> str:
    """A number of things, with commas.

    >>> count(1437)
    '1,437'
    """
    return f"{number:,}"
