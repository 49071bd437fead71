"""Options of a command: read by tyro from the fields of a data class, whose docstrings are their help.

tyro keeps the line breaks of a docstring whose lines are indented, and shows a default of None beside a text that says
what no value means. So the fields are described to it here: each text is one paragraph, and None goes without saying.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import pathlib
import textwrap
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import tyro
from tyro.constructors import (
    MISSING,
    MISSING_NONPROP,
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from fsnn_lava.cli import COMMANDS
from fsnn_lava.cli.script import command_line

Options = TypeVar("Options")


def read_options(
    kind: type[Options], argv: Sequence[str], *, command: str, description: str, default: Options | None = None
) -> Options:
    """Read a command's options; --help and what cannot be read end the program, as they do with tyro.

    Parameters
    ----------
    command : subcommand of ``fsnn``, or how another program is started.
    kind : data class of the options; the docstring under a field is its help. A field whose default is None must say
        in its help what no value means.
    description : paragraphs that --help shows first, with an empty line between them.
    default : options that are not given; None: the fields' defaults.
    """
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in description.split("\n\n"))
    program = command_line(command) if command in COMMANDS else command
    with _REGISTRY:
        if default is None:
            return tyro.cli(kind, args=argv, description=text, prog=program)
        return tyro.cli(kind, args=argv, default=default, description=text, prog=program)


_REGISTRY = ConstructorRegistry()
_NAMES = {pathlib.Path: "PATH", str: "STR", int: "INT", float: "FLOAT"}


@_REGISTRY.struct_rule
def _described(info: StructTypeInfo) -> StructConstructorSpec | None:
    """A data class as tyro takes it, its fields with their types, defaults and texts."""
    if not dataclasses.is_dataclass(info.type):
        return None
    hints = typing.get_type_hints(info.type, include_extras=True)
    fields = []
    for field in dataclasses.fields(info.type):
        default, kind = _default(field, info.default), hints[field.name]
        if default is None:
            kind = Annotated[kind, tyro.conf.arg(metavar=_metavar(kind), help_behavior_hint="")]
        text = _texts(info.type).get(field.name)
        fields.append(StructFieldSpec(name=field.name, type=kind, default=default, helptext=text))
    return StructConstructorSpec(instantiate=info.type, fields=tuple(fields))


def _default(field: dataclasses.Field[Any], whole: Any) -> Any:
    """The field's value in the default of the whole data class, or else its own default."""
    if whole is not MISSING and whole is not MISSING_NONPROP:
        return getattr(whole, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return MISSING_NONPROP if field.default is dataclasses.MISSING else field.default


def _metavar(kind: Any) -> str | None:
    """How --help writes a value of this type, which may also be None; None: as tyro does."""
    if typing.get_origin(kind) is Annotated:
        plain, *marks = typing.get_args(kind)
        return f"[{_metavar(plain)}]" if tyro.conf.Positional in marks else _metavar(plain)
    others = [k for k in typing.get_args(kind) if k is not types.NoneType]
    if len(others) != 1:
        return None
    if typing.get_origin(others[0]) is typing.Literal:
        return f"{{{','.join(map(str, typing.get_args(others[0])))}}}"
    if typing.get_origin(others[0]) is tuple:
        choices = typing.get_args(typing.get_args(others[0])[0])
        return f"{{{','.join(choices)}}} ..." if choices else None
    return _NAMES.get(others[0])


@functools.cache
def _texts(kind: type) -> dict[str, str]:
    """Field -> the docstring under it, without its line breaks; those of inherited fields too."""
    texts = {}
    for base in reversed([base for base in kind.__mro__ if dataclasses.is_dataclass(base)]):
        definition = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(definition, ast.ClassDef)
        for field, below in itertools.pairwise(definition.body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[name] = " ".join(text.split())
    return texts
