"""What projects/server tells to type can be typed, in both languages."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.contract.test_readme import ROOT, commands

PAGE = "projects/server/README.md"
HELP = {
    name: subprocess.run(
        [sys.executable, str(ROOT / "projects" / "server" / name), "--help"], capture_output=True, text=True, check=True
    ).stdout
    for name in ("serve.py", "users.py")
}


def test_both_languages_show_the_same_commands():
    assert commands(PAGE) == commands(PAGE.replace(".md", ".zh.md"))


def test_every_line_is_of_a_kind_that_is_tried():
    """tests/flows/test_shared_server.py types those of the backup and the restore as they stand.

    It also starts what `make server` starts and the other programs, with words of its own, but no Docker.
    """
    kinds = r"make server|python projects/server/|python -m mlops_llm|set -a; \. \w+/\w+\.env; set \+a"
    kinds += r"|pg_(dump|restore) |mkdir |cp |docker compose "
    assert [line for line in commands(PAGE) if not re.match(kinds, line)] == []


@pytest.fixture
def code(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the server's programs, whose modules can be imported."""
    monkeypatch.syspath_prepend(str(ROOT / "projects" / "server"))
    return ROOT / "projects" / "server"


def test_names_come_on_top_of_what_mlflow_allows_by_itself(code):
    import parts
    from mlflow.server.security_utils import get_default_allowed_hosts

    def allowed(*words: str) -> list[str]:
        told = parts.mlflow("127.0.0.1", 5000, 2, *words)
        return told[told.index("--allowed-hosts") + 1].split(",")

    here = get_default_allowed_hosts()
    assert allowed("mlflow.example.com, gpu1") == [*here, "mlflow.example.com", "mlflow.example.com:*", "gpu1", "gpu1:*"]
    assert allowed("", "https://mlflow.example.com:8443") == [*here, "mlflow.example.com", "mlflow.example.com:*"]
    assert "--allowed-hosts" not in parts.mlflow("127.0.0.1", 5000, 2)


def test_compose_is_called_by_the_names_of_make_server_and_by_localhost(code, tmp_path):
    import parts
    from mlflow.server.security_utils import is_allowed_host_header, should_block_cors_request

    def written(*words: str) -> dict[str, str]:
        words = (sys.executable, str(code / "serve.py"), "--write-only", "--folder", str(tmp_path), *words)
        subprocess.run(words, check=True, capture_output=True)
        return dict(line.split("=", 1) for line in (tmp_path / "compose.env").read_text().splitlines())

    bare, told = written(), written("--names", "mlflow.example.com, gpu1", "--url", "https://mlflow.example.com:8443")
    named = {name: told[name] for name in told if name not in bare}
    assert {name: told[name] for name in bare} == bare and written() == bare
    flags = parts.mlflow("0.0.0.0", 5000, 2, "mlflow.example.com, gpu1", "https://mlflow.example.com:8443")
    allowed, origins = (flags[flags.index(each) + 1] for each in ("--allowed-hosts", "--cors-allowed-origins"))
    assert named == {"MLFLOW_SERVER_ALLOWED_HOSTS": allowed, "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": origins}
    hosts = ["127.0.0.1:5000", "localhost:5000", "[::1]:5000", "10.0.0.7:5000", "mlflow.example.com", "mlflow.example.com:8443"]
    assert [each for each in [*hosts, "evil.example"] if not is_allowed_host_header(allowed.split(","), each)] == [
        "evil.example"
    ]
    assert not should_block_cors_request("https://mlflow.example.com:8443", "POST", origins.split(","))
    assert should_block_cors_request("https://evil.example", "POST", origins.split(","))
    service = yaml.safe_load((code / "compose.yaml").read_text())["services"]["mlflow"]
    assert service["env_file"].endswith("/compose.env") and not named.keys() & service["environment"].keys()
    assert not {"--allowed-hosts", "--cors-allowed-origins"} & set(service["command"])  # they would win over the file
    assert not [value for value in named.values() if set(value) & set("$#'\"\\ ")]  # Compose reads these otherwise
    assert "'http://127.0.0.1:5000/health'" in service["healthcheck"]["test"][-1]


def test_pages_that_may_write_are_named_without_a_pattern(code):
    import parts

    told = parts.mlflow("0.0.0.0", 5000, 2, "gpu1", "https://gpu1:8443/")
    assert told[-1].split(",") == ["https://gpu1", "http://gpu1", "http://gpu1:5000", "https://gpu1:8443"]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], "http://127.0.0.1:5000"),
        (["--host", "0.0.0.0", "--port", "8080"], "http://127.0.0.1:8080"),
        (["--names", "*.example.com, mlflow.example.com"], "https://mlflow.example.com"),
        (["--names", "gpu1.example", "--url", "http://gpu1.example:5000/"], "http://gpu1.example:5000"),
        (["--url", "http://[fd00::1]:5000"], "http://[fd00::1]:5000"),
    ],
)
def test_the_address_of_people_stands_beside_that_of_the_administrator(code, tmp_path, words, wanted):
    words = [sys.executable, str(code / "serve.py"), "--write-only", "--folder", str(tmp_path), *words]
    subprocess.run(words, check=True, capture_output=True)
    told = dict(line.split("=", 1) for line in (tmp_path / "admin.env").read_text().splitlines())
    assert told["MLOPS_LLM_SERVER_URL"] == wanted
    assert told["MLFLOW_TRACKING_URI"] == f"http://127.0.0.1:{8080 if '8080' in words else 5000}"


@pytest.mark.parametrize(
    "url", ["gpu1", "https://", "https://me:secret@gpu1", "https://gpu1;touch x", "https://gpu1\nX=1", "ftp://gpu1"]
)
def test_an_address_that_is_none_is_one_line_and_makes_nothing(code, tmp_path, url):
    words = [sys.executable, str(code / "serve.py"), "--folder", str(tmp_path / "server"), "--url", url]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert (
        done.stderr.startswith("error: --url gives people no address; say --url https://NAME") and "secret" not in done.stderr
    )
    assert not (tmp_path / "server").exists()


def test_what_the_shared_server_does_not_bound_is_said_and_a_proxy_shown():
    for page, heading in (("security.md", "## Not covered"), ("security.zh.md", "## 没有覆盖")):
        text = (ROOT / "docs" / page).read_text("utf-8")
        assert "projects/server" in text.partition(heading)[2]
    for page in (PAGE, PAGE.replace(".md", ".zh.md")):
        (block,) = [each for each in (ROOT / page).read_text("utf-8").split("```") if "limit_req" in each]
        for bound in (
            "limit_req zone=",
            "limit_conn ",
            "client_max_body_size 32m",
            "client_header_timeout",
            "client_body_timeout",
            "listen 443 ssl;",
            "ssl_certificate ",
            "ssl_certificate_key ",
        ):
            assert bound in block
        assert block.count("{") == block.count("}") and all(
            line.rstrip()[-1] in ";{}" for line in block.strip().splitlines()[1:] if line.strip()
        )


def test_options_are_those_of_the_programs():
    for line in commands(PAGE):
        words = shlex.split(line)
        if words[:2] == ["make", "server"]:
            options = [word for each in words if each.startswith("ARGS=") for word in each[5:].split()]
            shown = HELP["serve.py"]
        elif words[0] == "python" and words[1].rpartition("/")[2] in HELP:
            options, shown = words[2:], HELP[words[1].rpartition("/")[2]]
        else:
            continue
        assert [each for each in options if each.startswith("--") and each not in shown and each != "--editor"] == []
