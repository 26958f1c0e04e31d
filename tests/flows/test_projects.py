"""`mlflow run`: one argument split rightly, the run adopted and not doubled, in a checkout and in the folders of projects."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlops_llm.entry import config
from tests.commands import environment
from tests.contract.test_components import STAGES
from tests.record import client, run_of

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT, *sorted(each.parent for each in (ROOT / "projects").glob("*/MLproject"))]


def mlflow_run(here: Path, project: Path, *words: str, manager: str = "local") -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{environment()['PATH']}"
    return subprocess.run(
        [sys.executable, "-m", "mlflow", "run", str(project), "--env-manager", manager, *words],
        cwd=here, capture_output=True, text=True, timeout=600, check=False,
        env=environment({"MLFLOW_TRACKING_URI": f"sqlite:///{here / 'mlflow.db'}", "PATH": path}),
    )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The checkout's project in a folder of its own: commands leave their files where the project lies."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("MLproject", "python_env.yaml"):
        shutil.copy(ROOT / name, folder)
    return folder


def lacking() -> str:
    """Why MLflow cannot make an environment here; empty where it can."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    pyenv = root / "bin/pyenv"
    if not pyenv.is_file():
        return "pyenv is not installed, and MLflow makes its environments with it"
    done = subprocess.run([pyenv, "latest", "--known", "3.11"], capture_output=True, text=True, check=False)
    wanted = done.stdout.strip()
    there = (root / "versions" / wanted).is_dir()
    return "" if wanted and there else f"pyenv has not compiled Python {wanted}, of which MLflow would make its environment"


def rows(here: Path, name: str, count: int) -> Path:
    text = "".join(json.dumps({"prompt": f"问 {each}", "response": "答"}, ensure_ascii=False) + "\n" for each in range(count))
    (here / name).write_text(text, "utf-8")
    return here / name


def runs_in(here: Path) -> int:
    store = client(here)
    return len(store.search_runs([each.experiment_id for each in store.search_experiments()]))


@pytest.mark.parametrize("project", PROJECTS, ids=lambda each: each.name)
def test_every_entry_point_is_a_command_with_experiment_and_overrides(project: Path) -> None:
    found = yaml.safe_load((project / "MLproject").read_text("utf-8"))["entry_points"]
    files = config.config_folder().glob("experiment/*.yaml")
    presets = {path.stem: path.read_text("utf-8").partition("\n")[0] for path in files}
    assert "main" in found
    for name, entry in found.items():
        stage = entry["command"].split()[2].removeprefix("mlops_llm.")
        assert entry["command"] == f"python -m mlops_llm.{stage} --experiment {{experiment}} --overrides {{overrides}}"
        assert name in ("main", stage) and set(entry["parameters"]) == {"experiment", "overrides"}
        default = entry["parameters"]["experiment"]["default"]
        assert not default or presets[default].startswith(f"# python -m mlops_llm.{stage} ")
    assert project != ROOT or {"data", "train", "eval", "surgery", "registry", "pipeline"} <= {*found} <= {*STAGES, "main"}


def test_one_argument_is_split_and_an_undeclared_parameter_is_a_setting(here: Path, project: Path) -> None:
    file = rows(here, "数据.jsonl", 4)
    overrides = f"op=stats dataset='{file}' op.near=false run_name='统计 一'"
    done = mlflow_run(
        here, project, "-e", "data", "--experiment-name", "数据", "-P", f"overrides={overrides}", "-P", "project=数据"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = run_of(client(here), "统计 一")
    assert run.info.status == "FINISHED" and run.data.params["dataset"] == str(file) and run.data.metrics["data/rows"] == 4
    assert run.data.tags["mlflow.project.entryPoint"] == "data" and run.data.tags["project"] == "数据"
    assert runs_in(here) == 1


def test_a_multirun_nests_its_jobs_in_the_run_that_mlflow_opened(here: Path, project: Path) -> None:
    files = [rows(here, f"{name}.jsonl", 3) for name in ("a", "b")]
    overrides = f"-m op=stats op.near=false dataset={files[0]},{files[1]} run_name=both"
    done = mlflow_run(here, project, "-e", "data", "--experiment-name", "default", "-P", f"overrides={overrides}")
    assert done.returncode == 0, done.stdout + done.stderr
    store = client(here)
    parent = run_of(store, "both")
    assert parent.data.tags["kind"] == "multirun" and parent.data.tags["mlflow.project.entryPoint"] == "data"
    jobs = [run_of(store, f"both-{each}") for each in (0, 1)]
    assert all(each.data.tags["mlflow.parentRunId"] == parent.info.run_id for each in jobs) and runs_in(here) == 3


def test_a_project_folder_runs_a_pipeline_with_its_stages_nested(here: Path, tmp_path: Path) -> None:
    """The folder of a project may be anywhere: what it starts is installed, and its own flows are in ./conf."""
    project = tmp_path / "mine"
    (project / "conf/experiment").mkdir(parents=True)
    shutil.copy(ROOT / "projects/rlhf/MLproject", project)
    file = rows(here, "own.jsonl", 3)
    (project / "conf/experiment/mine.yaml").write_text(
        f"""# python -m mlops_llm.pipeline +experiment=mine
values: {{keep: 1}}
project: rlhf
stages:
  check: {{command: "data op=validate op.structure_only=true op.keep=${{values.keep}} dataset={file}"}}
""",
        "utf-8",
    )
    words = ["--experiment-name", "rlhf", "-P", "experiment=mine", "-P", f"overrides=run_name=flow output={here / 'out'}"]
    done = mlflow_run(here, project, *words, "-P", "keep=2")
    assert done.returncode == 0, done.stdout + done.stderr
    store = client(here)
    parent, stage = run_of(store, "flow"), run_of(store, "flow-check")
    assert parent.data.tags["mlflow.project.entryPoint"] == "main" and parent.data.params["values.keep"] == "2"
    assert stage.data.tags["mlflow.parentRunId"] == parent.info.run_id and stage.data.params["op.keep"] == "2"
    assert stage.info.status == parent.info.status == "FINISHED" and runs_in(here) == 2


@pytest.mark.slow
@pytest.mark.skipif(bool(lacking()), reason=lacking())
def test_mlflow_makes_an_environment_of_its_own(here: Path) -> None:
    overrides = "overrides=op=stats dataset=sales_sft op.near=false run_name=own"
    done = mlflow_run(here, ROOT, "-e", "data", "-P", overrides, manager="virtualenv")
    assert done.returncode == 0, done.stdout + done.stderr
    assert run_of(client(here), "own").info.status == "FINISHED"
