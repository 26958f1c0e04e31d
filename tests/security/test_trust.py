"""A model's own code runs only where the user trusts it; then run and checkpoint say so, and no policy lets it pass unasked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlops_llm.errors import UserError
from mlops_llm.models import code
from mlops_llm.registry import evidence
from mlops_llm.tracking.checkpoints import CheckpointRow
from mlops_llm.tracking.registered import VersionRow
from tests.commands import SMOKE, ok, start, train, wait_for_step
from tests.record import checkpoints_of, client, run_of
from tests.security import hostile
from tests.surgeries import command

SHORT = [*SMOKE, "samples.count=0", "trainer.max_steps=2", "trainer.save_steps=2", "trainer.eval_steps=2", "model=./own"]


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a model with code of its own was trained, as run `risky`."""
    folder = tmp_path_factory.mktemp("trusted")
    hostile.with_code(folder / "own", folder / "marker")
    done = train(folder, *SHORT)
    assert done.returncode == 2 and done.stderr.count("error: ") == 1, done.stderr
    assert "which is not run" in done.stderr and not (folder / "marker").exists() and not (folder / "mlflow.db").exists()
    ok(train(folder, *SHORT, "model_load.trust_remote_code=true", "run_name=risky", "register_as=risky"))
    assert (folder / "marker").exists(), "the code ran, which is what was asked for"
    return folder


def test_it_is_written_on_run_and_checkpoint(trusted: Path) -> None:
    store = client(trusted)
    run = run_of(store, "risky")
    assert run.data.params["model_load.trust_remote_code"] == "True"
    made = checkpoints_of(store, run)
    assert made and all(len(each.tags["digest.code"]) == 64 for each in made.values())
    assert (trusted / "outputs/risky/checkpoint-2/modeling_own.py").is_file(), "the checkpoint can be loaded again"


def test_no_policy_lets_it_pass_unasked(trusted: Path) -> None:
    words = ["op=promote", "name=risky", "version=1", "policy=gate"]
    command(trusted, *words, "run_name=no", stage="registry", code=1)
    told = json.loads((trusted / "outputs/no/result.json").read_text())
    assert told["verdict"] == "refused" and "own code: it runs Python code of its own" in told["reasons"][0]
    command(trusted, *words, "policy.own_code=true", "run_name=yes", stage="registry")
    assert json.loads((trusted / "outputs/yes/result.json").read_text())["verdict"] == "promoted"


def adapter_on(base: Path, folder: Path) -> Path:
    """An adapter, as far as a promotion looks at it."""
    folder.mkdir()
    shutil.copyfile(next(base.glob("*.safetensors")), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    return folder


@pytest.mark.parametrize("model", ["own", "adapter"])
def test_so_is_one_from_elsewhere(trusted: Path, model: str) -> None:
    if model == "adapter":
        adapter_on(trusted / "own", trusted / model)
    words = [f"name={model}", f"model=./{model}", f"run_name=away-{model}"]
    command(trusted, "op=promote", "policy=gate", *words, stage="registry", code=1)
    told = json.loads((trusted / f"outputs/away-{model}/result.json").read_text())
    assert "own code: it runs Python code of its own" in told["reasons"][0]


def test_nobody_s_word_is_taken_that_there_is_none(tmp_path: Path) -> None:
    """What was imported, or entered by an evaluation, may lack the tag: a policy looks at the files."""
    own = hostile.with_code(tmp_path / "own", tmp_path / "marker")
    two = adapter_on(adapter_on(own, tmp_path / "one"), tmp_path / "two")
    found = code.of(own)

    def seen(folder: Path, run: str = "", **tags: str) -> str:
        row = CheckpointRow("m-1", folder.name, 1, "READY", folder.as_uri(), run, tags, {})
        return evidence._own_code(SimpleNamespace(), VersionRow("bot", 1, (), 0, "", {}, "", row))  # type: ignore[arg-type]

    assert seen(own) == seen(two) == seen(two, "r", **{"imported.checkpoint": "m-2"}) == found
    assert seen(hostile.folder(tmp_path / "plain")) == seen(two, "a run of ours says so itself") == ""
    (tmp_path / "one/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "two")}))
    with pytest.raises(UserError, match="lies on itself"):
        code.of_model(two)


@pytest.mark.parametrize("more", [[], ["model_load.trust_remote_code=true"]])
@pytest.mark.parametrize("op", [["op=deploy", "output=there"], ["op=serve", "op.check=true", "output=there"]])
def test_it_is_neither_deployed_nor_served(trusted: Path, op: list[str], more: list[str]) -> None:
    said = command(trusted, *op, *more, "model=runs:/risky/checkpoint-2", stage="registry", code=2)
    assert ("neither deployed nor served" if more else "which is not run") in said
    assert not (trusted / "there").exists()


def test_what_is_made_of_it_says_so_too(trusted: Path) -> None:
    words = ["op=merge_linear", "models=[runs:/risky/checkpoint-2,./own]", "output=half", "run_name=half"]
    assert "which is not run" in command(trusted, *words, code=2)
    command(trusted, *words, "model_load.trust_remote_code=true")
    (made,) = checkpoints_of(client(trusted), run_of(client(trusted), "half")).values()
    assert len(made.tags["digest.code"]) == 64 and (trusted / "half/modeling_own.py").is_file()


def test_engine_arguments_are_no_way_around() -> None:
    from mlops_llm.inference.engines.vllm import Vllm

    for name in ("trust_remote_code", "trust-remote-code"):
        with pytest.raises(UserError, match=r"model_load\.trust_remote_code=true"):
            Vllm(arguments={name: True})


def test_state_of_a_checkpoint_that_explodes_is_not_opened(tmp_path: Path) -> None:
    """A run's folder that somebody else wrote to: optimizer, averaged weights and random state are pickled files."""
    words = [*SMOKE, "trainer.max_steps=40", "trainer.save_steps=5", "samples.count=0", "run_name=left", "ema.decay=0.9"]
    process = start(tmp_path, *words, "trainer.eval_steps=5", "trainer.logging_steps=4")
    wait_for_step(tmp_path, "left", 12, process)
    process.kill()
    process.communicate()
    last = max(tmp_path.glob("outputs/left/checkpoint-*/optimizer.pt"), key=lambda each: int(each.parent.name[11:])).parent
    for name in ("rng_state.pth", "optimizer.pt"):
        whole = (last / name).read_bytes()
        hostile.pickled(last / name, tmp_path / "marker", torchs=True)
        done = train(tmp_path, "resume=left")
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode == 1 and len(lines) == 1 and "holds more than numbers" in lines[0], done.stderr
        assert "Traceback" not in done.stderr and "Re-running" not in done.stderr and not (tmp_path / "marker").exists()
        assert run_of(client(tmp_path), "left").info.status == "FAILED"
        (last / name).write_bytes(whole)
    assert run_of(client(tmp_path), "left").data.tags["output"] == str(tmp_path / "outputs/left")
