"""Texts made from the templates that ship with the package."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import plural

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent / "templates"
"""The texts that cards, reports and new recipes are made from."""


def template(name: str, filters: Mapping[str, Callable[..., Any]] | None = None, **options: Any) -> "jinja2.Template":
    """A template by its file's name; values in HTML and SVG are escaped, a name that is missing is an error.

    `filters` come beside those that all have; `options` are jinja's own.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=name.endswith((".html.jinja", ".svg.jinja")),
        **options,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {"plural": plural, "python": as_python, "cell": cell} | dict(filters or {})
    return environment.get_template(name)


def as_python(text: str) -> str:
    """A text as Python code, which a JSON text is too."""
    return json.dumps(text, ensure_ascii=False)


def cell(text: object) -> str:
    """A text for a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")
