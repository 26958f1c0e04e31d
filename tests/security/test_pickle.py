"""Nothing in the source opens a pickle, runs a text as code or hands words to a shell, but where it says why that is safe."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import mlops_llm

ROOT = Path(mlops_llm.__file__).parent
REPOSITORY = ROOT.parents[1]
MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "pickle5", "jsonpickle"}
ALLOWED = {
    (
        "eval/benchmarks/held.py",
        "exec",
    ): "a program that a model wrote for a benchmark, in a bounded and empty process",
}
"""File and call -> why."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    for folder in (ROOT, REPOSITORY / "benchmarks", REPOSITORY / "projects", REPOSITORY / "release"):
        for file in sorted(folder.rglob("*.py")):
            base = ROOT if folder == ROOT else REPOSITORY
            yield str(file.relative_to(base)), ast.parse(file.read_text("utf-8"))


TREES = list(sources())


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    for name, tree in TREES:
        for each in ast.walk(tree):
            if isinstance(each, ast.Call):
                yield name, ast.unparse(each.func), each


def keyword(call: ast.Call, name: str) -> object:
    found = next((each.value for each in call.keywords if each.arg == name), None)
    return found.value if isinstance(found, ast.Constant) else found


def test_no_module_that_unpickles_is_imported() -> None:
    for name, tree in TREES:
        for each in ast.walk(tree):
            named = [one.name for one in each.names] if isinstance(each, ast.Import) else []
            named += [each.module or ""] if isinstance(each, ast.ImportFrom) else []
            assert not MODULES & {one.partition(".")[0] for one in named}, f"{name}:{getattr(each, 'lineno', 0)}"


def test_what_torch_and_numpy_load_is_numbers() -> None:
    found = 0
    for name, function, call in calls():
        if function == "torch.load":
            found += 1
            assert keyword(call, "weights_only") is True, f"{name}:{call.lineno}"
        if function in ("np.load", "numpy.load"):
            found += 1
            assert keyword(call, "allow_pickle") in (None, False), f"{name}:{call.lineno}"
        assert not function.endswith(("read_pickle", "add_safe_globals", "hub.load")), f"{name}:{call.lineno}"
    assert found >= 3, "the search finds what is there"


def test_no_text_becomes_code_and_none_goes_through_a_shell() -> None:
    for name, function, call in calls():
        if function in ("eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"):
            loader = ast.unparse(call.args[1]) if function == "yaml.load" else ""
            assert (name, function) in ALLOWED or loader == "_Loader", f"{name}:{call.lineno}: {function}"
        assert keyword(call, "shell") in (None, False), f"{name}:{call.lineno}"


def test_whoever_loads_a_model_says_whether_its_code_runs() -> None:
    """transformers asks on a terminal where nobody says, and `y` runs the code."""
    found = 0
    for name, function, call in calls():
        kind, _, method = function.rpartition(".")
        if not name.startswith("benchmarks/") and kind.startswith("Auto") and method in ("from_pretrained", "from_config"):
            found += 1
            said = {each.arg for each in call.keywords}
            assert "trust_remote_code" in said, f"{name}:{call.lineno}"
            assert keyword(call, "trust_remote_code") is not True, f"{name}:{call.lineno}"
    assert found >= 8


@pytest.mark.parametrize("module", ["transformers/trainer", "accelerate/utils/fsdp_utils", "peft/utils/save_and_load"])
def test_what_loads_our_checkpoints_loads_numbers(module: str) -> None:
    """Of other people's code: what a resumed training and an adapter go through. A new release may do otherwise."""
    package, _, rest = module.partition("/")
    spec = find_spec(package)  # imports nothing, as long as it is no package within another
    assert spec and spec.origin
    text = (Path(spec.origin).parent / f"{rest}.py").read_text("utf-8")
    for each in ast.walk(ast.parse(text)):
        if isinstance(each, ast.Call) and ast.unparse(each.func) == "torch.load":
            said = keyword(each, "weights_only")
            handed_on = isinstance(said, ast.Name) and "weights_only=True" in text  # the default of a function around it
            assert said is True or handed_on, f"{module}:{each.lineno}"
