"""The Chinese guide (docs/zh): its commands are commands that exist, and so are the settings, files and places it names.

What needs a GPU or a network is marked so at the end of its line, and only composed; the first ten minutes are carried out in
`tests/flows/test_guide.py`.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_llm import component
from mlops_llm.entry import config
from mlops_llm.entry.arguments import read
from mlops_llm.entry.composing import compose
from tests.contract.test_components import STAGES

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/zh").glob("*.md"))
GROUPS = ["安装与环境", "数据", "训练", "评测", "模型手术", "注册与上线", "流程", "MLflow", "报错"]
FLOWS = [
    path.stem
    for path in (ROOT / "conf/experiment").glob("*.yaml")
    if path.read_text("utf-8").startswith("# python -m mlops_llm.pipeline")
]
YOURS = {"mine"}
"""What readers write themselves in the guide's examples."""
MARKS = {"需 GPU", "需联网"}
REMOTE = re.compile(
    r"Qwen/|hf:|engine=vllm|rollout=vllm|distributed=(fsdp2|zero3)|base_url=https|pip install|git clone|make smollm2"
)
"""What a laptop without a network cannot do."""
STAGED = re.compile(r"python -m mlops_llm\.(\w+) (.+)")
SHELL = re.compile(
    r"source \.venv/bin/activate|export [A-Z_]+=\S+|(ls|cat|cp|mv|ln|du|df|curl) .+|nvidia-smi|wsl --install|python -c .+"
    r"|HYDRA_FULL_ERROR=1 python -m mlops_llm\..+|pip uninstall -y torchvision torchaudio torchcodec"
    r"|python projects/rlhf/reward_server\.py --port \d+( &)?"
)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def lines(page: Path) -> Iterator[tuple[str, set[str]]]:
    """The lines of a page's bash blocks, with the marks at their ends."""
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            command, _, comment = line.partition("  # ") if "  # " in line else line.partition(" # ")
            marks = {mark for mark in MARKS if mark in comment}
            if command.strip() and not command.startswith("#"):
                yield command.strip(), marks


ALL = sorted({(line, frozenset(marks)) for page in PAGES for line, marks in lines(page)}, key=lambda each: each[0])
OURS = [line.removeprefix("HYDRA_FULL_ERROR=1 ") for line, _ in ALL if "python -m mlops_llm." in line]


def words_of(line: str) -> tuple[str, list[str]]:
    """Stage and words of one of our commands, without flags that only show something."""
    found = STAGED.fullmatch(line)
    assert found, line
    words = shlex.split(found[2])
    if "--cfg" in words:
        words = words[: words.index("--cfg")] + words[words.index("--cfg") + 2 :]
    return found[1], [word for word in words if word != "--help"]


def test_the_guide_has_its_pages_and_the_readmes_lead_to_it():
    assert {page.name for page in PAGES} == {"README.md", "flows.md", "tips.md", "faq.md"}
    for readme in ("README.md", "README.zh.md"):
        assert "(docs/zh/README.md)" in (ROOT / readme).read_text("utf-8")


def test_every_line_is_of_a_kind_that_is_checked_here():
    checked = ("python -m mlops_llm.", "make ", "mlflow ", "pip install ")
    assert [line for line, _ in ALL if not line.startswith(checked) and not SHELL.fullmatch(line)] == []


def test_what_needs_a_gpu_or_a_network_says_so():
    assert [line for line, marks in ALL if REMOTE.search(line) and not marks] == []
    assert [line for line, marks in ALL if "pip install" in line and "需联网" not in marks] == []


@pytest.mark.parametrize("line", OURS)
def test_the_command_composes(line: str):
    name, words = words_of(line)
    if words == ["resume=RUN"]:
        assert STAGES[name].resumes
    elif words:
        compose(STAGES[name], words)
    else:
        assert "--help" in line and name in STAGES


def test_every_flow_is_shown():
    shown = {word for name, words in map(words_of, OURS) if name == "pipeline" for word in words}
    assert {f"+experiment={name}" for name in FLOWS} <= shown


def test_the_stages_of_flows_compose():
    """As the pipeline itself sees them before it begins: every flow, and every setting of a single stage that is shown."""
    stage = STAGES["pipeline"]
    alike = re.compile(r"op=plan|launch=queue|[a-z]+=\d+")
    asked = [words for name, words in map(words_of, OURS) if name == "pipeline" and "stages." in " ".join(words)]
    there = {tuple(word for word in words if not alike.fullmatch(word)) for words in asked}
    assert len(there) > 5
    there |= {(f"+experiment={name}",) for name in FLOWS if not any(f"+experiment={name}" in words for words in there)}
    for words in there:
        config.register(stage.name, stage.schema, stage.packages)
        stage.prepare(config.typed(config.composed(stage.name, read(stage.arrange(list(words))).overrides)))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("line", [line for line, _ in ALL if line.startswith("make ")])
def test_the_target_exists(line: str):
    done = subprocess.run([*shlex.split(line), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", [line for line, _ in ALL if line.startswith("mlflow run ")])
def test_mlflow_run_names_a_project_an_entry_point_and_settings_that_compose(line: str):
    _, _, project, *words = shlex.split(line)
    given = [words[place + 1] for place, word in enumerate(words) if word == "-P"]
    parameters = dict(each.split("=", 1) for each in given)
    entry = words[words.index("-e") + 1] if "-e" in words else "main"
    points = yaml.safe_load((ROOT / project / "MLproject").read_text("utf-8"))["entry_points"]
    declared = {name: each["default"] for name, each in points[entry]["parameters"].items()}
    told = declared | parameters
    stage = points[entry]["command"].split()[2].removeprefix("mlops_llm.")
    handed = [word for name, value in told.items() for word in (f"--{name}", value)]
    compose(STAGES[stage], handed)
    assert "--experiment-name" in words or "sales_sft" in project


@pytest.mark.parametrize("line", [line for line, _ in ALL if re.match("mlflow (ui|server|gc)", line)])
def test_options_of_mlflow_exist(line: str):
    from mlflow import cli

    _, name, *words = shlex.split(line)
    command = cli.cli.get_command(None, name)  # `ui` is another name of `server`
    known = {option for each in command.params for option in each.opts}
    assert [word for word in words if word.startswith("--") and word.partition("=")[0] not in known] == []


def test_extras_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    text = "".join(page.read_text("utf-8") for page in PAGES)
    named = {extra for each in re.findall(r"(?:mlops-llm|\.)\[([a-z0-9,-]+)\]'", text) for extra in each.split(",")}
    assert named and named <= set(extras)


@cache
def known_settings() -> tuple[set[str], dict[str, set[str]]]:
    """Every setting of every stage and component by the name that people type, and the choices of every group."""
    names, groups = set[str](), dict[str, set[str]]()

    def collect(cls: type, before: str) -> None:
        for field in dataclasses.fields(cls):
            names.add(f"{before}{field.name}")
            if not before and isinstance(field.default, enum.Enum):
                groups.setdefault(field.name, set()).update(each.name for each in type(field.default))
            made: Any = field.default_factory
            if isinstance(made, type) and dataclasses.is_dataclass(made):
                collect(made, f"{before}{field.name}.")

    for stage in STAGES.values():
        config.register(stage.name, stage.schema, stage.packages)
        collect(stage.schema, "")
        several = {field.name for field in dataclasses.fields(stage.schema) if field.default_factory is dict}
        for group, there in component.groups().items():
            for name, cls in there.items():
                if not group.startswith("test_"):
                    groups.setdefault(group, set()).add(name)
                    collect(cls, f"{group}.{name}." if group in several else f"{group}.")
    for path in (ROOT / "conf").glob("*/*.yaml"):
        if path.parent.name == "experiment":
            names.update(yaml.safe_load(path.read_text("utf-8")).get("values", {}))
            groups.setdefault("experiment", set()).add(path.stem)
        else:
            groups.setdefault(path.parent.name, set()).add(path.stem)
    return names, groups


@cache
def source() -> str:
    """All that the package says, in which tags and names of files are found."""
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml"), ROOT / "Makefile", ROOT / "pyproject.toml"]
    return "".join(path.read_text("utf-8") for path in files)


def spans(page: Path) -> list[str]:
    """Words in backticks, outside of blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [word for span in re.findall(r"`([^`\n]+)`", text) for word in span.split()]


@each_page
def test_settings_in_backticks_exist(page: Path):
    names, groups = known_settings()
    unknown = []
    for word in spans(page):
        found = re.fullmatch(r"[+]?([a-z_]+(?:\.\w+)*)=(.*)", word)
        if found and not found[1].startswith(("hydra", "stages.", "read.columns.")):
            key, value = found[1].replace("op.policy", "policy"), found[2]  # `op.policy=` is read as `policy=`
            choices = re.findall("[a-z_0-9]+", value) if key in groups and "/" not in value else []
            if key not in names | set(groups) or set(choices) - groups.get(key, set()) - YOURS:
                unknown.append(word)
    assert unknown == []


@each_page
def test_dotted_names_in_backticks_are_settings_tags_or_files(page: Path):
    names, _ = known_settings()
    dotted = [word for word in spans(page) if re.fullmatch(r"[a-z_][\w-]*(\.[a-z_0-9]+)+", word)]
    there = {
        word
        for word in dotted
        if word in names or word in source() or (ROOT / word).exists() or (ROOT / "docs" / word).exists()
    }
    assert [word for word in dotted if word not in there] == []


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    bare = re.sub(r"`|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", bare).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@each_page
def test_links_lead_to_files_and_headings(page: Path):
    links = re.findall(r"\]\((?!https?://)([^)\s]+)\)", page.read_text("utf-8"))
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_each_answer_begins_with_a_command():
    text = next(page for page in PAGES if page.name == "faq.md").read_text("utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert [section.partition("\n")[0].strip() for section in sections] == GROUPS
    questions = [each for section in sections for each in re.split(r"^### ", section, flags=re.MULTILINE)[1:]]
    assert len(questions) >= 40
    for question in questions:
        title, _, answer = question.partition("\n")
        assert answer.lstrip().startswith("```bash\n"), title
        assert len(re.sub(r"```.*?```", "", answer, flags=re.DOTALL).strip()) > 30, f"{title}: what to look at?"
