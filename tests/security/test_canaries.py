"""Secrets come from the environment by name, and are written nowhere: not by any stage, in any file, nor on a command line."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from mlops_llm.tracking.store import connect_to
from tests import forks
from tests.chat_server import serve as judge
from tests.commands import environment
from tests.forks import Zygote
from tests.ports import own_port
from tests.security import canaries
from tests.security.canaries import ADDRESS, Watch, found_in

SECRETS = canaries.environment()
ALL = SECRETS | {"the record's password": ADDRESS}


class Listener(BaseHTTPRequestHandler):
    """Gives rewards, hears hooks, and says the key that it was given in each refusal."""

    keys: set[str] = set()

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        Listener.keys.add(str(self.headers.get("authorization")))
        code = 200 if "completions" in body else 403
        told = {"rewards": [float(len(each)) for each in body.get("completions", ())], "key": self.headers["authorization"]}
        content = json.dumps(told).encode()
        self.send_response(code)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def listening() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def recording(folder: Path) -> Iterator[str]:
    """A real MLflow server; its address has a name and a password, which it does not ask for."""
    connect_to(f"sqlite:///{folder / 'mlflow.db'}")
    port = own_port()
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri"]
    words += [f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "artifacts")]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *words], cwd=folder, start_new_session=True,
        env=environment({"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(1200):
            try:
                urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except (OSError, URLError):
                time.sleep(0.1)
        else:
            pytest.fail("mlflow server did not start")
        yield f"http://colleague:{quote(ADDRESS, safe='')}@127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_no_secret_is_written_anywhere(tmp_path: Path) -> None:
    here, kept = tmp_path / "here", tmp_path / "server"
    for folder in (here, kept, here / "conf/experiment"):
        folder.mkdir(parents=True)
    _checkout(here)
    said = ""
    with recording(kept) as address, judge() as rater, listening() as listener, Watch(ALL) as watch:
        given = environment(SECRETS) | {
            "MLFLOW_TRACKING_URI": address, "MLOPS_LLM_CACHE": str(here / "cache"), "MLOPS_LLM_QUEUE": str(here / "queue"),
            "XDG_CACHE_HOME": str(here / "xdg"), "HOME": str(here / "home"), "TMPDIR": str(here / "tmp"),
            "DATABASE_URL": f"postgresql://me:{SECRETS['PGPASSWORD']}@db/x",
        }  # fmt: skip
        for name in ("home", "tmp"):
            (here / name).mkdir()
        there = Zygote(given) if sys.platform == "linux" else None

        def command(stage: str, *words: str, code: int = 0) -> str:
            nonlocal said
            assert there is not None
            inner = stage == "pipeline" or words[0] == "op=work"
            module, words = ("tests.security.inherited", (stage, *words)) if inner else (f"mlops_llm.{stage}", words)
            done = there.fork(module, words, here, given)
            out, err = done.communicate(timeout=300)
            assert done.returncode == code, f"{stage} {words}: {out}{err}"
            said += out + err
            return out + err

        short = ["trainer.max_steps=1", "trainer.save_steps=1", "trainer.eval_steps=1", "samples.count=0"]
        command("data", "op=validate", "dataset=rows.jsonl", "run_name=validated")
        asked = [f"reward.http.url={listener}/rewards", "reward.http.api_key_env=REWARD_KEY", "trainer.batch_size=16"]
        command(
            "train", "+experiment=grpo_math", "reward=[http]", *asked, "algo.max_new_tokens=4", "algo.generations=4", *short,
            "trainer.logging_steps=1", "run_name=trained", "holdout=0.05",
        )  # fmt: skip
        few = ["model=tiny", "dataset=sales_eval", "limit=2", "sampling.max_new_tokens=4"]
        key = ["judge=rubric_zh", f"judge.base_url={rater.address}", "judge.model=m", "judge.api_key_env=JUDGE_KEY"]
        command("eval", *few, *key, "run_name=judged")
        rater.always = "401"
        command("eval", *few, *key, "run_name=denied", "cache=off", code=2)
        command("eval", "op=report", "run=judged", "run_name=reported")
        command("eval", "op=human_export", "models=[tiny]", *few[1:], "output=rate.xlsx", "run_name=asked")
        command("surgery", "op=merge_linear", "models=[tiny,runs:/trained/checkpoint-1]", "output=merged", "run_name=merged")
        hooks = ["hook=[command,webhook]", "hook.command.run=sh -c 'echo $HOOK_KEY $MLFLOW_TRACKING_URI >&2; exit 3'"]
        hooks += ["hook.command.tries=1", f"hook.webhook.url={listener}/hook", "hook.webhook.api_key_env=HOOK_KEY"]
        command("registry", "op=promote", "name=bot", "model=./merged", "policy=gate", *hooks, "run_name=promoted")
        command("registry", "op=deploy", "model=models:/bot@champion", "output=deployed", "op.api_key_env=SERVE_KEY")
        command("registry", "op=export_runs", "op.runs=[trained,judged,merged]", "op.file=moved.tar", "run_name=moved")
        command("pipeline", "+experiment=one", "run_name=piped")
        command("data", "op=validate", "dataset=rows.jsonl", "launch=queue", "run_name=queued")
        command("launch", "op=work", "op.until_empty=true")
        command("launch", "op=list")
    assert Listener.keys == {f"Bearer {SECRETS[name]}" for name in ("REWARD_KEY", "HOOK_KEY")}, "the keys were used"
    assert rater.keys == {f"Bearer {SECRETS['JUDGE_KEY']}"}
    assert watch.rounds > 20 and not watch.seen, watch.seen
    assert not [*found_in(said.encode(), ALL)], said
    files = [each for each in tmp_path.rglob("*") if each.is_file() and here / "project.env" != each]
    told = {str(each.relative_to(tmp_path)): [*found_in(each.read_bytes(), ALL)] for each in files}
    leaks = {name: names for name, names in told.items() if names}
    assert len(files) > 100 and not leaks, "\n".join(f"{name}: {names}" for name, names in leaks.items())
    assert any(name.startswith("here/queue/logs") for name in told) and [*here.rglob("manifest.json")]
    assert {"here/rate.xlsx", "here/moved.tar"} <= told.keys() and [*here.glob("outputs/reported/**/*.html")]


def _checkout(here: Path) -> None:
    """A checkout with a file that was not committed, such as people keep keys in; the record holds its patch."""
    (here / "rows.jsonl").write_text("".join(f'{{"prompt": "问题 {each}", "response": "回答"}}\n' for each in range(12)))
    (here / "conf/experiment/one.yaml").write_text(
        "# python -m mlops_llm.pipeline +experiment=one\nproject: piped\nstages:\n"
        '  only: {command: "data op=stats dataset=rows.jsonl op.near=false"}\n'
    )
    (here / ".gitignore").write_text("tmp\nhome\n")
    own = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", ".gitignore", "rows.jsonl"], [*own, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=here, check=True)
    lines = [f"{name}={value}" for name, value in SECRETS.items()] + [f"said {value} aloud" for value in SECRETS.values()]
    (here / "project.env").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("secret", ["plain-words-1", ADDRESS, *list(SECRETS.values())[:3]])
def test_the_search_finds_what_is_hidden(secret: str) -> None:
    """A search that finds nothing proves nothing unless it would have found it."""
    for before in ("", "u:", "me:", "Bearer "):
        for text in (f"{before}{secret}", f"{before}{secret};more", f"{before}{secret}:x"):
            for hidden in (text.encode(), base64.b64encode(text.encode()), quote(text, safe="").encode()):
                assert [*found_in(b"{ " + hidden + b" }", {"it": secret})] == ["it"], hidden
    assert not [*found_in(b"nothing", {"it": secret})]


def test_forks_hold_the_canaries() -> None:
    """The process that commands are forks of must not have been started without them."""
    assert forks.FREE.isdisjoint(SECRETS)
