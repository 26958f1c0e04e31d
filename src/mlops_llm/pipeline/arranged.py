"""The command line of a pipeline in the form that its settings have."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import fields

from mlops_llm.pipeline.config import Pipeline, Stage

_OWN = {field.name for field in fields(Pipeline)}
_OF_STAGE = {field.name for field in fields(Stage)}
_KEY = re.compile(r"[A-Za-z_]\w*")
_FLAGS = ("-m", "--multirun")


def arranged(words: list[str], split: Callable[[str], list[str]], quoted: Callable[[str], str]) -> list[str]:
    """Words as Hydra takes them.

    `stages.NAME.SETTING=VALUE` is a setting of that stage's command, and joins its `overrides`; `NAME=VALUE` is one of the
    flow's `values` where the pipeline itself has no such setting; `stages.NAME.search=optuna` is its method.

    Args:
        words: as typed.
        split: the values of a sweep from its text.
        quoted: a text in Hydra's quotes.
    """
    multirun = any(each in _FLAGS for each in words)
    others, of_stages = list[str](), dict[str, list[list[str]]]()
    for word in words:
        key, equals, value = word.partition("=")
        found = re.fullmatch(r"stages\.([\w-]+)\.(\+?[\w./@]+)", key)
        if equals and found and found[2].partition(".")[0] not in _OF_STAGE:
            choices = split(value) if multirun else [value]
            of_stages.setdefault(found[1], []).append([f"{found[2]}={each}" for each in choices])
        elif equals and found and found[2] == "search":
            others.append(f"{key}.method={value}")
        elif equals and _KEY.fullmatch(key) and key not in (*_OWN, "experiment", "hydra"):
            others.append(f"values.{word}")
        else:
            others.append(word)
    for name, settings in of_stages.items():
        lists = [f"[{','.join(map(quoted, each))}]" for each in itertools.product(*settings)]
        others.append(f"stages.{name}.overrides={','.join(lists)}")
    return others
