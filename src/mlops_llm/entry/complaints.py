"""What Hydra, OmegaConf and YAML complain of, in one line that says what, where and what to do."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import MarkedYAMLError

from mlops_llm import component
from mlops_llm.entry.config import config_folder
from mlops_llm.errors import UserError


def one_line(error: BaseException, schema: type) -> UserError | None:
    """Say in one line what Hydra or OmegaConf complain of; None for any other error."""
    chain: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None and seen not in chain:
        chain.append(seen)
        seen = seen.__cause__ or seen.__context__
    for each in chain:
        if isinstance(each, UserError):
            return each
        if isinstance(each, MarkedYAMLError) and each.problem_mark:
            mark = each.problem_mark
            return UserError(f"is no YAML ({each.problem})", f"{mark.name}:{mark.line + 1}", "mend the line")
    if any(isinstance(each, ValueError) and str(each).startswith("Config group override must be") for each in chain):
        return UserError(
            "a group cannot be empty, and a setting has a name", remedy="write GROUP=CHOICE or KEY=VALUE; see --help"
        )
    known = [each for each in chain if isinstance(each, OmegaConfBaseException | HydraException)]
    if not known:
        return None
    if any(str(each) == "ConfigLoader is not set" for each in known):
        return UserError("glob(…) cannot be swept here", remedy="name the choices: GROUP=A,B")
    for each in reversed(known):
        said = _known(each, schema)
        if said:
            return _in_preset(said, chain)
    return _in_preset(UserError(str(known[-1]).strip().splitlines()[0]), chain)


def _in_preset(said: UserError, chain: list[BaseException]) -> UserError:
    """The same with the preset's file in which it stands."""
    found = next((found[1] for each in chain if (found := re.match(r"In '(\w+/[^']+)'", str(each)))), "")
    file = next((file for at in (Path.cwd() / "conf", config_folder()) if (file := at / f"{found}.yaml").is_file()), None)
    if said.remedy or file is None:
        return said
    return UserError(said.what, said.where, f"it stands in {file}")


def _known(error: BaseException, schema: type) -> UserError | None:
    text = str(error).strip()
    first = text.splitlines()[0]
    key = _full_key(text)
    if isinstance(error, MissingMandatoryValue):
        return UserError(f"'{key or first.rpartition(' ')[2]}' has no value", remedy=f"give one: {key or 'KEY'}=…")
    if isinstance(error, MissingConfigException):
        wanted = re.search(r"[Cc]ould not (?:find|load) '([^']+)'", text)
        names = _listed(text) or sorted(path.stem for path in (config_folder() / "experiment").glob("*.yaml"))
        if wanted:
            group, _, name = wanted[1].rpartition("/")
            folders = (config_folder() / group, Path.cwd() / "conf" / group) if group else ()
            presets = [path.stem for folder in folders for path in folder.glob("*.yaml")]
            names = sorted({*component.groups().get(group, names), *presets})
            remedy = f"there are: {', '.join(names)}"
            if group == "hydra/launcher" and name.startswith("submitit"):
                remedy = "it is an extra: pip install 'mlops-llm[slurm]'"
            return UserError(f"unknown {group or 'config'} '{name}'{component.near(name, names)}", remedy=remedy)
    found = re.search(r"Key '([^']+)' (?:is not in struct|not in '([^']+)')", text)
    if found:
        parent = getattr(error, "parent_node", None)
        if "." in key and isinstance(parent, DictConfig) and OmegaConf.get_type(parent) is dict:
            own, group = [str(each) for each in parent], key.split(".")[0]
            if found[1] in component.groups().get(group, {}):
                return UserError("is not chosen", f"{group}.{found[1]}", f"choose it: {group}=[{','.join([*own, found[1]])}]")
            return UserError(f"there is no '{found[1]}'{component.near(found[1], own)}", key, f"there are: {', '.join(own)}")
        cls, within = _class(schema, found[2]) if found[2] else schema, ""
        if cls is None and isinstance(parent, DictConfig) and dataclasses.is_dataclass(kind := OmegaConf.get_type(parent)):
            cls, within = kind, key.rpartition(".")[0]
        names = [field.name for field in dataclasses.fields(cls)] if cls else []
        others = _others(cls, found[1]) if cls else ""
        hint = f" ({others})" if others else component.near(found[1], names)
        if not hint and cls is not None:
            hint = f" ({_own(names)})"
        return UserError(f"Key '{found[1]}' not in '{found[2] or schema.__name__}'{hint}", within)
    unchosen = re.match(r"You must specify '([^']+)'", text)
    if unchosen:
        there = ", ".join(component.groups().get(unchosen[1], {}))
        return UserError(f"no {unchosen[1]} was chosen", remedy=f"give {unchosen[1]}= one of: {there}")
    group = re.search(r"Could not override '([^']+)'", text)
    if group and "No match in the defaults list" in text:
        known = [*component.groups(), *(field.name for field in dataclasses.fields(schema))]
        return UserError(f"no group or setting is called '{group[1]}'{component.near(group[1], known)}")
    if re.search("mismatched input|token recognition|extraneous input|no viable alternative|missing EQUAL", text):
        return UserError(f"a setting cannot be read as KEY=VALUE ({first})", remedy="see --help")
    if first.startswith("Cannot merge DictConfig with ListConfig"):
        return UserError("a list stands where names with values are wanted, or these where a list is", key)
    single = re.match(r"Invalid value assigned: (\w+) is not a ListConfig", text)
    if single and key:
        return UserError("is one value, and a list is wanted", key, f"write {key}=[A] or {key}=[A,B]")
    value = re.match(r"(?:Merge error|Invalid type assigned): \w+ is not a subclass of (\w+)\. value: (.*)", first)
    if value and key:
        cls = _class(schema, value[1])
        names = [name for name, one in component.groups().get(key, {}).items() if one is cls]
        where, fields = ".".join([key, *names]), [field.name for field in dataclasses.fields(cls)] if cls else []
        what = f"is {value[2]}, and stands for several settings" + (f" ({', '.join(fields)})" if fields else "")
        return UserError(what, where, f"give them one by one: {where}.SETTING=VALUE")
    if key:
        return UserError(first.rstrip("."), key)
    return None


def _own(names: Sequence[str]) -> str:
    return f"it has: {', '.join(names)}" if names else "this choice of the group has no settings"


def _others(cls: type, key: str) -> str:
    """Which other choices of a component's group have a setting; empty where none has."""
    for group, names in component.groups().items():
        if cls in names.values():
            having = [
                f"{group}={name}" for name, one in names.items() if key in (each.name for each in dataclasses.fields(one))
            ]
            return f"a setting of {' and '.join(having)}" if having else ""
    return ""


def _full_key(text: str) -> str:
    found = re.search(r"full_key: (\S+)", text)
    return found[1] if found else ""


def _listed(text: str) -> list[str]:
    _, found, rest = text.partition("Available options in")
    return [line.strip() for line in rest.splitlines()[1:] if line.strip() and ":" not in line] if found else []


def _class(schema: type, name: str) -> type | None:
    """A settings class of the stage by its name."""
    for names in component.groups().values():
        for cls in names.values():
            if cls.__name__ == name:
                return cls
    if schema.__name__ == name:
        return schema
    parts = (field.default_factory for field in dataclasses.fields(schema))
    return next((part for part in parts if isinstance(part, type) and part.__name__ == name), None)  # type: ignore[return-value]
