"""Commands as jobs of a real Ray cluster of two nodes, and work that is spread over it."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest

import mlops_llm
from mlops_llm import digest
from mlops_llm.data import formats, stats, tokens
from mlops_llm.data.__main__ import STAGE as DATA
from mlops_llm.data.dedup import exact, minhash, semantic, texts
from mlops_llm.data.dedup.embedders import Use
from mlops_llm.data.dedup.keep import Keep
from mlops_llm.data.engine import Engine, Local, Where
from mlops_llm.data.kinds import Kind
from mlops_llm.data.ops.validate import longest_view
from mlops_llm.data.validate import Checks, CountTokens, check
from mlops_llm.entry import launch
from mlops_llm.eval.__main__ import STAGE as EVAL
from mlops_llm.launch import dashboard, nodes, sent
from mlops_llm.launch.__main__ import STAGE as LAUNCH
from mlops_llm.launch.checkout import Checkout
from mlops_llm.launch.places import ray
from mlops_llm.models.tiny import corpus
from mlops_llm.train.__main__ import STAGE as TRAIN
from tests.commands import SMOKE
from tests.ray_cluster import Cluster
from tests.record import artifacts_of, client, run_of

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (make install-test)")]
SOURCES = str(Path(mlops_llm.__file__).parents[1])
CANARY = f"canary-{token_hex(8)}"  # not a word of this file, which travels with the code


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes; the path is short because Ray's sockets lie beneath it."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    made = Cluster(folder)
    try:
        made.add_node()
        yield made
    finally:
        made.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def there(cluster: Cluster, here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder whose commands reach the cluster's dashboard."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLOPS_LLM_QUEUE", str(here / "queue"))
    monkeypatch.setenv("PYTHONPATH", SOURCES)
    for name, value in cluster.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS")  # Ray Jobs need the dashboard alone
    monkeypatch.setattr(dashboard, "_PATIENCE", 60.0)  # it is slow where other tests take the cores
    return here


def run(stage: Any, *words: str, capfd: pytest.CaptureFixture[str], code: int = 0) -> str:
    """What a command prints."""
    capfd.readouterr()
    got = launch(stage, list(words))
    out, err = capfd.readouterr()
    assert got == code and "Traceback" not in err, out + err
    return out + err


SEVERAL = "the record is a file, and several machines that write it would break it"
STATS = ["op=stats", "dataset=sales_sft", "op.near=false"]


def test_a_training_on_the_cluster_has_the_weights_of_one_here(
    there: Path, trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = run(TRAIN, *SMOKE, "run_name=first", "seed=7", "launch=ray", capfd=capfd)
    assert "sent to ray at http://127.0.0.1:" in said and "Running entrypoint" not in said
    done = run_of(client(there), "first")
    assert done.info.status == "FINISHED" and done.data.tags["queue.job"].startswith("ray at ")
    for name in ("checkpoint-10", "checkpoint-20"):
        assert digest.weights(there / "outputs/first" / name) == digest.weights(trained / "outputs/first" / name)
    assert "done" in run(LAUNCH, "op=list", capfd=capfd)
    assert "train/loss" in done.data.metrics


def test_code_that_is_sent_is_the_same_and_recorded_as_the_same(
    there: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    run(DATA, *STATS, "launch=ray", "launch.code=sent", "run_name=sent", "launch.folder=" + str(there / "lasting"), capfd=capfd)
    found = run_of(client(there), "sent")
    assert found.info.status == "FINISHED" and (there / "lasting/outputs/sent/result.json").is_file()
    own = Checkout()
    assert f"_ray_pkg_{own.digest[:32]}.zip" in cluster.read("/api/jobs/")
    monkeypatch.undo()
    from mlops_llm.tracking.environment import describe

    here = describe(["python", "-m", "mlops_llm.data"])
    assert found.data.tags["git.commit"] == here.tags["git.commit"]
    assert found.data.tags["git.uncommitted"] == here.tags["git.uncommitted"]
    assert ("environment/uncommitted.patch" in artifacts_of(client(there), found)) == bool(here.patches)


def test_no_key_is_in_what_ray_keeps_and_a_file_on_the_nodes_provides_it(
    there: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDING_API_KEY", CANARY)
    words = ["op=dedup_semantic", "dataset=sales_sft", "op.embedder=m", "op.threshold=0.9", "op.base_url=http://127.0.0.1:9"]
    words += ["op.api_key_env=EMBEDDING_API_KEY", "launch=ray"]
    said = run(DATA, *words, "run_name=without", capfd=capfd, code=2)
    assert "needs:       EMBEDDING_API_KEY in the job's environment: where its nodes were started" in said
    assert "the environment variable EMBEDDING_API_KEY is not set" in said
    assert "not set" in run_of(client(there), "without").data.tags["run.error"]
    keys = there / "keys"
    keys.write_text(f"EMBEDDING_API_KEY={CANARY}\n")
    keys.chmod(0o600)
    said = run(DATA, *words, "run_name=with", f"launch.env_file={keys}", capfd=capfd, code=1)
    assert "Connection refused" in said or "check that the server runs" in said
    kept = [path for path in cluster.folder.rglob("*") if path.is_file() and path.stat().st_size < 2**24]
    shown = cluster.read("/api/jobs/") + "".join(path.read_text("utf-8", "replace") for path in kept)
    mine = "".join(path.read_text("utf-8", "replace") for path in (there / "queue").rglob("*.json"))
    assert "EMBEDDING_API_KEY" in mine and CANARY not in shown + mine


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["launch.address=http://127.0.0.1:9"], 2, "no dashboard of Ray answers"),
        (["launch.address=head:8265"], 2, "launch.address: is no address of a server"),
        (["launch.cpus=-1"], 2, "launch.cpus: is -1"),
        (["launch.folder=here"], 2, "launch.folder: is here; give an absolute path"),
        (["launch.python=/nowhere/python"], 2, "/nowhere/python on the node is no Python from 3.11 with mlops_llm"),
        (["launch.folder=/proc/nowhere"], 2, "there is no /proc/nowhere on the node"),
        (["launch.env_file=/nowhere/keys"], 2, "there is no /nowhere/keys on the node"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    there: Path, capfd: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    told = run(DATA, *STATS, "launch=ray", "run_name=wrong", *words, capfd=capfd, code=code)
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert said in line
    if (there / "mlflow.db").exists() and sent.jobs():
        wrong = run_of(client(there), "wrong")
        assert wrong.info.status == "FAILED" and said.partition(":")[0] in wrong.data.tags["run.error"]


def test_a_record_that_is_a_file_of_another_machine_is_refused_by_the_node(
    there: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "environment", SimpleNamespace(machine=lambda: "laptop/0"))
    told = run(DATA, *STATS, "launch=ray", "run_name=far", capfd=capfd, code=2)
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert line == f"error: {there / 'mlflow.db'}: {SEVERAL}; {nodes.REMEDY}"
    refused = run_of(client(there), "far")
    assert refused.info.status == "FAILED" and SEVERAL in refused.data.tags["run.error"]


def test_a_wrong_token_and_code_too_large_are_refused_before_anything_is_sent(
    there: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "LARGEST", 100_000)
    said = run(DATA, *STATS, "launch=ray", "launch.code=sent", capfd=capfd, code=2)
    assert "too large to be sent" in said or "the cluster takes 100 kB" in said
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    assert "the cluster wants its token" in run(DATA, *STATS, "launch=ray", capfd=capfd, code=2)
    assert sent.jobs() == []


def test_a_job_that_finds_no_room_waits_says_why_and_can_be_taken_back(there: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = run(DATA, *STATS, "launch=ray", "launch.gpus=8", "launch.wait=false", "run_name=big", capfd=capfd)
    assert "it waits until the cluster has room: it asks for 8 GPU, all nodes have 0 GPU" in said
    assert run_of(client(there), "big").info.status == "SCHEDULED"
    assert "it asks for 8 GPU, all nodes have 0 GPU" in run(LAUNCH, "op=list", capfd=capfd)
    run(LAUNCH, "op=cancel", "op.job=big", capfd=capfd)
    assert run_of(client(there), "big").info.status == "KILLED"


@pytest.fixture(scope="module")
def driver(cluster: Cluster) -> Iterator[Engine]:
    """This process as a driver of the cluster, as a job's is."""
    with mock.patch.dict(os.environ, {**cluster.variables, "PYTHONPATH": SOURCES}), Where.ray.engine() as engine:
        yield engine


@pytest.fixture
def within(there: Path, cluster: Cluster, driver: Engine, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose commands are drivers of the cluster."""
    monkeypatch.setenv("RAY_ADDRESS", cluster.variables["RAY_ADDRESS"])
    return there


LETTERS = (
    "的是了我有和人这中大为上个国以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得"
)


def written(file: Path, count: int, sound: bool) -> Path:
    """Rows of which a tenth each is equal to an earlier one, nearly so, apart by a number, or another answer to the same."""
    draw, rows = random.Random(7), list[tuple[str, str]]()
    flawed = ["", "  x ", "a\u200bb", "13912345678", "<|im_start|>user", "\ufffd", "长" * 900]
    with file.open("w", encoding="utf-8") as into:
        for place in range(count):
            asked, said = ("".join(draw.choices(LETTERS, k=most)) for most in (draw.randint(12, 30), draw.randint(50, 90)))
            sort = draw.randrange(10) if rows else 9
            if sort < 4:
                asked, before = draw.choice(rows)
                at = draw.randrange(len(before))
                said = [before, before[:at] + "，" + before[at + 1 :], f"{before}{place}", said][sort]
            elif sort > 4:
                rows.append((asked, said))
            if place % 500 == 3 and not sound:
                said = draw.choice(flawed)
            row = {"prompt": asked, "response": said, "label": len(asked)}
            into.write((json.dumps(row, ensure_ascii=False) if sound or place % 997 else "{broken") + "\n")
    return file


def test_both_nodes_work_and_what_they_find_in_20_000_rows_is_found_here(here: Path, driver: Engine) -> None:
    rows, sound = written(here / "rows.jsonl", 20_000, False), written(here / "sound.jsonl", 20_000, True)

    def tables() -> Iterator[pa.Table]:
        return texts.tables(stats.usable(formats.records(sound), Kind.sft))

    def node(table: pa.Table) -> pa.Table:
        import ray

        time.sleep(0.2)
        return pa.table({"node": [ray.get_runtime_context().get_node_id()]})

    assert len(set(pa.concat_tables(driver.map(node, list(tables()) * 4))["node"].to_pylist())) == 2
    tokenizer = tokens.tokenizer("tiny")

    def count(kind: Kind) -> CountTokens:
        return partial(longest_view, tokenizer, kind=kind)

    whole, parts = (
        (
            exact.find(tables(), ["answer", "prompt"], Keep.longest, True, engine or Local()),
            minhash.find(tables(), ["prompt", "answer"], Keep.first, 0.8, 3, engine or Local()),
            stats.measure(formats.records(rows), Kind.sft, tokenizer, engine=engine),
            check(formats.records(rows), None, Checks(max_tokens=100), count, engine=engine),
        )
        for engine in (None, driver)
    )
    for here_, there_ in zip(whole[:2], parts[:2], strict=True):
        assert there_.removed.equals(here_.removed) and len(here_.removed) > 1000
        assert there_.different.equals(here_.different) and len(here_.different) > 100
        assert (there_.rows, there_.unlisted, there_.facts) == (here_.rows, here_.unlisted, here_.facts)
    assert parts[2] == whole[2] and parts[2].duplicates > 100
    assert parts[3].findings.table() == whole[3].findings.table() and len(whole[3].findings.counts) > 6
    assert (parts[3].findings.counts, parts[3].fields, parts[3].characters) == (
        whole[3].findings.counts, whole[3].fields, whole[3].characters,
    )  # fmt: skip


def test_rows_are_embedded_by_workers_as_here(here: Path, driver: Engine) -> None:
    rows = written(here / "rows.jsonl", 400, True)
    here_, there_ = (
        semantic.find(texts.tables(stats.usable(formats.records(rows), Kind.sft)), ["answer"], Keep.first, 0.9, Use(), engine)
        for engine in (Local(), driver)
    )
    assert there_.removed.equals(here_.removed) and there_.different.equals(here_.different) and len(here_.removed) > 50


def test_a_job_that_works_over_its_cluster_makes_the_same_version(
    there: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written(there / "rows.jsonl", 2000, True)
    monkeypatch.setenv("PYTHONPATH", SOURCES)
    words = ["op=dedup_exact", "dataset=rows.jsonl", "name=made"]
    run(DATA, *words, "op.engine=ray", "launch=ray", "launch.cpus=0", "run_name=over", capfd=capfd)
    (there / "datasets/made.jsonl").rename(there / "over.jsonl")
    run(DATA, *words, "run_name=here", capfd=capfd)
    assert (there / "over.jsonl").read_bytes() == (there / "datasets/made.jsonl").read_bytes()
    over, here = (json.loads((there / f"outputs/{name}/result.json").read_text("utf-8")) for name in ("over", "here"))
    assert over["digests"] == here["digests"] and over["rows"] == here["rows"] and over["rows"]["removed"] > 10


SCORE = ["model=tiny", "dataset=sales_eval", "metric=[exact_match,bleu]"]
SCORE += ["sampling.temperature=0", "sampling.max_new_tokens=12"]
RAY = ["engine=ray", "engine.engine=hf", "engine.workers=1", "engine.shard=4"]


def test_answers_of_workers_are_those_of_the_engine_here_and_are_known_afterwards(
    within: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_LLM_CACHE", str(within / "cache"))
    run(EVAL, *SCORE, "engine=hf", "cache=off", "run_name=here", capfd=capfd)
    run(EVAL, *SCORE, *RAY, "run_name=spread", capfd=capfd)
    here, spread = (run_of(client(within), name).data for name in ("here", "spread"))
    for name in ("score/exact_match", "score/bleu"):
        assert spread.metrics[name] == here.metrics[name]
    assert spread.params["engine.engine"] == "hf" and spread.params["engine.workers"] == "1"
    said = run(EVAL, *SCORE, "engine=hf", "run_name=again", capfd=capfd)
    assert "known" in said or "from before" in said


def test_a_worker_that_dies_is_replaced_and_its_shard_asked_again(within: Path, cluster: Cluster) -> None:
    from mlops_llm.inference.engine import Care, Request, Sampling
    from mlops_llm.inference.engines.hf import Hf
    from mlops_llm.inference.engines.ray import OverRay
    from mlops_llm.models import load
    from mlops_llm.models.load import ModelLoad
    from mlops_llm.models.ref import resolve

    files = load.inspect(resolve("tiny"), ModelLoad())
    tokenizer = load.tokenizer_of(files)
    asked = []
    for place, each in enumerate(corpus.exchanges(1, 48)):
        turns = [{"role": "user", "content": each.prompt}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        asked.append(Request(place, turns, text, place))
    greedy, rows = Sampling(2, 48, temperature=0), [tokenizer(each.text)["input_ids"] for each in asked[:6]]
    with Hf().open(files, ModelLoad(), tokenizer, 512) as session:
        here = {place: one.text for place, one in session.generate(asked, greedy, Care())}
        likely = dict(session.logprobs(rows, [1] * 6, 4, Care()))
    with OverRay("hf", workers=2, shard=4).open(files, ModelLoad(), tokenizer, 512) as session:
        killed, found = [], {}
        until = time.monotonic() + 400
        while len(cluster.workers("_Worker")) < 2:
            assert time.monotonic() < until, "the workers did not begin"
            time.sleep(0.2)
        for place, one in session.generate(asked, greedy, Care()):
            if not killed:
                killed = cluster.workers("_Worker")
                killed[0].kill()
            found[place] = one.text
        assert found == here and len(killed) == 2
        spread = dict(session.logprobs(rows, [1] * 6, 4, Care()))
    assert all(spread[place] == pytest.approx(likely[place], abs=1e-5) for place in likely)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["engine=ray", "engine.engine=openai"], "engine.engine: is openai, which opens no model of its own"),
        (["engine=ray", "engine.engine=vlm"], "unknown engine 'vlm' (did you mean vllm?)"),
        (["engine=ray", "engine.engine=hf", "engine.cpus=64"], "engine.cpus: is 64, and the cluster has 2 cores"),
        (["engine=ray", "engine.settings={tensor_parallel: 4}"], "a worker takes 4 GPUs, and the cluster has no GPU"),
        (
            ["engine=vllm", "engine.tensor_parallel=2"],
            "engine.tensor_parallel: tensor_parallel=2 takes 2 GPUs, and",
        ),
    ],
)
def test_an_engine_that_cannot_be_is_refused_in_one_line(
    within: Path, capfd: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    code = 1 if "cluster has" in said else 2
    assert said in run(EVAL, *SCORE, *words, "cache=off", capfd=capfd, code=code)


def test_a_head_that_is_not_there_is_told_before_anything_is_read(
    within: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    said = run(DATA, "op=dedup_exact", "dataset=sales_sft", "op.engine=ray", capfd=capfd, code=2)
    assert "no head of Ray answers at 127.0.0.1:9" in said
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
    assert "launch=ray" in run(DATA, "op=dedup_exact", "dataset=sales_sft", "op.engine=ray", capfd=capfd, code=2)


LONG = [*SMOKE, "samples.count=0", "register_as=null", "trainer.max_steps=4000", "trainer.save_steps=4"]
LONG += ["trainer.eval_steps=4", "seed=3"]


def begun(folder: Path, name: str) -> None:
    """Wait until a training has done steps."""
    until, steps = time.monotonic() + 400, folder / "outputs" / name / "steps.jsonl"
    while not (steps.is_file() and '"step": 5,' in steps.read_text()):
        assert time.monotonic() < until, "the training did not begin"
        time.sleep(0.2)


def test_a_job_that_is_cancelled_saves_and_goes_on_where_one_wants(there: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(TRAIN, *LONG, "run_name=stopped", "launch=ray", "launch.wait=false", capfd=capfd)
    begun(there, "stopped")
    assert "on node " in run(LAUNCH, "op=list", capfd=capfd)
    assert "resume=stopped" in run(LAUNCH, "op=cancel", "op.job=stopped", capfd=capfd)
    assert run_of(client(there), "stopped").info.status == "KILLED"
    done = json.loads((there / "outputs/stopped/steps.jsonl").read_text().splitlines()[-1])["step"]
    assert any((there / "outputs/stopped").glob("checkpoint-*"))
    said = run(TRAIN, "resume=stopped", "launch=ray", "launch.wait=false", capfd=capfd)
    assert "sent to ray" in said and done > 4
    until = time.monotonic() + 400
    while run_of(client(there), "stopped").info.status != "RUNNING":
        assert time.monotonic() < until
        time.sleep(0.2)
    run(LAUNCH, "op=cancel", "op.job=stopped", capfd=capfd)


def test_a_run_whose_cluster_is_gone_is_found_dead(there: Path, cluster: Cluster, capfd: pytest.CaptureFixture[str]) -> None:
    """The last test: it takes the cluster away."""
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()  # a driver would end with its cluster
    run(TRAIN, *LONG, "run_name=lost", "launch=ray", "launch.wait=false", capfd=capfd)
    begun(there, "lost")
    threading.Timer(1.0, cluster.end).start()
    said = run(LAUNCH, "op=attend", "op.job=lost", capfd=capfd, code=1)
    assert "is gone, and the run shows no sign of life" in said
    lost = run_of(client(there), "lost")
    assert lost.info.status == "FAILED" and "is gone" in lost.data.tags["run.error"]
    assert "failed" in run(LAUNCH, "op=list", capfd=capfd)
