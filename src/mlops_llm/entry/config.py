"""Composition: presets, groups and command line become one typed settings object."""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

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
    found = OmegaConf.to_object(config)
    for group, names in component.groups().items():
        if group not in _several(type(found)) and isinstance(getattr(found, group, None), dict | list):
            remedy = f"begin it with a choice: defaults: [{next(iter(names))}, _self_] (there are: {', '.join(names)})"
            raise UserError(f"the file in conf/{group} does not say what it is a variant of", group, remedy)
    return found


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
