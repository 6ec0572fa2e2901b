"""A rule on the features of a component, as a user writes it in the config (`ica.rule`).

The text is parsed, never executed: comparisons, `and`, `or`, `not`, `+ - * /`, numbers and the
names of the features. Anything else, a call above all, is refused when the config is read.
"""

from __future__ import annotations

import ast

#: What is measured of a component, each about 0 to 1.
FEATURES = ("edge_fract", "csf_fract", "max_RP_corr", "HFC", "variance_explained")

_LOGIC = (ast.BoolOp, ast.And, ast.Or, ast.Not)
_COMPARISONS = (ast.Compare, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
_ARITHMETIC = (ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.UnaryOp, ast.USub)
_ALLOWED = (*_LOGIC, *_COMPARISONS, *_ARITHMETIC, ast.Load)


def parse_rule(text: str) -> ast.expr:
    """The rule as a tree whose outcome is true (noise) or false; ValueError says what is wrong."""
    try:
        rule = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"the rule {text!r} cannot be read: {error}") from None
    for node in ast.walk(rule):
        if isinstance(node, ast.Name):
            if node.id not in FEATURES:
                raise ValueError(
                    f"the rule names {node.id!r}, which is none of {', '.join(FEATURES)}"
                )
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, bool) or not isinstance(node.value, int | float):
                raise ValueError(f"the rule holds {node.value!r}, which is no number")
        elif not isinstance(node, _ALLOWED):
            odd = ast.unparse(node) or type(node).__name__
            raise ValueError(
                f"the rule holds {odd!r}; it may hold comparisons, and, or, not, + - * /, numbers "
                "and features"
            )
    _check_kinds(rule)
    return rule


def _check_kinds(node: ast.expr) -> None:
    """Numbers are compared, outcomes of comparisons are joined: nothing else makes a rule."""
    if isinstance(node, ast.BoolOp):
        for part in node.values:
            _check_kinds(part)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _check_kinds(node.operand)
    elif isinstance(node, ast.Compare):
        for side in (node.left, *node.comparators):
            if any(isinstance(part, (*_LOGIC, ast.Compare)) for part in ast.walk(side)):
                raise ValueError(f"the rule compares {ast.unparse(side)!r}, which is no number")
    else:
        raise ValueError(f"{ast.unparse(node)!r} is a number, a rule must compare it with another")
