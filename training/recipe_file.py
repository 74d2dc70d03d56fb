"""Recipe files: a whole recipe in TOML, every setting with its meaning, for people to edit.

TOML has no null: a setting that may be none is left out to say so.
"""

import dataclasses
import json
import tomllib
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from training.recipes import Recipe, recipe_of, settings_of

SUFFIX = ".toml"


def read_recipe(path: Path) -> Recipe:
    """The recipe of a file.

    Raises:
        ValueError: the file is unreadable or no TOML, or a setting is missing, unknown or of
            another type; the message names the file and the setting.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # also what is not UTF-8
        raise ValueError(f"{path}: is no TOML: {error}") from error
    try:
        return recipe_of(_with_nulls(Recipe, document))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def recipe_text(recipe: Recipe) -> str:
    """The recipe as a commented file."""
    lines = [
        "# A recipe of limbeck-train: limbeck-train run <this file> --data <folder>",
        "# Every setting is here, and none may be missing. The bundle's manifest keeps them all.",
        "",
        *_lines(Recipe, settings_of(recipe), ""),
    ]
    return "\n".join(lines) + "\n"


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write a commented recipe file.

    Raises:
        ValueError: there is a file already; it may hold somebody's work.
    """
    if path.suffix != SUFFIX:
        raise ValueError(f"{path}: a recipe file's name ends with {SUFFIX}")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(recipe_text(recipe))
    except FileExistsError:
        raise ValueError(f"{path} is there already; it was left as it is") from None


def meanings(settings: type) -> dict[str, str]:
    """What each setting of a dataclass of settings means."""
    hints = get_type_hints(settings, include_extras=True)
    return {
        name: get_args(hint)[1] if get_origin(hint) is Annotated else ""
        for name, hint in hints.items()
    }


def _lines(wanted: type, values: Mapping[str, Any], path: str) -> Iterator[str]:
    """Plain settings first, as TOML wants it, then each table."""
    hints, said = get_type_hints(wanted), meanings(wanted)
    tables = {name: table for name, hint in hints.items() if (table := _table(hint))}
    for name, value in values.items():
        if name not in tables and value is None:
            yield f"# {name} is left out  # {said[name]}"
        elif name not in tables:
            yield f"{name} = {json.dumps(value)}  # {said[name]}"
        elif value is None:
            yield f"# [{path}{name}] is left out  # {said[name]}"
    for name, table in tables.items():
        if values[name] is not None:
            yield ""
            yield f"# {(table.__doc__ or '').splitlines()[0]}"
            yield f"[{path}{name}]  # {said[name]}"
            yield from _lines(table, values[name], f"{path}{name}.")


def _with_nulls(wanted: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with null where one that may be none is left out."""
    whole = dict(values)
    for name, hint in get_type_hints(wanted).items():
        if _optional(hint):
            whole.setdefault(name, None)
        table = _table(hint)
        if table and isinstance(whole.get(name), Mapping):
            whole[name] = _with_nulls(table, whole[name])
    return whole


def _optional(hint: Any) -> bool:
    """Whether the setting may be none."""
    return get_origin(hint) is types.UnionType and type(None) in get_args(hint)


def _table(hint: Any) -> type | None:
    """The dataclass of a setting that is a table; None for a plain setting."""
    candidates = get_args(hint) if _optional(hint) else (hint,)
    for candidate in candidates:
        if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
            return candidate
    return None
