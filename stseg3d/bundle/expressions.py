"""Python expressions in configs (``"$..."``): what they name and call, read from their syntax and never run."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

from stseg3d.bundle.allowed import MODULES, fetches, is_allowed

# MONAI writes a reference `@id` as an entry of this before it evaluates.
REFERENCES = "__local_refs"

BUILTINS = frozenset(
    (
        *("abs", "all", "any", "bool", "dict", "enumerate", "float", "int", "len", "list", "max", "min"),
        *("range", "reversed", "round", "set", "sorted", "str", "sum", "tuple", "zip"),
    )
)
# Of any object; what is not here may lead out of a computation (`format`, `replace`, `write_text`, the frames of a generator).
METHODS = frozenset(
    (
        *("active_parameters", "as_dict", "cpu", "cuda", "double", "endswith", "eval", "exists", "float", "get", "half", "index", "is_dir"),
        *("is_file", "items", "join", "keys", "lower", "named_parameters", "parameters", "run", "split", "startswith", "state_dict"),
        *("strip", "to", "tolist", "train", "upper", "values"),
    )
)
ATTRIBUTES = frozenset(
    (
        *("affine", "dataset", "device", "epoch", "in_channels", "iteration", "labels", "max_epochs", "meta", "name", "network"),
        *("out_channels", "parent", "shape", "size", "spacing_mm", "state", "stem", "test", "training", "type", "validation"),
    )
)
SYNTAX = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Call, ast.keyword, ast.Starred),
    *(ast.List, ast.Tuple, ast.Set, ast.Dict, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension),
    *(ast.Lambda, ast.arguments, ast.arg, ast.JoinedStr, ast.FormattedValue, ast.IfExp, ast.BoolOp, ast.Compare),
    *(ast.UnaryOp, ast.BinOp, ast.expr_context, ast.boolop, ast.cmpop, ast.unaryop),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod),
)


def read_import(text: str) -> tuple[str, str] | None:
    """The name that an import binds and what it stands for, dotted; None if the text is no import.

    Raises:
        ValueError: If it imports several things or from somewhere relative, or hides a name that expressions know.
    """
    statements = ast.parse(text).body
    node = statements[0] if statements else None
    if not isinstance(node, ast.Import | ast.ImportFrom):
        return None
    if len(statements) > 1 or len(node.names) > 1 or (isinstance(node, ast.ImportFrom) and node.level):
        msg = "more than one import"
        raise ValueError(msg)
    alias = node.names[0]
    path = alias.name if isinstance(node, ast.Import) else f"{node.module}.{alias.name}"
    name = alias.asname or alias.name
    if name in BUILTINS or MODULES.get(name, path) != path or name.startswith("_"):
        msg = f"{path} as {name}"
        raise ValueError(msg)
    return name, path


def find_calls(text: str, imported: Mapping[str, str]) -> list[str]:
    """What an expression names, calls or does that is not allowed; empty if all is.

    Args:
        text: The expression as MONAI evaluates it, its references written out.
        imported: Names that imports bind, and what they stand for.
    """
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ["something that is not a Python expression"]
    visitor = _Visitor(imported, tree)
    visitor.visit(tree)
    return visitor.found


class _Visitor(ast.NodeVisitor):
    """Collects what is not allowed; parameters of lambdas and targets of comprehensions are names of their own."""

    def __init__(self, imported: Mapping[str, str], tree: ast.AST) -> None:
        self.names = MODULES | dict(imported)
        self.locals = set(_bound(tree))
        hidden = sorted(name for name in self.locals if name in self.names or name in BUILTINS or name.startswith("_"))
        self.found = [f"{name} for something else" for name in hidden]

    def generic_visit(self, node: ast.AST) -> None:
        if not isinstance(node, SYNTAX) or (isinstance(node, ast.comprehension) and node.is_async):
            self.found.append(type(node).__name__)
            return
        super().generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in self.locals or node.id in BUILTINS:
            return
        path = self.names.get(node.id)
        if path is None or not is_allowed(path):
            self.found.append(path or node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        path = self._path(node)
        if path:
            self.found += [] if is_allowed(path) else [path]
        else:
            self.visit(node.value)
            self.found += [] if node.attr in ATTRIBUTES else [f".{node.attr}"]

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.value, ast.Name) and node.value.id == REFERENCES and isinstance(node.slice, ast.Constant):
            return
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        called, path = node.func, self._path(node.func)
        if path == "importlib.util.find_spec":
            # Of `a.b` it imports `a`, so only of a plain name.
            name = node.args[0] if len(node.args) == 1 and not node.keywords else None
            plain = isinstance(name, ast.Constant) and isinstance(name.value, str) and name.value.isidentifier()
            self.found += [] if plain else [path]
            return
        if path:
            self._check_function(path, node.keywords)
        elif isinstance(called, ast.Attribute):
            self.visit(called.value)
            self.found += [] if called.attr in METHODS else [f".{called.attr}()"]
        elif isinstance(called, ast.Name) and called.id not in self.locals:
            self.visit(called)
        else:  # a value, whatever it is
            self.found.append(f"{ast.unparse(called)}()")
        self.found += ["** arguments" for keyword in node.keywords if keyword.arg is None]
        for argument in (*node.args, *node.keywords):
            self.visit(argument)

    def _check_function(self, path: str, keywords: Iterable[ast.keyword]) -> None:
        if not is_allowed(path):
            self.found.append(path)
            return
        given = {k.arg: k.value.value if isinstance(k.value, ast.Constant) else True for k in keywords if k.arg}
        fetched = fetches(path, given)
        self.found += [f"{path} with {fetched}"] if fetched else []

    def _path(self, node: ast.expr) -> str:
        """Dotted name of a module's attribute, or of what is imported; empty for attributes of values."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id in self.locals or node.id not in self.names:
            return ""
        return ".".join([self.names[node.id], *reversed(parts)])


def _bound(tree: ast.AST) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
