"""The commands that the READMEs and the pages on training show are commands that exist."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from mlops_llm import component
from mlops_llm.data.__main__ import STAGE as DATA
from mlops_llm.entry import config
from mlops_llm.entry.arguments import as_typed, first_choices, read
from tests.commands import ok, train
from tests.contract.test_components import STAGES

ROOT = Path(__file__).parents[2]
PAGES = {"README.md": "README.zh.md", "docs/train.md": "docs/train.zh.md"}
"""English page -> the same page in Chinese."""
PYTHON = "python -m mlops_llm.train "
EVALUATING = ["README.md", "README.zh.md", "docs/eval.md", "docs/eval.zh.md", "docs/launch.md", "docs/launch.zh.md"]
EVALUATING += [f"docs/{name}{tongue}.md" for name in ("surgery", "registry", "pipeline") for tongue in ("", ".zh")]
STAGED = re.compile(r"^python -m mlops_llm\.(eval|launch|data|train|surgery|registry|pipeline) (.+)$")
# Whatever else stands in a bash block of the pages.
OTHERS = re.compile(r"source \.venv/bin/activate|export MLFLOW_TRACKING_URI=http://127\.0\.0\.1:\d+")


def commands(page: str) -> list[str]:
    """The lines of a page's bash blocks, comments left out."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = [re.sub(r"(^|\s+)# .*", "", line).strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]


ALL = sorted({line for page in PAGES for line in commands(page)})


def test_the_two_commands_stand_in_the_readme():
    assert {"make train", "make ui"} <= set(commands("README.md"))


@pytest.mark.parametrize("english", PAGES)
def test_both_languages_show_the_same_commands(english):
    assert commands(english) == commands(PAGES[english])


def test_every_line_is_of_a_kind_that_is_checked_here():
    assert [
        line
        for line in ALL
        if not line.startswith(("make ", PYTHON, "python -m mlops_llm.eval ")) and not OTHERS.fullmatch(line)
    ] == []


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("line", [line for line in ALL if line.startswith("make ")])
def test_the_target_exists(line):
    words = shlex.split(line)
    done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [line for line in ALL if line.startswith(PYTHON)])
def test_the_command_composes(line, tmp_path):
    words = shlex.split(line.removeprefix(PYTHON))
    if "--help" in words:
        ok(train(tmp_path, *words, fresh=True))
        return
    # Hydra prints the settings of one job only, so a sweep is shown by each of its values once.
    for choice in first_choices(read(words).overrides):
        shown = ok(train(tmp_path, *map(as_typed, choice), "--cfg", "job"))
        assert "model:" in shown and not list(tmp_path.iterdir())


def test_the_commands_on_datasets_compose():
    """Both pages on datasets; the English one is a table of the same commands."""
    line = re.compile(r"^python -m mlops_llm\.data (op=.+)$", re.MULTILINE)
    found = line.findall((ROOT / "docs/data.zh.md").read_text("utf-8"))
    config.register(DATA.name, DATA.schema, DATA.packages)
    there = {name for name, cls in component.groups()["op"].items() if cls.__module__.startswith(DATA.packages)}
    assert {words.split()[0].removeprefix("op=") for words in found} == there, "each has its command"
    for words in found:
        composed = config.typed(config.composed("data", read(shlex.split(words)).overrides))
        assert words.startswith(f"op={composed.op.__class__.__module__.rpartition('.')[2]}")
    english = (ROOT / "docs/data.md").read_text("utf-8")
    assert set(re.findall(r"op=(\w+)", " ".join(found))) <= set(re.findall(r"op=(\w+)", english))


@pytest.mark.parametrize("page", EVALUATING)
def test_the_commands_on_evaluations_and_the_queue_compose(page):
    found = [match.groups() for line in commands(page) if (match := STAGED.match(line)) and "..." not in line]
    found = [each for each in found if each[0] != "train" or "launch" in page]
    assert found
    for name, rest in found:
        stage = STAGES[name]
        config.register(stage.name, stage.schema, stage.packages)
        for line in first_choices(read(stage.arrange(shlex.split(rest))).overrides):
            compose_once(name, tuple(line))


@cache
def compose_once(name, words):
    """The pages of both languages show the same commands."""
    config.typed(config.composed(name, list(words)))


# A setting whose value a shell would split: {a:1,b:2}, {a: 1}, [a b]. The key has a dot, as those of components have.
SPLIT = re.compile(r"(?<!['\w.+])\+{0,2}[a-z_]+\.[\w.]+=(?:\{[\w.]+:[^{}\n`]*[ ,][^{}\n`]*\}|\[[^\[\]\n`,]* [^\[\]\n`]*\])")


@pytest.mark.parametrize("where", ["*.md", "docs/**/*.md", "src/**/*.py"])
def test_a_value_that_a_shell_would_split_stands_in_quotes(where):
    found = {file.relative_to(ROOT): SPLIT.findall(file.read_text("utf-8")) for file in ROOT.glob(where)}
    assert found
    assert {file: each for file, each in found.items() if each} == {}


@pytest.mark.parametrize("page", ["docs/surgery.md", "docs/surgery.zh.md"])
def test_every_setting_of_an_operation_of_surgery_is_told_where_the_operation_is(page):
    """In a section that names the operation, or in the first two, which hold for many."""
    stage = STAGES["surgery"]
    config.register(stage.name, stage.schema, stage.packages)
    before, *sections = re.split(r"^## ", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE)
    of_all = before + sections[0]
    operations = {name: cls for name, cls in component.groups()["op"].items() if cls.__module__.startswith(stage.packages)}
    missing = [
        f"op={name} op.{field.name}"
        for name, cls in operations.items()
        for field in dataclasses.fields(cls)
        if not any(
            re.search(rf"\bop\.{field.name}\b", text)
            for text in [of_all, *(each for each in sections if re.search(rf"op={name}\b|`{name}\b", each))]
        )
    ]
    assert len(operations) > 20 and missing == []


@pytest.mark.parametrize("page", [*PAGES, *PAGES.values(), *EVALUATING[2:], "docs/data.md", "docs/data.zh.md"])
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?://)([^)#]+)", (ROOT / page).read_text("utf-8"))
    assert links
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
