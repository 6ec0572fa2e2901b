"""A table as Markdown, as LaTeX (booktabs) and as HTML; each escapes what it must."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

from .parts import Table, stem_of

#: What LaTeX would take for a command, and signs that its fonts have in mathematics alone.
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\n": " ",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "²": "$^2$",
    "³": "$^3$",
    "ρ": r"$\rho$",
    "κ": r"$\kappa$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "Δ": r"$\Delta$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "’": "'",
    "†": r"\dag{}",
    "*": r"$^*$",
}
#: A number, or what stands for one: such columns are set flush right.
_NUMBER = re.compile(r"^(?:n/a|[<>≤≥≈+−-]?\s*\.?\d)")


def numeric_columns(table: Table) -> tuple[bool, ...]:
    """Whether each column holds numbers."""
    return tuple(
        bool(cells := [row[column] for row in table.rows if row[column]])
        and all(_NUMBER.match(cell) for cell in cells)
        for column in range(len(table.columns))
    )


def to_markdown(table: Table) -> str:
    """A pipe table below its title; the best values bold, published ones in italics."""
    cells = _marked(table, _markdown, "**{}**".format, "*{}*".format)
    rules = ["---:" if number else "---" for number in numeric_columns(table)]
    lines = [[_markdown(column) for column in table.columns], rules, *cells]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    note = f"\n\n{_markdown(table.note)}" if table.note else ""
    return f"**{_markdown(table.title)}**\n\n{body}{note}\n"


def to_latex(table: Table) -> str:
    """A table float that needs the package booktabs alone."""
    cells = _marked(table, _latex, r"\textbf{{{}}}".format, r"\textit{{{}}}".format)
    columns = "".join("r" if number else "l" for number in numeric_columns(table))
    note = [rf"\par\smallskip{{\footnotesize {_latex(table.note)}}}"] if table.note else []
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(table.title)}}}",
        rf"\label{{tab:{stem_of(table.name)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(_latex(column) for column in table.columns) + r" \\",
        r"\midrule",
        *(" & ".join(line) + r" \\" for line in cells),
        r"\bottomrule",
        r"\end{tabular}",
        *note,
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def to_html(table: Table) -> str:
    """A figure with the table and its note, as it stands in the page."""
    cells = _marked(table, _html, '<span class="best">{}</span>'.format, "<i>{}</i>".format)
    kinds = [' class="num"' if number else "" for number in numeric_columns(table)]

    def line(tag: str, content: list[str]) -> str:
        pairs = zip(kinds, content, strict=True)
        return "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in pairs)

    head = line("th", [_html(column) for column in table.columns])
    classes = [' class="published"' if row in table.published else "" for row in range(len(cells))]
    body = [f"<tr{kind}>{line('td', row)}</tr>" for kind, row in zip(classes, cells, strict=True)]
    note = f'\n<p class="note">{_html(table.note)}</p>' if table.note else ""
    return (
        f'<div class="printed" id="{stem_of(table.name)}">\n<h3>{_html(table.title)}</h3>\n'
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(body)
        + f"\n</tbody>\n</table></div>{note}\n</div>"
    )


def _marked(
    table: Table,
    escape: Callable[[str], str],
    bold: Callable[[str], str],
    italic: Callable[[str], str],
) -> list[list[str]]:
    """The cells, escaped; the best bold, those of published rows in italics."""

    def cell(row: int, column: int) -> str:
        text = escape(table.rows[row][column])
        if not text:
            return text
        if (row, column) in table.best:
            return bold(text)
        return italic(text) if row in table.published else text

    return [
        [cell(row, column) for column in range(len(table.columns))]
        for row in range(len(table.rows))
    ]


def _markdown(text: str) -> str:
    return re.sub(r"([\\|*_`<\[\]])", r"\\\1", text).replace("\n", " ")


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _html(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")
