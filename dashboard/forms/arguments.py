"""Pure: the options of an action as fields of its preview's form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from monitors.action import RESET, Action, Kind, Parameter
from monitors.models import Target

TOAST = "toast."


@dataclass(frozen=True)
class Field:
    """One option: its control, its value, and what to know of it."""

    name: str
    control: str
    """`check`, `select` or `text`."""
    value: str
    choices: list[tuple[str, str]]
    hint: str
    lacks: str
    """Why the server has no such option, '' where it has."""


def option_groups(
    kind: Action, arguments: Mapping[str, Any], target: Target | None
) -> list[tuple[str, list[Field]]]:
    """Return [(heading, fields)] of an action's options; '' heads the first group."""
    major = target.major if target else None
    fields = [field_of(one, arguments, major) for one in kind.options]
    own = [field for field in fields if not field.name.startswith(TOAST)]
    toast = [field for field in fields if field.name.startswith(TOAST)]
    return [group for group in [("", own), ("TOAST table", toast)] if group[1]]


def field_of(parameter: Parameter, arguments: Mapping[str, Any], major: int | None) -> Field:
    """Return one option as a field."""
    control = {Kind.BOOL: "check", Kind.CHOICE: "select"}.get(parameter.kind, "text")
    lacks = major is not None and parameter.since > major
    return Field(
        name=parameter.name,
        control=control,
        value=str(arguments.get(parameter.name, "")),
        choices=choices_of(parameter),
        hint=hint_of(parameter),
        lacks=f"PostgreSQL {parameter.since} and newer" if lacks else "",
    )


def choices_of(parameter: Parameter) -> list[tuple[str, str]]:
    """Return (value, text) of what a select offers."""
    words = [(word, word) for word in parameter.choices]
    if parameter.default:
        return words
    nothing = "leave as it is" if parameter.resets else "as the server decides"
    return [
        ("", nothing),
        *words,
        *([(RESET, "reset to the server's")] if parameter.resets else []),
    ]


def hint_of(parameter: Parameter) -> str:
    """Return what an option is and takes: `rows inserted; 0 to 100, or reset`."""
    takes = parameter.bounds
    if takes and parameter.resets:
        takes = f"{takes}, or {RESET}"
    hint = f"{parameter.help}; {takes}" if takes else parameter.help
    return f"{hint[:1].upper()}{hint[1:]}."


def kept_arguments(kind: Action | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that name the object, which options don't change."""
    options = {parameter.name for parameter in kind.options} if kind else set()
    return {name: text for name, text in arguments.items() if name not in options}


def posted_arguments(posted: Mapping[str, str], parameters: Iterable[Parameter]) -> dict[str, str]:
    """Return a posted form's values of parameters; a ticked box says true, an empty field nothing."""
    found = {}
    for parameter in parameters:
        value = posted.get(parameter.name, "")
        if value:
            is_ticked = parameter.kind == Kind.BOOL and value == "on"
            found[parameter.name] = "true" if is_ticked else value
    return found
