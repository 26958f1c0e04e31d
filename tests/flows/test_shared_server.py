"""A team's record: PostgreSQL, SeaweedFS and MLflow with accounts, really started, used, killed and started again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPBasicAuthHandler, HTTPPasswordMgrWithPriorAuth, Request, build_opener

import pytest
import yaml

from mlops_llm import digest
from tests.commands import SMOKE, environment, ok, start, train, wait_for_step
from tests.flows.test_moving import seen
from tests.ports import own_port
from tests.processes import told
from tests.record import artifacts_of, checkpoints_of, client, run_of, steps_of
from tests.security import canaries
from tests.shared_server import CODE, SharedServer, needs

pytestmark = [needs, pytest.mark.slow]
QUICK = [*SMOKE, "samples.count=0", "register_as=null"]
NAME = "mlflow.example.com"


@pytest.fixture(scope="session")
def server() -> Iterator[SharedServer]:
    """The server, with two people and a name; large files may go to its store directly."""
    found = SharedServer("--direct", "127.0.0.1", "--names", NAME)
    try:
        found.start()
        assert "may come in" in found.users("add", "li")
        yield found
    finally:
        found.close()


@pytest.fixture
def record(server: SharedServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's client on the server, as its administrator, in this process too."""
    from mlflow import MlflowClient

    for name, value in server.variables().items():
        monkeypatch.setenv(name, value)
    return MlflowClient(server.variables()["MLFLOW_TRACKING_URI"])


def run(folder: Path, stage: str, *words: str, env: dict[str, str], fresh: bool = False) -> tuple[int, str, str]:
    """Run a command; return its exit code, output and errors."""
    process = start(folder, *words, env={"MLOPS_LLM_CACHE": str(folder / "cache"), **env}, stage=stage, fresh=fresh)
    out, err = process.communicate(timeout=400)
    assert "Traceback" not in err
    return int(process.returncode or 0), out, err


def test_only_its_owner_reads_keys_and_none_is_in_a_command_line_or_a_log(server):
    keys = json.loads((server.kept / "keys.json").read_text())
    secrets = [value for name, value in keys.items() if name != "store_id"]  # that one is a name
    for file in server.kept.iterdir():  # folders too, so that nobody sees what is in them
        assert not file.stat().st_mode & 0o077, file
    shown = [word for process in server.processes for word in told(process.cmdline) or []]
    logs = "".join(file.read_text() for file in (server.kept / "logs").iterdir())
    assert not [secret for secret in secrets if any(secret in word for word in shown) or secret in logs]
    sockets = [each for process in server.processes for each in told(process.net_connections) or []]
    listens = {each.laddr.ip for each in sockets if each.status == "LISTEN"}
    assert listens <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_a_second_start_in_the_same_folder_is_refused(server):
    words = [sys.executable, str(CODE / "serve.py"), "--folder", str(server.kept), "--port", "0"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: a server works in") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:PORT", 200),
        ("localhost:PORT", 200),
        (NAME, 200),
        (f"{NAME}:8443", 200),
        ("evil.example", 403),
        (f"{NAME}.evil", 403),
    ],
)
def test_a_name_is_let_in_besides_the_loopback_and_no_other(server, host, status):
    admin = server.variables()
    known = HTTPPasswordMgrWithPriorAuth()
    known.add_password(
        None, admin["MLFLOW_TRACKING_URI"], "admin", admin["MLFLOW_TRACKING_PASSWORD"], is_authenticated=True
    )  # fmt: skip
    address = f"{admin['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/search?max_results=1"
    asked = Request(address, headers={"Host": host.replace("PORT", str(server.port))})
    try:
        with build_opener(HTTPBasicAuthHandler(known)).open(asked, timeout=60) as answer:
            assert answer.status == status
    except HTTPError as error:
        assert (error.code, "Invalid Host header" in error.read().decode()) == (status, True)


def test_people_get_the_name_and_the_administrator_the_loopback(server):
    assert server.variables("li")["MLFLOW_TRACKING_URI"] == f"https://{NAME}"
    assert server.variables()["MLFLOW_TRACKING_URI"] == f"http://127.0.0.1:{server.port}"


def test_eight_writers_at_once_lose_no_metric(server, record, tmp_path):
    steps, began = 200, time.monotonic()
    writers = [start(tmp_path, f"w{n}", str(steps), module="tests.writing", env=server.variables()) for n in range(8)]
    for each in writers:
        _, err = each.communicate(timeout=300)
        assert each.returncode == 0, err
    print(f"{8 * steps * 2 / (time.monotonic() - began):.0f} metrics/s")
    for n in range(8):
        made = run_of(record, f"w{n}")
        assert made.info.status == "FINISHED"
        for key in ("train/loss", "train/grad_norm"):
            assert sorted(steps_of(record, made, key)) == list(range(steps))


def test_a_large_file_goes_up_in_parts_and_comes_back_the_same(server, record, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", str(5 << 20))
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", str(5 << 20))
    file = tmp_path / "large.bin"
    file.write_bytes(os.urandom((16 << 20) + 7))
    made = record.create_run(record.create_experiment("large")).info.run_id
    asked = (server.kept / "logs" / "mlflow.log").stat().st_size
    record.log_artifact(made, str(file))
    log = (server.kept / "logs" / "mlflow.log").read_text()[asked:]
    assert "mpu/create" in log and "mpu/complete" in log
    assert "PUT" not in log  # none of its bytes went through MLflow
    monkeypatch.setenv("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "false")
    record.log_artifact(made, str(file), "whole")
    record.set_terminated(made)
    for name in ("large.bin", "whole/large.bin"):
        into = tmp_path / f"back-{len(name)}"
        into.mkdir()
        assert digest.raw(Path(record.download_artifacts(made, name, str(into)))) == digest.raw(file)


def test_what_was_overwritten_at_the_same_length_is_saved_and_loaded_anew(server, record, tmp_path, monkeypatch):
    """Whole, in parts of the server's size through it, and in parts of the client's size directly."""
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", str(12 << 20))
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", str(5 << 20))
    made = record.create_run(record.create_experiment("overwritten")).info.run_id
    sizes = {"small.bin": 100, "middle.bin": (9 << 20) + 7, "large.bin": (16 << 20) + 7}

    def logged() -> dict[str, bytes]:
        written = {name: os.urandom(size) for name, size in sizes.items()}
        for name, content in written.items():
            (tmp_path / name).write_bytes(content)
            record.log_artifact(made, str(tmp_path / name))
        return written

    def stored(what: str) -> str:
        return typed(f"python {CODE}/store.py {what} backup", tmp_path, server.variables("parts"))

    logged()
    stored("save")
    assert stored("save").startswith("0 files copied, ")
    kept = logged()
    assert stored("save").startswith("3 files copied, ")
    assert {name: next((tmp_path / "backup").rglob(f"{made}/**/{name}")).read_bytes() for name in sizes} == kept
    logged()
    assert stored("load").startswith("3 files copied, ")
    assert stored("load").startswith("0 files copied, ") and stored("save").startswith("0 files copied, ")
    for name, content in kept.items():
        assert Path(record.download_artifacts(made, name, str(tmp_path))).read_bytes() == content
    record.set_terminated(made)


def test_the_backup_of_the_readme_is_restored_into_a_new_server(server, record, tmp_path, monkeypatch):
    """Word for word, but that the new server has a free port."""
    from mlflow import MlflowClient

    text = (CODE / "README.md").read_text("utf-8").partition("\n## Back up and restore\n")[2].partition("\n## ")[0]
    backup, begun, restore = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    keys, started = begun.splitlines()
    assert started == "make server FOLDER=restored PORT=5001"
    made = record.create_run(record.create_experiment("kept")).info.run_id
    for step in range(20):
        record.log_metric(made, "train/loss", 1 / (step + 1), step=step)
    file = tmp_path / "kept.bin"
    file.write_bytes(os.urandom((9 << 20) + 7))
    wanted = digest.raw(file)
    record.log_artifact(made, str(file))
    record.set_terminated(made)
    new = SharedServer()
    new.kept = new.folder / "restored"
    (new.folder / "server").symlink_to(server.kept)
    (new.folder / "projects").symlink_to(CODE.parent)
    try:
        typed(backup, new.folder)
        # From here on the old one has something else.
        file.write_bytes(os.urandom(100))
        record.log_artifact(made, str(file))
        record.log_metric(made, "train/loss", 0, step=20)
        typed(keys, new.folder)
        new.start()
        typed(restore, new.folder)
        new.end()
        new.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", new.variables()["MLFLOW_TRACKING_URI"])
        restored = MlflowClient(new.variables()["MLFLOW_TRACKING_URI"])
        assert restored.get_run(made).info.status == "FINISHED"
        told = [(each.step, each.value) for each in restored.get_metric_history(made, "train/loss")]
        assert sorted(told) == [(step, 1 / (step + 1)) for step in range(20)]
        assert digest.raw(Path(restored.download_artifacts(made, "kept.bin", str(new.folder)))) == wanted
        assert "the new password of li is in" in new.users("password", "li")
        assert new.users("remove", "li") == "li is removed\n"
    finally:
        new.close()


def typed(text: str, folder: Path, env: dict[str, str] | None = None) -> str:
    """What a shell prints that reads these lines and ends at the first that fails."""
    found = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **(env or {})}
    done = subprocess.run(
        ["bash", "-ec", text], cwd=folder, env=environment(found), capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_team_trains_evaluates_promotes_and_deploys(server, record, tmp_path, monkeypatch):
    env, cache = server.variables(), {"MLOPS_LLM_CACHE": str(tmp_path / "cache")}
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    rows = here / "ours.jsonl"
    rows.write_text(
        "".join(json.dumps({"prompt": f"问{n}", "response": f"答{n}"}, ensure_ascii=False) + "\n" for n in range(40))
    )
    code, out, err = run(here, "data", "op=add", f"dataset={rows}", "name=ours", "kind=sft", env=env | cache)
    assert code == 0, out + err
    ok(train(here, *SMOKE, "samples.count=0", "dataset=ours", "run_name=team", "checkpoints.storage=upload", env=env | cache))
    made = run_of(record, "team")
    source = record.get_model_version_by_alias("sales", "challenger").source.removeprefix("models:/")
    (best,) = [each for each in checkpoints_of(record, made).values() if each.model_id == source]
    assert best.artifact_location.startswith("mlflow-artifacts:")
    # On another machine nothing is there but the server.
    (here / "outputs" / "team").rename(tmp_path / "gone")
    other = env | {"MLOPS_LLM_CACHE": str(tmp_path / "other-cache")}
    code, out, err = run(there, "data", "op=versions", "dataset=ours", env=other)
    assert code == 0 and "v1" in out, out + err
    words = ["model=models:/sales@challenger", "dataset=sales_eval", "metric=[bleu]", "limit=2", "sampling.max_new_tokens=4"]
    code, out, err = run(there, "eval", *words, "run_name=scored", env=other)
    assert code == 0, out + err
    code, out, err = run(
        there, "registry", "op=promote", "name=sales", "op.policy=default", "op.force=true", "op.reason=first", env=other
    )
    assert code == 0, out + err
    code, out, err = run(there, "registry", "op=deploy", "model=models:/sales@champion", "op.folder=deployed", env=other)
    assert code == 0, out + err
    assert digest.weights(there / "deployed" / "model") == best.tags["digest.weights"]
    assert record.get_model_version_by_alias("sales", "champion").version == "1"
    password = {"password": env["MLFLOW_TRACKING_PASSWORD"]}
    files = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert len(files) > 50 and not [each for each in files if [*canaries.found_in(each.read_bytes(), password)]]


def test_who_has_no_right_is_told_and_what_began_goes_on(server, record, tmp_path):
    record.create_experiment("theirs")
    li = server.variables("li") | {"MLFLOW_TRACKING_URI": server.variables()["MLFLOW_TRACKING_URI"]}  # on this machine
    code, _, err = run(tmp_path, "train", *QUICK, "project=theirs", "run_name=refused", env=li)
    assert code == 2
    (line,) = [each for each in err.splitlines() if each.startswith("error: ")]
    assert "gives 'li' no right to that (runs/create)" in line
    assert "li has EDIT" in server.users("allow", "li", "EDIT", "experiment=theirs")
    words = ["trainer.max_steps=20000", "trainer.save_steps=20000", "trainer.eval_steps=20000", "trainer.logging_steps=1"]
    process = start(tmp_path, *QUICK, *words, "project=theirs", "run_name=allowed", env=li)
    wait_for_step(tmp_path, "allowed", 5, process)
    assert "any more" in server.users("take", "li", "experiment=theirs")
    until = time.monotonic() + 60
    while not list((tmp_path / "outputs" / ".spool").glob("*.jsonl")) and time.monotonic() < until:
        time.sleep(0.1)
    assert process.poll() is None  # it goes on
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "it refuses the right to that" in err
    server.users("allow", "li", "EDIT", "experiment=theirs")
    code, _, err = run(tmp_path, "registry", "op=doctor", "project=theirs", env=li)
    assert code == 0, err
    made = run_of(record, "allowed")
    assert made.info.status == "KILLED"
    logged = [json.loads(each) for each in (tmp_path / "outputs" / "allowed" / "steps.jsonl").read_text().splitlines()]
    assert set(steps_of(record, made, "train/loss")) >= {each["step"] for each in logged[:-1]}


@pytest.mark.parametrize(("name", "password", "said"), [("admin", "wrong", "refuses the name"), ("", "", "asks for a name")])
def test_a_wrong_password_is_one_line(server, tmp_path, name, password, said):
    env = server.variables() | {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password}
    env = {key: value for key, value in env.items() if value}
    code, _, err = run(tmp_path, "train", *QUICK, "run_name=never", env=env)
    assert code == 2
    assert said in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "outputs" / "never" / "steps.jsonl").exists()


LONG = ["trainer.max_steps=120", "trainer.save_steps=60", "trainer.eval_steps=60", "trainer.logging_steps=1"]


def completed(process, name, server, record, folder):
    """The run of a training that went on without its record: it ended well, and none of its steps is missing or twice there."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert "the work goes on" in err
    _, _, err = run(folder, "registry", "op=doctor", env=server.variables())  # delivers, where it came back too late
    made = run_of(record, name)
    assert made.info.status == "FINISHED", err
    assert sorted(steps_of(record, made, "train/loss")) == list(range(1, 121))
    told = {step: each.status for step, each in checkpoints_of(record, made).items()}
    assert told == {"checkpoint-60": "READY", "checkpoint-120": "READY"}
    assert not list((folder / "outputs" / ".spool").glob("*.jsonl"))
    return made


def test_a_server_killed_in_the_middle_of_a_training_loses_nothing(server, record, tmp_path):
    process = start(tmp_path, *QUICK, *LONG, "run_name=through", "checkpoints.storage=upload", env=server.variables())
    wait_for_step(tmp_path, "through", 20, process)
    server.kill()
    wait_for_step(tmp_path, "through", 70, process)
    server.start()
    made = completed(process, "through", server, record, tmp_path)
    for name, each in checkpoints_of(record, made).items():
        back = Path(record.download_artifacts(made.info.run_id, "config.yaml", str(tmp_path)))
        assert back.is_file()
        from mlflow.artifacts import download_artifacts

        files = Path(download_artifacts(f"models:/{each.model_id}", dst_path=str(tmp_path / name)))
        assert digest.weights(files) == each.tags["digest.weights"]


def test_a_database_gone_in_the_middle_of_a_training_loses_nothing(server, record, tmp_path):
    process = start(tmp_path, *QUICK, *LONG, "run_name=without", "checkpoints.storage=upload", env=server.variables())
    wait_for_step(tmp_path, "without", 20, process)
    try:
        with server.without_database():
            wait_for_step(tmp_path, "without", 70, process)
        completed(process, "without", server, record, tmp_path)
    finally:
        server.whole_again()


def test_runs_move_to_the_server_and_back(server, record, beside, tmp_path):
    back = tmp_path / "back"
    back.mkdir()
    there, here = server.variables(), {"MLFLOW_TRACKING_URI": f"sqlite:///{back / 'mlflow.db'}"}
    old = {"MLFLOW_TRACKING_URI": f"sqlite:///{beside / 'mlflow.db'}"}
    for name, source, target in (("one", old, there), ("two", there, here)):
        archive = tmp_path / f"{name}.tar"
        code, out, err = run(tmp_path, "registry", "op=export_runs", "op.runs=[first]", f"op.file={archive}", env=source)
        assert code == 0, out + err
        for times in range(2):
            code, out, err = run(tmp_path, "registry", "op=import_runs", f"op.file={archive}", env=target)
            assert code == 0 and ("0 new" in out) == bool(times), out + err
    assert seen(record, "first") == seen(client(beside), "first") == seen(client(back), "first")
    first = run_of(client(beside), "first").info.run_id
    assert run_of(client(back), "first").data.tags["imported.run"] == run_of(record, "first").data.tags["imported.run"] == first
    for each in checkpoints_of(record, run_of(record, "first")).values():
        assert each.tags["checkpoint.storage"] == "upload"


def test_a_database_of_another_mlflow_is_one_line_and_upgraded_when_asked(server, tmp_path, monkeypatch):
    import psycopg2
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    parts = server.variables("parts")
    for name in ("PGPASSFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "MLFLOW_S3_ENDPOINT_URL"):
        monkeypatch.setenv(name, parts[name])
    owner = psycopg2.connect(host=parts["PGHOST"], port=parts["PGPORT"], user="postgres", dbname="postgres")
    owner.autocommit = True
    owner.cursor().execute("CREATE DATABASE older OWNER mlflow")
    owner.close()
    uri = f"postgresql+psycopg2://mlflow@{parts['PGHOST']}:{parts['PGPORT']}/older"
    Base.metadata.create_all(create_engine(uri))
    config = _get_alembic_config(uri)
    head = ScriptDirectory.from_config(config).get_current_head()
    command.upgrade(config, f"{head}-1")

    def prepared(*words: str) -> subprocess.CompletedProcess[str]:
        env = environment({key: os.environ[key] for key in os.environ if key.startswith(("AWS_", "PG", "MLFLOW_S3"))})
        words = (sys.executable, str(CODE / "prepare.py"), *words)
        return subprocess.run(
            words, env=env | {"MLFLOW_BACKEND_STORE_URI": uri}, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    before = prepared()
    assert (before.returncode, before.stderr.count("\n")) == (1, 1)
    assert "is of an older MLflow; back it up" in before.stderr
    client = {"MLFLOW_TRACKING_URI": uri, "PGPASSFILE": parts["PGPASSFILE"]}
    code, _, err = run(tmp_path, "registry", "op=list", env=client, fresh=True)
    assert code == 2 and "the database is of an older MLflow; back it up, then: mlflow db upgrade postgresql" in err
    assert prepared("--upgrade").returncode == 0
    code, _, err = run(tmp_path, "registry", "op=list", env=client, fresh=True)
    assert code == 0, err
    with create_engine(uri).begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    assert "upgraded by a newer MLflow" in prepared("--upgrade").stderr
    code, _, err = run(tmp_path, "registry", "op=list", env=client, fresh=True)
    assert code == 2 and "the database is of a newer MLflow than" in err and len(err.strip().splitlines()) == 1


def test_who_lives_is_judged_by_the_servers_clock(server, record, monkeypatch):
    from mlops_llm.tracking import clock, environment
    from mlops_llm.tracking.store import check_address

    real = time.time
    there = {"run.host": "another/1"}

    def at(hours: float) -> Callable[[], float]:
        return lambda: real() + hours * 3600

    try:
        for mine, other in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, 1)):
            monkeypatch.setattr(time, "time", at(other))
            check_address()
            beat = environment.process_tags()["run.heartbeat"]
            monkeypatch.setattr(time, "time", at(mine))
            check_address()
            assert environment.believed_alive(there | {"run.heartbeat": beat})
            late = str(int(float(beat) - 2 * environment.SILENCE))
            assert not environment.believed_alive(there | {"run.heartbeat": late})
    finally:
        monkeypatch.setattr(time, "time", real)
        check_address()
    assert abs(clock.now() - real()) < 60


@pytest.mark.skipif(
    not shutil.which("docker") or bool(subprocess.run(["docker", "compose", "version"], capture_output=True).returncode),
    reason="docker compose is not installed",
)
def test_compose_reads_its_file(tmp_path):
    words = [sys.executable, str(CODE / "serve.py"), "--write-only", "--folder", str(tmp_path / "server")]
    subprocess.run(words, check=True, capture_output=True)
    shutil.copytree(CODE, tmp_path / "projects" / "server")
    words = ["docker", "compose", "-f", str(tmp_path / "projects" / "server" / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_compose_starts_what_make_server_starts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(CODE))
    import keys
    import parts
    import serve

    told = yaml.safe_load((CODE / "compose.yaml").read_text())
    services = told["services"]
    assert services["mlflow"]["command"] == ["mlflow", *parts.mlflow("0.0.0.0", 5000, 2)]
    known = keys.keys(tmp_path)
    wanted = parts.mlflow_environment("/run/secrets", serve.CONTAINERS, known, direct=False)
    assert services["mlflow"]["environment"] == {name: wanted[name] for name in serve.COMPOSED}
    assert services["postgres"]["environment"]["POSTGRES_INITDB_ARGS"].split() == parts.DATABASE
    assert services["postgres"]["image"].partition(":")[2] == "15" and "command" not in services["postgres"]
    assert services["seaweedfs"]["command"][: len(parts.STORE)] == parts.STORE
    monkeypatch.setattr(parts, "program", lambda name: name)
    here = named(parts.seaweedfs(Path("/w"), "0.0.0.0", [8333, *range(1, 8)], {}).command[1:])
    there = named(services["seaweedfs"]["command"])
    ports = {name for name in here if ".port" in name} - {"-s3.port.iceberg", "-s3.port.lance"}
    # Alone in its container it has its usual ports; the rest of the net reaches S3 by its name, and nothing is published.
    assert here.keys() - there.keys() == (ports - {"-s3.port"}) | {"-logtostderr", "-filer.localSocket", "-s3.ip.bind"}
    assert there.keys() <= here.keys()
    differ = {name: value for name, value in there.items() if here[name] != value}
    assert differ == {"-dir": "/data", "-ip": "seaweedfs", "-ip.bind": "0.0.0.0"}
    assert [name for name, each in services.items() if "ports" in each] == ["mlflow"]
    assert services["mlflow"]["ports"] == ["127.0.0.1:5000:5000"]
    done = subprocess.run(
        [sys.executable, str(CODE / "serve.py"), "--write-only", "--folder", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    files = {each["file"].rpartition("/")[2] for each in told["secrets"].values()}
    files |= {each["env_file"].rpartition("/")[2] for each in services.values() if "env_file" in each}
    assert files <= {each.name for each in tmp_path.iterdir()}
    secret = dict(line.split("=", 1) for line in (tmp_path / "compose.env").read_text().splitlines())
    assert secret | services["mlflow"]["environment"] == wanted
    assert not [value for value in secret.values() if value in (CODE / "compose.yaml").read_text() + done.stdout]


def test_compose_makes_the_databases_as_the_account_of_the_image(tmp_path, monkeypatch):
    """Who runs the script is not root, and reads none of the files that only their owner may."""
    monkeypatch.syspath_prepend(str(CODE))
    import parts

    folder = Path(tempfile.mkdtemp(prefix="mlops_llm_compose."))
    who = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    try:
        subprocess.run(
            [sys.executable, str(CODE / "serve.py"), "--write-only", "--folder", str(folder / "kept")],
            check=True, capture_output=True,
        )  # fmt: skip
        told = yaml.safe_load((CODE / "compose.yaml").read_text())["services"]["postgres"]
        lines = (folder / "kept" / told["env_file"].rpartition("/")[2]).read_text().splitlines()
        given = dict(line.split("=", 1) for line in lines)
        owner = (folder / "kept" / "compose.database_owner").read_text()
        if who:
            folder.chmod(0o711)
            shutil.copy(CODE / "databases.sh", folder)
            (folder / "databases.sh").chmod(0o644)
        with database(parts.binaries(), folder, owner, told["environment"]["POSTGRES_INITDB_ARGS"].split(), who) as known:

            def made(more: dict[str, str], command: list[str]) -> subprocess.CompletedProcess[str]:
                env = {"PATH": f"{parts.binaries()}:/usr/bin:/bin", **known, **more}
                return subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, check=False, **who)

            script = ["sh", str(folder / "databases.sh" if who else CODE / "databases.sh")]
            health = ["sh", "-c", told["healthcheck"]["test"][1].replace("$$", "$")]
            without = made({}, script)
            assert without.returncode and "compose.postgres.env" in without.stderr
            assert made(given, health).returncode
            done = made(given, script)
            assert done.returncode == 0, done.stderr
            assert made(given, health).returncode == 0  # it asks as MLflow does, by its password
            assert made({"MLFLOW_DATABASE_PASSWORD": "another"}, health).returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def named(words: list[str]) -> dict[str, str]:
    """Options of SeaweedFS -> their values."""
    return {each.partition("=")[0]: each.partition("=")[2] for each in words}


@contextmanager
def database(programs: Path, folder: Path, owner: str, words: list[str], who: dict[str, Any]) -> Iterator[dict[str, str]]:
    """A PostgreSQL as its image makes it, and where it is."""
    data, password, port = folder / "data", folder / "password", own_port()
    data.mkdir(mode=0o700)
    password.write_text(owner)
    if who:
        for each in (data, password):
            shutil.chown(each, "postgres", "postgres")
    words = [f"{programs}/initdb", "-D", str(data), "--username=postgres", f"--pwfile={password}", "--no-sync", *words]
    subprocess.run(words, cwd="/", check=True, capture_output=True, **who)
    words = [f"{programs}/postgres", "-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
    process = subprocess.Popen(
        [*words, "-c", "unix_socket_directories="], cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **who
    )
    known = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGPASSWORD": owner}
    try:
        for _ in range(600):
            asked = [f"{programs}/pg_isready", "--quiet", "--username=postgres"]
            if subprocess.run(asked, env=known, cwd="/", check=False).returncode == 0:
                break
            time.sleep(0.1)
        yield known
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_files_wait_while_the_store_is_gone(server, record, tmp_path):
    top, *_ = server.processes
    top.suspend()  # or it would end the rest
    server.part("weed").kill()
    code, out, err = run(tmp_path, "train", *QUICK, "trainer.max_steps=2", "run_name=waits", env=server.variables())
    assert code == 0, out + err
    assert "the record cannot be reached" in err and "waits on disk" in err
    server.kill()
    server.start()
    _, _, err = run(tmp_path, "registry", "op=doctor", env=server.variables())
    made = run_of(record, "waits")
    assert made.info.status == "FINISHED", err
    assert {"config.yaml", "result.json"} <= artifacts_of(record, made)


def test_a_part_that_dies_ends_all_with_its_last_line(server):
    """The last of this file: nothing runs afterwards."""
    server.part("postgres").kill()
    process = server._process
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error: postgres ended (SIGKILL): " in out
    assert not [each for each in server.kept.glob("postgres/postmaster.pid") if each.stat().st_size == 0]
