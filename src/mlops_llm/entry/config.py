"""Composition: presets, groups and command line become one typed settings object; Hydra's errors become one line."""

from __future__ import annotations

import dataclasses
import enum
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from mlops_llm import component
from mlops_llm.entry.arguments import Arguments
from mlops_llm.errors import UserError
from mlops_llm.files import check_part
from mlops_llm.launch.place import PLACES


def config_folder() -> Path:
    """The presets: conf/ of a checkout, or the copy in the wheel."""
    checkout = Path(__file__).parents[3] / "conf"
    return checkout if checkout.is_dir() else Path(str(resources.files("mlops_llm") / "_conf"))


def register(stage: str, schema: type, packages: tuple[str, ...]) -> None:
    """Load a stage's components and make them choices of Hydra's groups.

    Of a group whose field in the schema is a dict several can be chosen at once: GROUP=[A,B], then GROUP.A.SETTING=VALUE.
    """
    packages = (*packages, PLACES)
    for package in packages:
        component.load(package)
    store = ConfigStore.instance()
    store.store(name=f"{stage}_schema", node=schema)
    several = _several(schema)
    for group, names in component.groups().items():
        store.repo.pop(group, None)  # `op` means the operations of one stage, also where a process runs several
        for name, cls in names.items():
            if cls.__module__.startswith(packages):
                store.store(group=group, name=name, node=cls, package=f"{group}.{name}" if group in several else None)


def _several(schema: type) -> set[str]:
    """Groups of which several components can be chosen at once."""
    return {field.name for field in dataclasses.fields(schema) if field.default_factory is dict}


_absent: dict[Path, list[Path]] = {}
"""Folder of a run's files -> it and those above it that were not there when the run was composed, innermost first."""


def name_runs(name: str) -> None:
    """Say what a run is called that nobody names; its files go to outputs/NAME where `output` says nothing else."""

    def run_folder(output: str | None, run_name: str | None) -> str:
        if run_name is not None:
            check_part(str(run_name), "run_name")
        folder = Path(output or f"outputs/{run_name or name}").absolute()
        _absent.setdefault(folder, [each for each in (folder, *folder.parents) if not each.exists()])
        return str(output or f"outputs/{run_name or name}")

    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)


# In presets: ${equal:${values.peft},lora} is true or false.
OmegaConf.register_new_resolver("equal", lambda one, other: str(one == other).lower(), replace=True)


def is_output(path: Path) -> bool:
    """Whether a path is a run's folder, above it or in it."""
    place = path.absolute()
    return any(folder.is_relative_to(place) or place.is_relative_to(folder) for folder in _absent)


def leave_nothing(output: Path) -> None:
    """Remove the folders that Hydra made for a run, as far as they are empty."""
    for folder in _absent.get(output.absolute(), []):
        try:
            folder.rmdir()
        except OSError:
            return


def run(stage: str, arguments: Arguments, task: Callable[[DictConfig], None], *extra: str) -> None:
    """Let Hydra do what the command line says: print something, or compose and call `task` once or for every job."""
    before = sys.argv
    sys.argv = [before[0], *arguments.flags, *own_presets(), *arguments.overrides, *extra]
    try:
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=stage)(task)()
    finally:
        sys.argv = before


def own_presets() -> list[str]:
    """An override that also finds presets in ./conf of the folder where the command was started."""
    own = Path.cwd() / "conf"
    if not own.is_dir() or own.resolve() == config_folder().resolve():
        return []
    return [f"hydra.searchpath=['file://{own}']"]


def composed(stage: str, overrides: list[str]) -> DictConfig:
    """Compose without running anything."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config: DictConfig = compose(stage, [*own_presets(), *overrides])
        return config


def drop_unchosen(config: DictConfig, schema: type, overrides: Sequence[str]) -> None:
    """Drop what a preset says of components that the command line replaced by others.

    Raises:
        UserError: one of `overrides` sets something of a component that is not chosen, or chooses one twice.
    """
    for group in _several(schema):
        for item in overrides:
            names = item.partition("[")[2].rstrip("]").split(",") if item.lstrip("+").startswith(f"{group}=[") else []
            twice = next((name for name in names if names.count(name) > 1), "")
            if twice:
                raise UserError(f"names {twice} twice", group, f"name each once; {group}.{twice}.weight makes it count more")
        chosen = [str(name) for name in config[group] if OmegaConf.get_type(config[group], name) is not dict]
        for name in [str(name) for name in config[group] if str(name) not in chosen]:
            if any(item.lstrip("+").startswith(f"{group}.{name}.") for item in overrides):
                raise UserError("is not chosen", f"{group}.{name}", f"choose it: {group}=[{','.join([*chosen, name])}]")
            with open_dict(config[group]):
                del config[group][name]


def typed(config: DictConfig) -> Any:
    """Turn a composed config into the stage's dataclass, components ready to call.

    Raises:
        UserError: a value is missing or does not fit.
    """
    _refuse_unknown(config, "")
    return OmegaConf.to_object(config)


def _refuse_unknown(node: DictConfig, path: str) -> None:
    """`+KEY=VALUE` adds a key that the settings do not have, and OmegaConf would carry it along unseen."""
    kind = OmegaConf.get_type(node)
    cls = kind if isinstance(kind, type) and dataclasses.is_dataclass(kind) else None
    known = [field.name for field in dataclasses.fields(cls)] if cls else []
    for key in map(str, node):
        if cls and key not in known:
            raise UserError(f"Key '{key}' not in '{cls.__name__}'{component.near(key, known)}", path)
        if not OmegaConf.is_missing(node, key) and isinstance(node[key], DictConfig):
            _refuse_unknown(node[key], f"{path}.{key}" if path else key)


def what(config: DictConfig) -> DictConfig:
    """A config without `launch`: what a command does, wherever it runs."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "launch"])


def from_record(schema: type, choices: Mapping[str, str], yaml: str) -> DictConfig:
    """Rebuild a run's config from its recorded YAML and its chosen components."""
    config = OmegaConf.structured(schema)
    table = component.groups()
    for group, name in choices.items():
        if group in _several(schema):
            for each in name.split(","):
                config[group][each] = OmegaConf.structured(table[group][each])
        else:
            config[group] = OmegaConf.structured(table[group][name])
    return OmegaConf.merge(config, OmegaConf.create(yaml))  # type: ignore[return-value]


def choices(config: DictConfig) -> dict[str, str]:
    """Group -> registered name of the component in it, also when a preset file chose it under a name of its own.

    Of a group of which several are chosen: their names with commas.
    """
    found = {}
    for group, names in component.groups().items():
        if group in config:
            kind = OmegaConf.get_type(config, group)
            several = ",".join(map(str, config[group])) if kind is dict else None
            chosen = several or next((name for name, cls in names.items() if cls is kind), None)
            if chosen:
                found[group] = chosen
    return found


def flat(config: DictConfig) -> dict[str, Any]:
    """Dotted key -> value; lists stay whole."""
    values: dict[str, Any] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, Mapping):
            for key, value in node.items():
                walk(value, f"{path}.{key}" if path else str(key))
        else:
            values[path] = node.name if isinstance(node, enum.Enum) else node

    walk(OmegaConf.to_container(config, resolve=True), "")
    return values


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
            return said
    return UserError(str(known[-1]).strip().splitlines()[0])


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
            presets = [path.stem for path in (config_folder() / group).glob("*.yaml")] if group else []
            names = sorted({*component.groups().get(group, names), *presets})
            remedy = f"there are: {', '.join(names)}"
            if group == "hydra/launcher" and name.startswith("submitit"):
                remedy = "it is an extra: pip install 'mlops-llm[slurm]'"
            return UserError(f"unknown {group or 'config'} '{name}'{component.near(name, names)}", remedy=remedy)
    found = re.search(r"Key '([^']+)' (?:is not in struct|not in '([^']+)')", text)
    if found:
        parent = getattr(error, "parent_node", None)
        if "." in key and isinstance(parent, DictConfig) and OmegaConf.get_type(parent) is dict:
            own, group = [str(each) for each in parent], key.partition(".")[0]
            if found[1] in component.groups().get(group, {}):
                return UserError("is not chosen", f"{group}.{found[1]}", f"choose it: {group}=[{','.join([*own, found[1]])}]")
            return UserError(f"there is no '{found[1]}'{component.near(found[1], own)}", key, f"there are: {', '.join(own)}")
        cls = _class(schema, found[2]) if found[2] else schema
        names = [field.name for field in dataclasses.fields(cls)] if cls else []
        others = _others(cls, found[1]) if cls else ""
        hint = f" ({others})" if others else component.near(found[1], names)
        if not hint and cls is not None:
            hint = f" ({_own(names)})"
        return UserError(f"Key '{found[1]}' not in '{found[2] or schema.__name__}'{hint}")
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
    single = re.match(r"Invalid value assigned: (\w+) is not a ListConfig", text)
    if single and key:
        return UserError("is one value, and a list is wanted", key, f"write {key}=[A] or {key}=[A,B]")
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
