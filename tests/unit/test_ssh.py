"""The parts of launch=ssh that need no machine: what settings name, what comes back, what a complaint means, the way."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.errors import UserError
from mlops_llm.launch.elsewhere import LostError
from mlops_llm.launch.jobs import State
from mlops_llm.launch.place import Again, Command
from mlops_llm.launch.ssh import code, far, parcel, route, start
from mlops_llm.launch.ssh.connection import Connection, travelled
from mlops_llm.launch.ssh.named import moved, named
from mlops_llm.launch.ssh.returned import Checkpoints, Ground, filters, wanted
from mlops_llm.launch.ssh.route import Route, Tracking, chosen
from mlops_llm.tracking import door, environment, proxied, store
from mlops_llm.tracking.checkpoints import CheckpointRow
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.moved import There


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("ssh: Could not resolve hostname gpu1: Name or service not known", "no machine has this name"),
        ("user@gpu1: Permission denied (publickey).", "it refuses the key"),
        ("@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.", "is another than"),
        ("No ED25519 host key is known for gpu1 and you have requested strict checking.", "is not known here"),
        ('rsync: [receiver] write failed on "/x": No space left on device (28)', "has no space left"),
    ],
)
def test_a_complaint_of_ssh_is_told_with_what_to_do(said: str, told: str) -> None:
    error = Connection("gpu1").error(255, said)
    assert told in str(error) and error.remedy and not isinstance(error, LostError)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (255, "ssh: connect to host gpu1 port 22: Connection refused"),
        (255, "ssh: Could not resolve hostname gpu1: Temporary failure in name resolution"),
        (255, "client_loop: send disconnect: Broken pipe"),
        (12, "rsync: connection unexpectedly closed (0 bytes received so far) [sender]"),
        (30, "[sender] io timeout after 600 seconds -- exiting"),
        (255, ""),
    ],
)
def test_a_connection_that_breaks_is_waited_for(code: int, said: str) -> None:
    assert isinstance(Connection("gpu1").error(code, said), LostError)


def test_a_refused_file_is_no_refused_key() -> None:
    error = Connection("gpu1").error(23, 'rsync: [receiver] mkstemp "/x/y" failed: Permission denied (13)')
    assert "refuses the key" not in str(error) and "Permission denied" in str(error)


def test_what_rsync_moved_is_read_whatever_its_separators() -> None:
    assert travelled("Number of files: 3\nLiteral data: 1,234,567 bytes\nMatched data: 9 bytes\n") == 1234567
    assert travelled("") == 0


def test_ssh_is_asked_for_no_password_and_told_of_its_configuration() -> None:
    argv = Connection("gpu1", "/x/config").argv("-T")
    assert argv[:3] == ["ssh", "-F", "/x/config"] and argv[-2:] == ["-T", "gpu1"] and "BatchMode=yes" in argv


@pytest.fixture
def folder(here: Path) -> Path:
    for name in ("rows.jsonl", "datasets/mine.jsonl", "datasets/minecraft.jsonl", "models/m/config.json", "flat/config.json"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("{}")
    (here / "batch.yaml").write_text("models: [models/m, models:/sales/3]\nrows: './rows.jsonl'\n")
    return here


def test_files_models_and_refs_are_found_in_settings(folder: Path) -> None:
    values = {
        "dataset": "rows.jsonl",
        "models": ["models/m", "models:/sales@champion"],
        "base": "flat",
        "output": "models",
        "project": "flat",
        "stages.sft.command": "train model=runs:/x/best dataset=./rows.jsonl op.note='a b'",
    }
    found = named(values, (), folder)
    assert set(found.paths) == {"rows.jsonl", "./rows.jsonl", "models/m", "flat"}
    assert found.refs == {"models:/sales@champion", "runs:/x/best"}


def test_a_dataset_of_the_folder_is_found_by_its_name_and_no_other(folder: Path) -> None:
    assert set(named({"dataset": "mine@0123abc"}, (), folder).paths) == {"datasets/mine.jsonl"}


def test_a_dataset_and_a_model_are_found_by_their_names_in_the_commands_of_stages(folder: Path) -> None:
    command = "eval model=flat datasets=[mine,other] note=minecraft"
    assert set(named({"stages.score.command": command}, (), folder).paths) == {"flat", "datasets/mine.jsonl"}


def test_a_sweep_names_more_than_its_first_job_and_a_list_of_files_more_than_itself(folder: Path) -> None:
    found = named({"dataset": "mine"}, ("-m", "dataset=mine,rows.jsonl", "launch.config=rows.jsonl"), folder)
    assert set(found.paths) == {"datasets/mine.jsonl", "rows.jsonl"}
    found = named({"op.file": "batch.yaml"}, (), folder)
    assert {"batch.yaml", "models/m", "./rows.jsonl"} == set(found.paths)


@pytest.mark.parametrize("word", ["~/.ssh/id_ed25519", "../.ssh/id_ed25519", "a/../../.ssh/id_ed25519"])
def test_no_file_says_that_a_key_outside_of_the_folder_is_to_travel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    for name in (".ssh/id_ed25519", "work/a/x"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("key")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "work/batch.yaml").write_text(f"models: [a/x, '{word}']\n")
    assert set(named({"op.file": "batch.yaml"}, (), tmp_path / "work").paths) == {"batch.yaml", "a/x"}


def test_words_of_rows_are_no_names(folder: Path) -> None:
    (folder / "secrets").mkdir()
    (folder / "secrets/key").write_text("key")
    (folder / "mine.csv").write_text("prompt,response\nwhat is in secrets/key,models/m\n")
    values = {"dataset": "mine.csv", "stages.sft.command": "train dataset=./mine.csv"}
    assert set(named(values, ("-m", "texts=mine.csv,rows.jsonl"), folder).paths) == {"mine.csv", "./mine.csv", "rows.jsonl"}


@given(st.sampled_from(["/a/b", "/a/b.jsonl", "../x"]), st.text(alphabet="abc/=,[]' ", max_size=20))
def test_a_path_is_replaced_where_it_stands_alone(path: str, rest: str) -> None:
    places = {path: "/far/1"}
    assert moved(f"dataset={path}", places) == "dataset=/far/1"
    assert moved(f"x=[{path},{path}]", places) == "x=[/far/1,/far/1]"
    assert moved(f"x={path}c", places) == f"x={path}c" and moved(f"x=/y{path}", places) == f"x=/y{path}"
    assert path in rest or moved(rest, places) == rest


def command(folder: Path, *words: str, **values: object) -> Command:
    environment = {"MLFLOW_TRACKING_URI": "sqlite:////x/mlflow.db"}
    return Command(
        "data", words, "one", "a1", "http://x", Again.repeat, folder=str(folder), environment=environment, values=values
    )


def test_a_path_in_the_folder_keeps_its_name_and_one_outside_gets_another(folder: Path, tmp_path_factory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "o.jsonl"
    outside.write_text("{}")
    given = command(
        folder, f"dataset={outside}", "model=models/m", dataset=str(outside), model="models/m", other=[str(outside)]
    )
    packed = parcel.packed(given, folder, "/far", str(folder / "outputs/one"))
    place = packed.elsewhere[str(outside)]
    assert packed.words == (f"dataset={place}", "model=models/m") and place.startswith("/far/files/")
    assert packed.links["models/m"].startswith("/far/files/") and str(outside) not in packed.links


def test_a_path_that_a_preset_names_becomes_a_word(folder: Path, tmp_path_factory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "o.jsonl"
    outside.write_text("{}")
    given = command(folder, "+experiment=mine", dataset=str(outside), models=[str(outside), "tiny"])
    packed = parcel.packed(given, folder, "/far", str(folder / "outputs/one"))
    place = packed.elsewhere[str(outside)]
    assert packed.words == ("+experiment=mine", f"dataset={place}", f"models=[{place},tiny]")


def test_an_output_outside_of_the_folder_is_inside_of_it_there(folder: Path) -> None:
    given = command(folder, "output=/else/where", output="/else/where")
    assert parcel.packed(given, folder, "/far", "/else/where").words == ("output=outputs/one",)


def test_what_is_to_be_made_outside_of_the_folder_is_made_inside_of_it_there_and_comes_back_outside(folder: Path) -> None:
    packed = parcel.packed(command(folder, "output=/else/m", output="/else/m"), folder, "/far", str(folder / "outputs/one"))
    assert packed.words == ("output=made/0/m",) and packed.made == {"/else/m": "made/0/m"}
    ground = Ground("/far/w", folder, "/far/w/outputs/one", folder / "outputs/one", {"/far/w/made/0/m": "/else/m"})
    assert ground.place("/far/w/made/0/m/model.safetensors") == Path("/else/m/model.safetensors")
    assert parcel.packed(command(folder, "output=made", output="made"), folder, "/far", "").words == ("output=made",)


def test_the_same_content_has_the_same_place_whatever_it_is_called_here(folder: Path) -> None:
    def place(name: str) -> str:
        return parcel.packed(command(folder, "op=stats", dataset=name), folder, "/far", "").links[name]

    (folder / "sub").mkdir()
    (folder / "sub/rows.jsonl").write_text("{}")
    assert place("rows.jsonl") == place("sub/rows.jsonl")
    before = place("rows.jsonl")
    (folder / "rows.jsonl").write_text("{} ")
    assert place("rows.jsonl") != before


def test_the_code_that_travels_has_all_that_a_command_reads_and_nothing_that_was_compiled() -> None:
    files = code.state().files
    assert {"src/mlops_llm/launch/places/ssh.py", "conf/train.yaml", "projects/rlhf/reward_server.py"} <= set(files)
    assert any(name.startswith("datasets/") for name in files)
    assert not [name for name in files if name.endswith(".pyc") or "__pycache__" in name]
    assert code.state().digest == code.state().digest


def row(name: str, folder: str, **tags: str) -> CheckpointRow:
    told = {"checkpoint.uri": f"file://{folder}/{name}", **tags}
    return CheckpointRow(f"m-{name}", name, int(name.partition("-")[2].partition("-")[0] or 0), "READY", "", "r", told, {})


def there(*names: str, output: str = "/far/w/outputs/one", **tags: str) -> There:
    run = RunRow("r", "one", "1", "p", "FINISHED", {"output": output, **tags}, {}, {})
    return There(run, output, tuple(row(name, output) for name in names))


@pytest.mark.parametrize(
    ("which", "best", "names"),
    [
        (Checkpoints.all, "checkpoint-10", ["checkpoint-10", "checkpoint-20-ema", "checkpoint-20"]),
        (Checkpoints.best, "checkpoint-10", ["checkpoint-10"]),
        (Checkpoints.best, "", ["checkpoint-20"]),
        (Checkpoints.none, "checkpoint-10", []),
    ],
)
def test_which_checkpoints_come_back(which: Checkpoints, best: str, names: list[str]) -> None:
    run = there("checkpoint-10", "checkpoint-20-ema", "checkpoint-20", **{"best.checkpoint": best})
    assert [each.name for each in wanted(run, which)] == names


def test_checkpoints_that_do_not_come_are_left_out_and_so_is_what_other_runs_bring() -> None:
    run = there("checkpoint-10", "checkpoint-20")
    rules = filters(run, ["/far/w/outputs/one", "/far/w/outputs/one/sft"], run.checkpoints[:1], everything=False)
    assert "--include=/checkpoint-10/" in rules and "--exclude=/checkpoint-20/" in rules and "--exclude=/sft/" in rules
    assert rules.index("--include=/checkpoint-10/") < rules.index("--exclude=checkpoint-*/")


def test_a_model_that_is_the_run_s_folder_is_left_without_its_weights() -> None:
    run = There(there().run, "/far/w/m", (row("m", "/far/w"),))
    assert "--exclude=/*.safetensors" in filters(run, [], [], everything=False)


def test_a_model_beside_the_run_s_folder_comes_by_itself() -> None:
    run = There(there().run, "/far/w/outputs/one", (row("m", "/far/w/made/0"),))
    assert not [rule for rule in filters(run, [], [], everything=False) if "/m/" in rule]


def test_a_path_there_is_one_here(tmp_path: Path) -> None:
    ground = Ground("/far/w", tmp_path, "/far/w/outputs/one", Path("/else/one"))
    assert ground.place("/far/w/outputs/one/checkpoint-1") == Path("/else/one/checkpoint-1")
    assert ground.place("/far/w/data/x") == tmp_path / "data/x"


@pytest.mark.parametrize(
    ("answer", "state", "number", "note"),
    [
        ("ended 0 ", State.done, 0, ""),
        ("ended 2 dataset: there is none", State.failed, 2, "dataset: there is none"),
        ("ended 137 ", State.failed, 137, "its process was killed there (signal 9)"),
        ("ended 143 terminated", State.failed, 143, "terminated"),
        ("rebooted", State.failed, None, "the machine was started anew while it ran"),
        ("running 12", State.running, None, "process 12 there"),
        ("waiting", State.waiting, None, ""),
    ],
)
def test_what_the_look_says(answer: str, state: State, number: int | None, note: str) -> None:
    assert start.told(answer + "\n") == (state, number, note)


def test_variables_of_a_script_are_what_they_are() -> None:
    assert start.exported({"B": "it's", "A": "x y"}) == "export A='x y'\nexport B='it'\"'\"'s'\n"


SAID = """root=/home/x/mlops_llm
name=gpu1
system=Linux
now={now}
free=1000
rsync=/usr/bin/rsync
python=/usr/bin/python3
version=3.11.7
packages={packages}
"""


def looked(now: float = 100.0, **packages: str) -> tuple[far.Far, str]:
    told = {name: here for name, (_, here) in far.needed().items()} | packages
    said = SAID.format(now=now, packages=json.dumps({"found": told, "answers": False}))
    return far.far(said, 100.0), said


def test_a_machine_that_has_all_is_good_and_one_whose_clock_is_wrong_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    found, said = looked()
    far.check(found, said, "gpu1", "")
    assert capsys.readouterr().err == "" and found.free == 1000 * 1024
    found, said = looked(now=100 - 3600)
    far.check(found, said, "gpu1", "")
    assert "the clock of gpu1 is 1 h 0 min behind" in capsys.readouterr().err


def test_an_unfit_release_is_refused_with_the_command_and_another_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, said = looked(torch="1.0")
    with pytest.raises(UserError, match=r"torch 1\.0 is of an unfit release.*pip install torch=="):
        far.check(found, said, "gpu1", "")
    monkeypatch.setattr(far, "needed", lambda: {"torch": ("==2.13.0", "2.13.0+cpu")})
    with pytest.raises(UserError, match=r"pip install torch==2\.13\.0$"):
        far.check(found, said, "gpu1", "")
    monkeypatch.undo()
    found, said = looked(psutil="99.0")
    far.check(found, said, "gpu1", "")
    assert "psutil 99.0 (here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("record", "location", "wish", "answers", "kind"),
    [
        ("sqlite:////h/mlflow.db", "file:///h/mlruns/p/r/artifacts", Tracking.auto, False, "door"),
        ("http://127.0.0.1:5000", "mlflow-artifacts:/1/r/artifacts", Tracking.auto, False, "tunnel"),
        ("http://127.0.0.1:5000", "mlflow-artifacts:/1/r/artifacts", Tracking.auto, True, "tunnel"),
        ("http://mlflow:5000", "mlflow-artifacts:/1/r/artifacts", Tracking.auto, True, "direct"),
        ("http://mlflow:5000", "mlflow-artifacts:/1/r/artifacts", Tracking.auto, False, "tunnel"),
        ("http://mlflow:5000", "s3://b/1/r/artifacts", Tracking.tunnel, True, "tunnel"),
        ("https://mlflow", "s3://b/1/r/artifacts", Tracking.auto, True, "direct"),
    ],
)
def test_which_way_leads_to_the_record(record: str, location: str, wish: Tracking, answers: bool, kind: str) -> None:
    assert chosen(record, location, wish, 21000, answers).kind == kind


@pytest.mark.parametrize(
    ("record", "location", "wish", "answers", "said"),
    [
        ("sqlite:////h/mlflow.db", "file:///h/mlruns/p/r/artifacts", Tracking.direct, False, "of this machine"),
        ("http://mlflow:5000", "/srv/mlruns/1/r/artifacts", Tracking.auto, True, "--serve-artifacts"),
        ("http://mlflow:5000", "mlflow-artifacts:/1/r/artifacts", Tracking.direct, False, "does not answer"),
        ("https://mlflow", "mlflow-artifacts:/1/r/artifacts", Tracking.auto, False, "certificate"),
    ],
)
def test_where_no_way_leads(record: str, location: str, wish: Tracking, answers: bool, said: str) -> None:
    with pytest.raises(UserError, match=said):
        chosen(record, location, wish, 21000, answers)


def test_the_record_is_named_as_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret-of-mine")
    behind = Route("door", 21000, "file:///h/mlruns").variables("sqlite:////h/mlflow.db", "/far/record.pem")
    assert behind["MLFLOW_TRACKING_URI"] == "https://127.0.0.1:21000" and behind[proxied.ROOT] == "file:///h/mlruns"
    assert "secret-of-mine" not in behind.values()
    through = Route("tunnel", 21000).variables("http://me:pw@mlflow:5000/x", "")
    assert through["MLFLOW_TRACKING_URI"] == "http://me:pw@127.0.0.1:21000/x"
    assert through["MLFLOW_TRACKING_PASSWORD"] == "secret-of-mine" and through[store.PAGES] == "http://mlflow:5000/x"


def test_artifacts_of_another_machine_are_no_folders_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    location = "file:///h/ml%20runs/p/r/artifacts"
    assert store.local_path(location) == Path("/h/ml runs/p/r/artifacts")
    monkeypatch.setenv(proxied.ROOT, "file:///h/ml%20runs/")
    assert store.local_path(location) is None and store.local_path("/h/ml runs/p/r") is None
    assert store.local_path("file:///h/ml%20runs-2/p") == Path("/h/ml runs-2/p")
    assert store.local_path("file:///far/outputs/x") == Path("/far/outputs/x")


def test_a_door_s_certificate_is_for_this_user_alone_and_good_for_both_sides(tmp_path: Path) -> None:
    pem = door.write_identity(tmp_path / "new" / "a.pem")
    assert pem.stat().st_mode & 0o077 == 0
    context = ssl.create_default_context(cafile=pem)
    context.load_cert_chain(pem)
    (known,) = context.get_ca_certs()
    assert known["subjectAltName"] == (("IP Address", "127.0.0.1"),)


def test_a_door_s_address_is_not_on_its_command_line() -> None:
    words, variables = door.server("postgresql://me:pw@db/x", "file:///h/mlruns", 21000, Path("/x/a b.pem"))
    assert not [word for word in words if "pw" in word] and variables["MLFLOW_BACKEND_STORE_URI"].endswith("pw@db/x")
    assert "'/x/a b.pem'" in words[-1]


def test_the_root_of_artifacts_is_that_of_all_experiments() -> None:
    for project in ("p", "team/sales", "a b/c/d"):
        location = f"{Path('/h/ml x/mlruns', project).as_uri()}/r/artifacts"
        assert door.artifact_root("sqlite:////h/ml x/mlflow.db", location) == "file:///h/ml%20x/mlruns"
    assert door.artifact_root("sqlite:////h/mlflow.db", "file:///moved/mlruns/p/r/artifacts") == "file:///moved/mlruns"
    assert door.artifact_root("postgresql://db/x", "file:///h/mlruns/1/r/artifacts") == "file:///h/mlruns"
    assert door.artifact_root("sqlite:////h/mlflow.db", "s3://b/p/r/artifacts") == ""


def test_a_state_of_code_that_was_sent_is_the_run_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"tags": {"git.commit": "c0ffee"}, "patches": {"uncommitted": "+x"}}
    (tmp_path / "code.json").write_text(json.dumps(told))
    monkeypatch.setenv(environment.CODE, str(tmp_path / "code.json"))
    found = environment.describe(["python", "-m", "mlops_llm.data"])
    assert found.tags["git.commit"] == "c0ffee" and found.patches == {"uncommitted": "+x"}


def test_the_certificate_of_a_run_lies_in_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_LLM_QUEUE", str(tmp_path))
    assert route.identity_file("a1") == tmp_path / "ssh" / "a1.pem"
