"""What projects/server tells to type can be typed, in both languages."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

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
    """Those that need the server are typed by the tests of tests/flows/test_shared_server.py."""
    kinds = r"make server|python projects/server/|python -m mlops_llm|set -a; \. \w+/\w+\.env; set \+a"
    kinds += r"|pg_(dump|restore) |mkdir |cp |docker compose "
    assert [line for line in commands(PAGE) if not re.match(kinds, line)] == []


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
