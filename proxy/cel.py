"""Expressions of the Common Expression Language, compiled once and evaluated on plain values.

The only module that uses the library. An expression sees the declared variables, and nothing else of this
process. The library's budgets of iteration and recursion bound evaluation, and its regular expressions run in
linear time.

Source: https://github.com/cel-expr/cel-spec (language), `cel-expr-python` (the C++ implementation, bound).
"""

import re
from collections.abc import Mapping
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_strings

MAX_SOURCE_CHARACTERS = 2_000

_TYPES = {
    "bool": cel.Type.BOOL,
    "int": cel.Type.INT,
    "string": cel.Type.STRING,
    "strings": cel.Type.List(cel.Type.STRING),
    "map": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
}


class ExpressionError(ValueError):
    """An expression that cannot be compiled or evaluated; callers translate it into an error of their own."""


class CompiledExpression:
    """One compiled expression."""

    def __init__(self, source: str, program: Any) -> None:
        self._source = source
        self._program = program

    @property
    def kind(self) -> str:
        """Return the type of the result as far as known before evaluation: STRING, INT, LIST, DYN …"""
        return str(self._program.return_type().name()).partition("<")[0]

    def evaluate(self, data: Mapping[str, Any]) -> Any:
        """Evaluate; a variable that `data` lacks is an error only where it is read.

        Raises: ExpressionError, without any value of `data`.
        """
        try:
            result = self._program.eval(data=dict(data))
            failed, value = result.type().name() == "ERROR", result.plain_value()
        except (RuntimeError, TypeError, ValueError) as exc:
            raise ExpressionError(type(exc).__name__) from None
        if failed:
            raise ExpressionError(_reason(str(value), self._source))
        return value


class Environment:
    """The variables that expressions may use; names may contain dots, as in `user.name`."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        """Declare `variables` with their types: bool, int, string, strings, or map."""
        self._env = cel.NewEnv(
            variables={name: _TYPES[kind] for name, kind in variables.items()},
            extensions=[ext_strings.ExtStrings()],
        )

    def compile(self, source: str) -> CompiledExpression:
        """Compile and check types.

        Raises: ExpressionError with the problem and its place in the expression.
        """
        if len(source) > MAX_SOURCE_CHARACTERS:
            raise ExpressionError(f"an expression has at most {MAX_SOURCE_CHARACTERS} characters")
        try:
            return CompiledExpression(source, self._env.compile(source))
        except RuntimeError as exc:
            raise ExpressionError(_complaint(str(exc))) from None


def _complaint(text: str) -> str:
    """Return the first error of the compiler, without its decoration."""
    matched = re.search(r"ERROR: <input>:(\d+):(\d+): (.*)", text)
    if matched is None:
        return " ".join(text.removeprefix("INVALID_ARGUMENT: ").split("[INVALID_ARGUMENT]")[0].split())
    line, character, said = matched.groups()
    said = re.sub(r" \(in container '.*?'\)| expecting \{.*", "", said).strip()
    return f"{said} (line {line}, character {character})"


def _reason(text: str, source: str) -> str:
    """Return the kind of an evaluation error, and a key only when the expression itself contains it."""
    kind = text.partition(":")[0].lower().replace("_", " ")
    key = re.search(r'"([^"]+)"', text)
    return f"{kind}: {key[1]}" if key and key[1] in source else kind
