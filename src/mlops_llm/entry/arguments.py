"""What people type, in the form that Hydra reads."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass, field

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from mlops_llm.errors import UserError

_FLAGS_WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
                     "--experimental-rerun", "--info", "-i", "--shell-completion", "-sc"}  # fmt: skip
_FLAGS = {"--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m"}
_OPTIONAL_VALUE = {"--info", "-i", "--shell-completion", "-sc"}

_NO_EXPERIMENT = "+experiment@_global_="
"""What a project hands over whose parameter `experiment` was given no value."""
_OPEN = r"read\.columns(?=\.)|judge\.meanings|judge\.labels"
"""Settings whose keys the user names."""


@dataclass
class Arguments:
    """A command line, sorted."""

    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)

    @property
    def multirun(self) -> bool:
        """Whether a sweep was asked for."""
        return bool({"-m", "--multirun"} & set(self.flags)) or "hydra.mode=MULTIRUN" in self.overrides

    @property
    def help(self) -> bool:
        """Whether help was asked for."""
        return bool({"-h", "--help"} & set(self.flags))

    @property
    def informs(self) -> bool:
        """Whether Hydra only prints something (`--cfg`, `--info`, ...)."""
        return any(flag.startswith("-") and flag not in ("-m", "--multirun", "-r", "--run", "--resolve") for flag in self.flags)

    def value(self, key: str) -> str | None:
        """The last value given to a setting, quotes removed."""
        found = [item.partition("=")[2] for item in self.overrides if re.split("[@=]", item.lstrip("+~"))[0] == key]
        if not found or found[-1] in ("", "null"):
            return None
        if found[-1][:1] == "'":
            return str(OverridesParser.create().parse_override(f"x={found[-1]}").value())
        return found[-1]


def read(argv: list[str]) -> Arguments:
    """Sort a command line into flags and overrides, each override readable by Hydra.

    `--overrides "a=1 b=2"` is taken apart (MLflow projects hand all over as one word), and an unknown `--key value` becomes
    `key=value` (their way to hand over a parameter that the project does not declare).
    """
    found = Arguments()
    words = unpacked(argv)
    while words:
        word = words.pop(0)
        name = word.partition("=")[0]
        if word in _FLAGS or name in _FLAGS_WITH_VALUE:
            found.flags.append(word)
            if (
                word in _FLAGS_WITH_VALUE
                and words
                and not (word in _OPTIONAL_VALUE and ("=" in words[0] or words[0][:1] == "-"))
            ):
                found.flags.append(words.pop(0))
        elif re.fullmatch(r"-\w+", word):
            raise UserError(f"there is no option '{word}'", remedy="see --help; settings are written KEY=VALUE")
        else:
            found.overrides.append(word)
    given = (_at_top(item) for item in found.overrides)
    found.overrides = [quote(_new_column(item), found.multirun) for item in given if item != _NO_EXPERIMENT]
    return found


def unpacked(argv: list[str]) -> list[str]:
    """A command line with the words of `--overrides "a=1 b=2"` in its place, and `key=value` for an unknown `--key value`."""
    found, words = list[str](), list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name == "--overrides":
            words = _words(value if equals else (words.pop(0) if words else "")) + words
        elif word.startswith("--") and word not in _FLAGS and name not in _FLAGS_WITH_VALUE:
            found.append(f"{name[2:]}={value if equals else (words.pop(0) if words else '')}")
        else:
            found.append(word)
    return found


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"has an open quote ({error})", "--overrides", "close it, or put it into double quotes") from error


def _at_top(override: str) -> str:
    """An experiment sets values of every group, so it is composed at the top; its file says so nowhere."""
    return re.sub(r"^\+?experiment=", "+experiment@_global_=", override)


def _new_column(override: str) -> str:
    """Some mappings have no keys of their own: fields of a file, dimensions of a judge."""
    return re.sub(rf"^({_OPEN})(?=[.=])", r"++\1", override)


def as_typed(override: str) -> str:
    """The form in which a person types an override."""
    return re.sub(rf"^\+\+({_OPEN})(?=[.=])", r"\1", override.replace("+experiment@_global_=", "+experiment="))


def quote(override: str, multirun: bool = False) -> str:
    """Quote the parts of a value that Hydra's grammar refuses, such as Chinese, `>`, `#` or parentheses.

    Lists and dicts stay lists and dicts, and in a multirun commas still separate the values of a sweep; in a single run a
    comma outside brackets is text.
    """
    key, equals, value = override.partition("=")
    if re.fullmatch(r"\d+\.\d*0", value):
        return f"{key}={quoted(value)}"  # 1.10 is a label; to a setting that is a number its text means the same
    if not equals or key.startswith("~") or _readable(override, multirun):
        return override
    if multirun and value.startswith("choice(") and value.endswith(")"):
        value = value[7:-1]  # Hydra drops the quotes of a choice's values, but not those of a plain sweep's
    parts = split(value) if multirun else [value]
    inside = f"{key}={','.join(_quote_inside(part) for part in parts)}"
    return inside if _readable(inside, multirun) else f"{key}={quoted(value)}"


def first_choices(overrides: list[str]) -> list[list[str]]:
    """Single-run command lines that together try every value of a sweep once; the first takes each sweep's first value."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    choices = [
        [f"{item.get_key_element()}={value}" for value in item.sweep_string_iterator()] if item.is_sweep_override() else None
        for item in parsed
    ]
    first = [texts[0] if texts else item for texts, item in zip(choices, overrides, strict=True)]
    lines = [first]
    for place, texts in enumerate(choices):
        lines += [[*first[:place], text, *first[place + 1 :]] for text in (texts or [])[1:]]
    return lines


def number_of_jobs(overrides: list[str]) -> int:
    """How many combinations a multirun has."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    return math.prod(len(list(item.sweep_string_iterator())) for item in parsed if item.is_sweep_override())


def swept(overrides: list[str]) -> list[str]:
    """Keys that a multirun varies."""
    return [item.key_or_group for item in OverridesParser.create().parse_overrides(overrides) if item.is_sweep_override()]


def _readable(override: str, multirun: bool) -> bool:
    if re.search(r"\d_\d", override.partition("=")[2]) and _is_number(override, multirun):
        return False  # 2026_11 is a name; to a setting that is a number its text means the same
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return multirun or not parsed.is_sweep_override() or override.partition("=")[2].startswith(("choice(", "range("))


def _is_number(override: str, multirun: bool) -> bool:
    """Whether Hydra takes the value, or one of a sweep's, for a number."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    if parsed.is_sweep_override():
        return multirun and any(re.fullmatch(r"[\d_.+-]+", each) for each in override.partition("=")[2].split(","))
    return isinstance(parsed.value(), int | float) and not isinstance(parsed.value(), bool)


def _scalar(value: str) -> str:
    return value if _readable(f"x={value}", multirun=False) else quoted(value)


def quoted(value: str) -> str:
    r"""In Hydra's quoted values only quotes, and backslashes before them, are escaped."""
    return "'" + re.sub(r"(\\*)'", lambda found: found[1] * 2 + r"\'", re.sub(r"\\+$", lambda f: f[0] * 2, value)) + "'"


def split(value: str) -> list[str]:
    """Split at commas outside brackets and quotes."""
    opening, closing = ("[{(", "]})") if value.count("(") == value.count(")") else ("[{", "]}")
    parts, depth, mark, start = [], 0, "", 0
    for place, character in enumerate(value):
        if mark:
            mark = "" if character == mark else mark
        elif character in "'\"":
            mark = character
        elif character in opening:
            depth += 1
        elif character in closing:
            depth = max(0, depth - 1)
        elif character == "," and depth == 0:
            parts.append(value[start:place])
            start = place + 1
    return [*parts, value[start:]]


def _quote_inside(value: str) -> str:
    """Quote the scalars of a list or dict that Hydra cannot read."""
    if value[:1] == "[" and value[-1:] == "]":
        return f"[{','.join(_quote_inside(part.strip()) for part in split(value[1:-1]))}]"
    if value[:1] == "{" and value[-1:] == "}":
        pairs = [part.partition(":") for part in split(value[1:-1])]
        return "{" + ",".join(f"{_quote_inside(key.strip())}:{_quote_inside(rest.strip())}" for key, _, rest in pairs) + "}"
    return _scalar(value)
