"""What is asked of a Ray cluster, and what is made of its answers."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mlops_llm
from mlops_llm.component import plain
from mlops_llm.errors import UserError
from mlops_llm.inference.engines.ray import OverRay
from mlops_llm.inference.engines.vllm import Mode, Vllm, flags
from mlops_llm.launch import dashboard, nodes
from mlops_llm.launch.checkout import Checkout
from mlops_llm.launch.dashboard import Dashboard
from mlops_llm.launch.place import Again, Command
from mlops_llm.launch.places import ray
from mlops_llm.launch.places.ray import Code, OnRay, own_lines
from mlops_llm.launch.sent import Sent
from mlops_llm.tracking import environment

SECRET = "canary-4711"
SOURCES = str(Path(mlops_llm.__file__).parents[1])


def command(*words: str, folder: str = "/tmp", **environment: str) -> Command:
    return Command(
        "train",
        words or ("model=tiny",),
        "one",
        "a1",
        "http://x",
        Again.resume,
        ("A_KEY",),
        folder,
        sys.executable,
        environment,
    )


@given(st.text("ab '\"$`\\;&|\n#数（）", max_size=30), st.text("ab '\"$x", min_size=1, max_size=12))
def test_the_line_of_sh_gives_python_the_words_as_they_are(word: str, folder: str) -> None:
    place = OnRay(python=sys.executable)
    line = place._entry(command(f"op.note={word}"), False)
    words = shlex.split(line.rpartition("; exec ")[2])
    assert words == [sys.executable, "-m", "mlops_llm.train", f"op.note={word}"]
    assert f"cd {shlex.quote(f'/x/{folder}')} " in OnRay(folder=f"/x/{folder}")._entry(command(), False)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"folder": "/proc/nowhere"}, "error: launch.folder: there is no /proc/nowhere on the node"),
        ({"python": "/no'where"}, "error: launch.python: /no'where on the node is no Python"),
        ({"env_file": "/no where"}, "error: launch.env_file: there is no /no where on the node"),
    ],
)
def test_what_is_missing_on_the_node_is_told_by_its_setting(settings: dict[str, str], said: str, tmp_path: Path) -> None:
    line = OnRay(**settings)._entry(command(folder=str(tmp_path)), False)  # type: ignore[arg-type]
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout.startswith(said) and not done.stderr


def test_what_ray_shows_holds_no_secret_and_no_path_of_this_machine_that_is_not_the_commands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("A_KEY", SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@host:5000")
    asked = OnRay(gpus=1, memory_gb=2, resources={"A100": 1})._request(command(), "a1-0", "")
    assert SECRET not in json.dumps(asked) and SECRET not in json.dumps(plain(OnRay()))
    assert asked["entrypoint_num_gpus"] == 1 and asked["entrypoint_memory"] == 2**31
    assert asked["runtime_env"]["env_vars"]["MLFLOW_RUN_ID"] == "a1"
    given_out = OnRay()._request(command(PYTHONPATH="/here", CUDA_VISIBLE_DEVICES="3", OMP_NUM_THREADS="2"), "a1-0", "")
    assert not {"PYTHONPATH", "CUDA_VISIBLE_DEVICES"} & set(given_out["runtime_env"]["env_vars"])
    assert "export PYTHONPATH=/here; " in given_out["entrypoint"]
    sent = OnRay(code=Code.sent)._request(command("resume=one", PYTHONPATH="/here"), "a1-0", "_ray_pkg_x.zip")
    assert 'export PYTHONPATH="$PWD/src"; ' in sent["entrypoint"] and "/here" not in sent["entrypoint"]
    assert sent["runtime_env"]["working_dir"] == "gcs://_ray_pkg_x.zip"
    assert "MLFLOW_RUN_ID" not in sent["runtime_env"]["env_vars"]  # it goes on with its run by itself


class Room(Dashboard):
    """A cluster with room for everything, whose job never ends."""

    def resources(self) -> dict[str, float]:
        return {}

    def job(self, job: str) -> dict[str, object]:
        return {"status": "RUNNING", "driver_node_id": "0123456789"}

    def stop(self, job: str) -> None: ...


def test_what_lets_a_job_into_its_record_is_said_by_name(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    for address, names in (("http://host:5000", ["A_KEY", "MLFLOW_TRACKING_TOKEN"]), ("sqlite:////x/mlflow.db", ["A_KEY"])):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        OnRay()._warn(command(MLFLOW_TRACKING_URI=address), Room("http://head:8265"))
        said = capfd.readouterr().out
        assert [line.split()[1] for line in said.splitlines()] == names and SECRET not in said


@pytest.mark.parametrize(
    ("machine", "there", "said"),
    [
        (environment.machine(), True, ""),
        ("laptop/0", True, "the record is a file, and several machines that write it would break it"),
        (environment.machine(), False, f"the record is not there on {environment.machine().partition('/')[0]}"),
    ],
)
def test_a_record_that_is_a_file_is_for_jobs_on_its_own_machine(
    machine: str, there: bool, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mlflow.db"
    if there:
        file.touch()
    address = f"sqlite:///{file}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)  # Ray gives it to the job
    monkeypatch.setattr(environment, "machine", lambda: machine)
    line = OnRay()._entry(command("--help", folder=str(tmp_path), PYTHONPATH=SOURCES), False)
    asked = line.rpartition("; exec ")[0]
    done = subprocess.run(["/bin/sh", "-c", f"{asked}; echo begun"], capture_output=True, text=True, check=False)
    if not said:
        assert (done.returncode, done.stdout, done.stderr) == (0, "begun\n", "")
        return
    assert (done.returncode, done.stdout, file.exists()) == (2, "", there)
    assert done.stderr.splitlines() == [f"error: {file}: {said}; {nodes.REMEDY}"]


def test_a_record_behind_an_address_is_not_looked_for_on_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert "launch.nodes" not in OnRay()._entry(command(), False)


def test_cancelling_tells_of_a_job_that_does_not_end(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    monkeypatch.setattr(dashboard, "Dashboard", Room)
    monkeypatch.setattr(ray, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda each: now.append(now.pop() + each)))
    for patience, longest in ((5.0, 15.0), (600.0, 70.0)):
        now[0] = 0.0
        OnRay().stop(Sent(command(), "ray", {}, {"job": "a1-0", "address": "http://head:8265"}, 1.0), patience)
        assert longest <= now[0] <= longest + 1
        told = "Ray was told to end job a1-0, which still runs on node 01234567; see http://head:8265/#/jobs"
        assert [each.message for each in caplog.records] == [told]
        caplog.clear()


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"cpus": -1.0}, "launch.cpus"),
        ({"gpus": float("inf")}, "launch.gpus"),
        ({"memory_gb": -2.0}, "launch.memory_gb"),
        ({"resources": "A100"}, "launch.resources"),
        ({"folder": "jobs"}, "launch.folder"),
        ({"env_file": "~/keys"}, "launch.env_file"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], where: str) -> None:
    with pytest.raises(UserError) as caught:
        OnRay(**settings)  # type: ignore[arg-type]
    assert caught.value.where == where


def test_a_jobs_output_has_no_lines_of_rays_and_only_grows() -> None:
    text = "20:42:20\tINFO job_manager.py:581 -- Runtime env is setting up.\nfirst\nRunning entrypoint for job x: y\nlast"
    assert own_lines(text) == "first\nlast"
    assert all(own_lines(text).startswith(own_lines(text[:end])) for end in range(text.index("first"), len(text)))


def test_the_token_is_looked_for_where_ray_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert dashboard.token() == ""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("of-home\n")
    assert dashboard.token() == "of-home"
    (tmp_path / "other").write_text("of-file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "other"))
    assert dashboard.token() == "of-file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-variable")
    assert dashboard.token() == "of-variable"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert dashboard.token() == ""


def test_the_state_of_a_checkout_is_that_of_its_commit_and_its_files(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    package = tmp_path / "src/mlops_llm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (tmp_path / ".gitignore").write_text("secret\n")
    (tmp_path / "secret").write_text(SECRET)
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "-m", "one")
    first = Checkout(tmp_path).digest
    assert Checkout(package).digest == first
    (package / "new.py").write_text("1")
    changed = Checkout(tmp_path)
    assert changed.digest != first and changed.largest == ".gitignore"
    with changed.packed() as file:
        subprocess.run([sys.executable, "-m", "zipfile", "-e", str(file), str(tmp_path.parent / "out")], check=True)
    out = tmp_path.parent / "out"
    told = subprocess.run(["git", "-C", str(out), "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    assert told == "?? src/mlops_llm/new.py\n" and not (out / "secret").exists()
    assert Checkout(out).digest == changed.digest
    with pytest.raises(UserError, match="does not run from a checkout"):
        Checkout(Path("/"))


def test_sizes_of_groups_of_gpus_reach_vllm_and_count_as_its_arguments() -> None:
    engine = Vllm(tensor_parallel=2, data_parallel=4)
    assert engine.gpus == 8
    assert engine.decisive == Vllm(arguments={"tensor_parallel_size": 2, "data_parallel_size": 4}).decisive
    assert Vllm().decisive == {"max_model_len": None, "arguments": {}}  # as it was before there were such settings
    words = flags(engine._arguments("folder", "float32"))
    assert words[words.index("--tensor-parallel-size") + 1] == "2" and words[words.index("--data-parallel-size") + 1] == "4"
    assert "--pipeline-parallel-size" not in words


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tensor_parallel": 0}, "engine.tensor_parallel: is 0"),
        ({"data_parallel": 2, "mode": Mode.in_process}, "engine.data_parallel: is 2, and copies in one process would wait"),
        (
            {"tensor_parallel": 2, "arguments": {"tensor-parallel-size": 4}},
            "names tensor-parallel-size a second time",
        ),
    ],
)
def test_sizes_that_cannot_be_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as caught:
        Vllm(**settings)  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_more_gpus_than_there_are_are_refused_before_a_model_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    what = "tensor_parallel=2 x pipeline_parallel=2 takes 4 GPUs, and this machine has 2 GPUs"
    with pytest.raises(UserError, match=what):
        Vllm(tensor_parallel=2, pipeline_parallel=2).check()


def test_an_engine_over_ray_is_known_as_the_engine_of_its_workers() -> None:
    over = OverRay("vllm", {"tensor_parallel": 2})
    assert (over.family, over.decisive) == ("vllm", Vllm(tensor_parallel=2).decisive)
    assert OverRay("hf").family == "hf"
    for wrong, said in (("ray", "opens no model"), ("openai", "opens no model"), ("hff", "did you mean hf")):
        with pytest.raises(UserError, match=said):
            OverRay(wrong)
    with pytest.raises(UserError, match="tensor_parralel"):
        OverRay("vllm", {"tensor_parralel": 2})
