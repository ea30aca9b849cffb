"""A recipe's source text with commits in the place of branches."""

import ast
import io

from hf_finetune.errors import RecipeError


def pinned_source(source: str, class_name: str, commits: dict[str, str]) -> str:
    """The source with `base_model_revision` and the `revision=` of its HubDataset set to `commits`; all else as it was.

    Raises:
        RecipeError: when the class does not name its base model and data set by plain assignments.
    """
    body = next(
        (n.body for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ClassDef) and n.name == class_name),
        [],
    )
    assigned = {
        target.id: node
        for node in body
        for target in (node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)])
        if isinstance(target, ast.Name)
    }
    edits = []
    if "base_model_revision" in commits:
        line_end = "\r\n" if "\r\n" in source else "\n"
        edits.append(_base_model_edit(assigned, commits["base_model_revision"], line_end))
    if "revision" in commits:
        edits.append(_dataset_edit(assigned, commits["revision"]))
    edited = _edited(source, edits)
    try:
        ast.parse(edited)
    except SyntaxError as error:
        raise RecipeError("pin: the file is written so that it cannot be edited. Write revision= by hand.") from error
    return edited


Edit = tuple[int, int, int, int, str]
"""From line and byte column to line and byte column (lines from 1, columns from 0), and the text that goes there."""


def _base_model_edit(assigned: dict[str, ast.stmt], commit: str, line_end: str) -> Edit:
    own = getattr(assigned.get("base_model_revision"), "value", None)
    if own is not None:
        return _replacing(own, f'"{commit}"')
    base = assigned.get("base_model")
    if base is None or base.end_lineno is None:
        raise RecipeError("pin: the class has no line base_model = ... to pin. Write one.")
    below = base.end_lineno + 1  # a comment behind the value stays where it is
    return below, 0, below, 0, f'{" " * base.col_offset}base_model_revision = "{commit}"{line_end}'


def _dataset_edit(assigned: dict[str, ast.stmt], commit: str) -> Edit:
    call = getattr(assigned.get("dataset"), "value", None)
    if not isinstance(call, ast.Call):
        raise RecipeError("pin: the class has no line dataset = HubDataset(...) to pin. Write one.")
    given = next((keyword.value for keyword in call.keywords if keyword.arg == "revision"), None)
    if given is not None:
        return _replacing(given, f'"{commit}"')
    if len(call.args) > 1:
        return _replacing(call.args[1], f'"{commit}"')
    first = call.args[0] if call.args else call.keywords[0].value
    line, column = first.end_lineno or first.lineno, first.end_col_offset or first.col_offset
    return line, column, line, column, f', revision="{commit}"'


def _replacing(node: ast.expr, text: str) -> Edit:
    return node.lineno, node.col_offset, node.end_lineno or node.lineno, node.end_col_offset or 0, text


def _edited(source: str, edits: list[Edit]) -> str:
    # Not splitlines(): it also breaks where Python ends no line, at a form feed or U+2028 in a docstring.
    lines = [line.encode() for line in io.StringIO(source, newline="")]
    starts = [sum(map(len, lines[:index])) for index in range(len(lines) + 1)]
    text = source.encode()
    for first_line, first_column, last_line, last_column, new in sorted(edits, reverse=True):
        begin, end = starts[first_line - 1] + first_column, starts[last_line - 1] + last_column
        text = text[:begin] + new.encode() + text[end:]
    return text.decode()
