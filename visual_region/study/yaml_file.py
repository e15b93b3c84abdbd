"""Reading a YAML file: each key is read once, and everything that is wrong is found at once, with the key's path."""

import shlex
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from llava.names import close, did_you_mean
from llava.reading import read_text

T = TypeVar("T")
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
"""The tags of a text, and of the key <<."""
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class PlanError(ValueError):
    """A plan of a study that cannot be run; the message names the path of every wrong key."""


class _Loader(yaml.SafeLoader):
    """YAML's plain values. A key that a mapping has twice is an error, where PyYAML takes the last one.

    A key is its text: a row may be named 8, and a variable ON.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == _MERGE:
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is a text", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def resolve(self, kind: type, value: str, implicit: Any) -> str:
        """PyYAML reads 8:16 as 8 x 60 + 16; here it is a text, such as a selection of layers."""
        tag = super().resolve(kind, value, implicit)
        return _TEXT if tag in _NUMBERS and ":" in value else tag

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        for key, _ in node.value:
            key.tag = _TEXT


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping of a YAML file; raises `PlanError` that names line and column."""
    text = read_text(path, "plan", PlanError)
    try:
        values = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        why = getattr(error, "problem", None) or str(error)
        raise PlanError(f"plan {path}{where} is not valid YAML: {why}") from error
    if not isinstance(values, dict):
        raise PlanError(f"plan {path} is no mapping of keys to values; plans/ has examples")
    return values


def with_changes(values: Mapping[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """The values with `KEY.KEY=VALUE` set, VALUE in YAML; raises `PlanError` for all changes that cannot be made."""
    changed, problems = dict(values), []
    for change in changes:
        path, equals, text = change.partition("=")
        *parents, last = path.split(".")
        place = changed
        for key in parents:
            inner = place.get(key)
            place[key] = dict(inner) if isinstance(inner, Mapping) else {} if inner is None else inner
            place = place[key]
            if not isinstance(place, dict):
                problems.append(f"--set {change}: {key} is no mapping in the plan, but {inner!r}")
                break
        else:
            try:
                place[last] = yaml.load(text, _Loader)
            except yaml.YAMLError:
                place[last] = text
        if not equals or not all((*parents, last)):
            problems.append(f"--set {change}: write KEY=VALUE or KEY.KEY=VALUE, such as --set seeds=[0,1,2]")
    if problems:
        raise PlanError("\n".join(problems))
    return changed


class Section:
    """A mapping of the file; `problems` collects what is wrong in it."""

    def __init__(self, values: Any, problems: list[str], path: str = "") -> None:
        self.path, self.problems, self._known = path, problems, []
        wrong = values is not None and not isinstance(values, Mapping)
        if wrong:
            self.wrong("", f"a mapping of keys to values is needed, not {values!r}")
        self.values: Mapping[Any, Any] = {} if wrong or values is None else values

    def wrong(self, key: str, why: str) -> None:
        path = ".".join(filter(None, (self.path, key)))
        self.problems.append(f"{path}: {why}" if path else why)

    def read(self, key: str, kind: Callable[[Any], T], default: Any = None, needed: bool = False) -> T:
        """The value of a key, by a function that raises `ValueError` for a wrong one."""
        self._known.append(key)
        if key not in self.values:
            if needed:
                self.wrong(key, "is missing")
            return default
        try:
            return kind(self.values[key])
        except ValueError as error:
            self.wrong(key, str(error))
            return default

    def section(self, key: str) -> "Section":
        self._known.append(key)
        return Section(self.values.get(key), self.problems, ".".join(filter(None, (self.path, key))))

    def each(self, key: str, known: Collection[str] | None = None, what: str = "key") -> "dict[str, Section]":
        """The mappings of a mapping, by name; `known`: the names that may be there."""
        outer = self.section(key)
        names = [str(name) for name in outer.values]
        for name in names:
            if known is not None and name not in known:
                outer.wrong(name, unknown(what, name, known))
        return {name: outer.section(name) for name in names if known is None or name in known}

    def end(self) -> None:
        """Reports the keys that nothing has read."""
        for key in self.values:
            if key not in self._known:
                self.wrong(str(key), unknown("key", str(key), self._known))


def unknown(what: str, name: str, known: Collection[str]) -> str:
    """ "there is no row 'x'; did you mean 'y'?", or the list of what there is."""
    hint = did_you_mean(*close(name, known)) or f"; there are {', '.join(known) or 'none'}"
    return f"there is no {what} {name!r}{hint}"


def text(value: Any) -> str:
    if value is None or isinstance(value, Mapping | list) or not str(value).strip():
        raise ValueError(f"text is needed, not {value!r}")
    return str(value).strip()


def words(value: Any) -> tuple[str, ...]:
    """Words of a command: a list, or one text that is split as the shell does."""
    if isinstance(value, list):
        return tuple(map(text, value))
    try:
        return tuple(shlex.split("" if value is None else str(value)))
    except ValueError as error:
        raise ValueError(f"{value!r} cannot be split into words ({error})") from error


def environment(value: Any) -> dict[str, str]:
    """Environment variables; nothing is the empty text, as in NAME= of a shell."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"a mapping of variables to values is needed, not {value!r}")
    wrong = [str(name) for name, inner in value.items() if isinstance(inner, Mapping | list)]
    if wrong:
        raise ValueError(f"a variable is one text or number: {', '.join(wrong)}")
    return {str(name): "" if inner is None else str(inner) for name, inner in value.items()}


def whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"a whole number from 0 on is needed, not {value!r}")
    return value


def positive(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ValueError(f"a number above 0 is needed, not {value!r}")
    return value


def yes_or_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"true or false is needed, not {value!r}")
    return value


def several(kind: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    """A list without repetitions, of at least one."""

    def read(value: Any) -> tuple[T, ...]:
        found = tuple(map(kind, value)) if isinstance(value, list) else ()
        if not found:
            raise ValueError(f"a list is needed, such as [a, b], not {value!r}")
        if twice := sorted({str(one) for one in found if found.count(one) > 1}):
            raise ValueError(f"{', '.join(twice)} is there twice")
        return found

    return read
