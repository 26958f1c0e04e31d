"""A chat template told in Ollama's language, the files that start servers, and the manifest."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlops_llm.errors import UserError
from mlops_llm.files import link_file, whole_folder
from mlops_llm.models import load, smollm2, tiny
from mlops_llm.models.ref import Place
from mlops_llm.models.template import CHATML, PLAIN
from mlops_llm.registry.deploying import facts, manifest, modelfile, ollama, readme, servers, turns
from mlops_llm.registry.deploying.servers import Served
from mlops_llm.tracking.lineage import Ancestor, Used
from tests import modelfiles

LLAMA = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + "
    "message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
MISTRAL = (
    "{% if messages[0]['role'] == 'system' %}{% set told, rest = messages[0]['content'], messages[1:] %}"
    "{% else %}{% set told, rest = '', messages %}{% endif %}{{ bos_token }}{% for message in rest %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' }}{% if PLACE and told %}{{ told + '\\n\\n' }}{% endif %}"
    "{{ message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'] + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
EXPRESSED = {
    "tiny": "",
    "smollm2": smollm2.CHAT_TEMPLATE,
    "chatml": CHATML,
    "plain": PLAIN,
    "llama": LLAMA,
    "mistral": MISTRAL.replace("PLACE", "loop.first"),
    "gemma": GEMMA,
}
NUMBERED = "{% for m in messages %}{{ loop.index ~ '. ' ~ m.role ~ ': ' ~ m.content ~ '\\n' }}{% endfor %}{{ 'assistant:' }}"
SERVED = Served("sales", "bfloat16", 512, True, 8000, "SALES_KEY", "v0.32.0")


def tokenizer(template: str = "") -> Any:
    found = load.tokenizer(Place("tiny", tiny.folder()))
    found.bos_token = "<|endoftext|>"
    found.chat_template = template or found.chat_template
    return found


def asked(told: Any, messages: list[dict[str, str]]) -> str:
    return str(told.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def conversations(with_system: bool) -> list[list[dict[str, str]]]:
    said = ["您好，多少钱？", 'He said """{{ no }}"""\n\nand {left', "Nine\teuros.", "第二句"]
    roles = [["user"], ["user", "assistant", "user"], ["user", "assistant", "user", "assistant", "user"]]
    roles += [["system", *each] for each in roles] if with_system else []
    return [[{"role": role, "content": said[(place + len(each)) % 4]} for place, role in enumerate(each)] for each in roles]


@pytest.mark.parametrize("name", EXPRESSED)
def test_a_template_becomes_one_of_ollamas_that_writes_the_same(name):
    told = tokenizer(EXPRESSED[name])
    found = modelfile.ollama(told, "./model", "", ["<|im_end|>"], 512, "sales")
    read = dict(modelfiles.parse(found.text))
    assert (read["FROM"], read["stop"], read["num_ctx"]) == ("./model", "<|im_end|>", "512")
    for messages in conversations(name != "gemma"):
        assert modelfiles.execute(read["TEMPLATE"], messages) == asked(told, messages)
    assert any("system text" in each for each in found.remarks) == (name == "gemma")
    assert any("blanks" in each for each in found.remarks) == (name == "llama")


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (MISTRAL.replace("PLACE", "loop.last"), "not in its place"),
        (NUMBERED, "depends on the rest of the conversation"),
        (CHATML.replace("message['content'] +", "message['content'] | upper +"), "not in its place, or not at all"),
        (CHATML.replace("message['content'] +", "message['content'] | replace('euro', '€') +"), "otherwise than its parts"),
    ],
    ids=["system text in the last turn", "numbers", "capitals", "another word"],
)
def test_what_cannot_be_told_is_said_and_left_to_ollama(template, why):
    found = modelfile.ollama(tokenizer(template), "./model", "", ["<|im_end|>"], 512, "sales")
    names = [name for name, _ in modelfiles.parse(found.text)]
    assert names == ["FROM", "stop", "num_ctx"]
    (remark,) = [each for each in found.remarks if "cannot be told" in each]
    assert why in remark and f"# {remark}" in found.text


def test_the_mark_of_the_beginning_is_left_to_ollama_where_the_tokenizer_adds_it():
    told = tokenizer(LLAMA)
    adds = told.backend_tokenizer.post_processor
    assert "<|endoftext|>" in dict(modelfiles.parse(modelfile.ollama(told, "./m", "", [], 8, "x").text))["TEMPLATE"]
    from tokenizers.processors import TemplateProcessing

    told.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", told.bos_token_id)]
    )
    found = modelfile.ollama(told, "./m", "", [], 8, "x")
    told.backend_tokenizer.post_processor = adds
    assert "<|endoftext|>" not in dict(modelfiles.parse(found.text))["TEMPLATE"]
    assert "Ollama puts <|endoftext|> before a text by itself" in found.remarks


ODD = st.text(st.sampled_from(list('ab{}"\\\n\t \u3000\u200b客😀%|<>$')), max_size=8)


class Written:
    """A template of texts, without Jinja: what each speaker's turn begins and ends with, and what stands before the first."""

    bos_token = None

    def __init__(self, around: dict[str, tuple[str, str]], first: str, default: str) -> None:
        self.around, self.first, self.default = around, first, default

    def apply_chat_template(self, messages: Any, tools: Any = None, **how: Any) -> str:
        text = self.first + ("" if messages[0]["role"] == "system" else self.default)
        for each in messages:
            before, after = self.around.get(each["role"], ("", ""))
            text += before + each["content"] + after
        return text + (self.around["assistant"][0] if how.get("add_generation_prompt") else "")


@given(st.fixed_dictionaries({role: st.tuples(ODD, ODD) for role in turns.ROLES}), ODD, ODD)
def test_any_texts_around_turns_come_through_gos_language_and_the_modelfile(around, first, default):
    told = Written(around, first, default)
    text = ollama.modelfile("./model", ollama.go(turns.read(told)), [], [first or "x"], None)
    template = dict(modelfiles.parse(text))["TEMPLATE"]
    for messages in conversations(with_system=True):
        assert modelfiles.execute(template, messages) == told.apply_chat_template(messages, add_generation_prompt=True)


def test_the_script_gives_vllm_its_flags_and_lets_nobody_else_in_without_a_key(tmp_path):
    (tmp_path / "serve_vllm.sh").write_text(servers.script(Served("销售 $x'", "float32", None, False, 9000, "SALES_KEY", "")))
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$PWD" "${VLLM_API_KEY-none}" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name not in ("SALES_KEY", "VLLM_API_KEY", "SERVE_PORT")}

    def run(*more: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", str(tmp_path / "serve_vllm.sh"), *more]
        own = {"PYTHON": str(tmp_path / "python"), **env}
        return subprocess.run(command, env=kept | own, cwd="/", capture_output=True, text=True, check=False)

    folder, key, *words = run("--seed", "3", VLLM_API_KEY="another").stdout.splitlines()
    assert (folder, key) == (str(tmp_path), "none"), "a key of another variable is not taken"
    assert words == ["-m", "vllm.entrypoints.openai.api_server", "--model", "model", "--served-model-name", "销售 $x'",
                     "--dtype", "float32", "--generation-config", "vllm", "--host", "127.0.0.1", "--port", "9000",
                     "--seed", "3"]  # fmt: skip
    refused = run(SERVE_HOST="0.0.0.0")
    assert refused.returncode == 2 and refused.stderr == "SERVE_HOST=0.0.0.0 lets others in: set SALES_KEY to a key first\n"
    _, key, *words = run(SERVE_HOST="0.0.0.0", SALES_KEY="k", SERVE_PORT="1").stdout.splitlines()
    assert key == "k" and words[-4:] == ["--host", "0.0.0.0", "--port", "1"]


def test_compose_runs_the_official_image_on_files_that_it_cannot_change():
    told = yaml.safe_load(servers.compose(SERVED))
    (service,) = told["services"].values()
    assert set(told) == {"services"}
    assert service["image"] == "vllm/vllm-openai:${VLLM_TAG:-v0.32.0}" and service["entrypoint"] == ["vllm", "serve"]
    assert service["command"][:3] == ["/model", "--served-model-name", "sales"] and all(
        isinstance(each, str) for each in service["command"]
    )
    assert service["volumes"] == [{"type": "bind", "source": "./model", "target": "/model", "read_only": True}]
    assert service["ports"] == ["127.0.0.1:${SERVE_PORT:-8000}:8000"]
    assert service["environment"]["VLLM_API_KEY"] == "${SALES_KEY:-}"
    assert all(isinstance(each, str) for each in service["environment"].values())
    assert service["healthcheck"]["test"][:3] == ["CMD", "python3", "-c"] and "/health" in service["healthcheck"]["test"][3]
    compile(service["healthcheck"]["test"][3], "health", "exec")
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


def test_the_dockerfile_copies_the_model_and_starts_it_as_compose_does():
    text = servers.dockerfile(SERVED).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    told = dict(lines)
    assert [name for name, _ in lines] == ["ARG", "FROM", "COPY", "ENV", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"]
    assert (told["ARG"], told["FROM"]) == ("VLLM_TAG=v0.32.0", "vllm/vllm-openai:${VLLM_TAG}")
    assert told["COPY"] == "model /model" and servers.ignored() == "*\n!model\n"
    (service,) = yaml.safe_load(servers.compose(SERVED))["services"].values()
    assert json.loads(told["ENTRYPOINT"]) == service["entrypoint"] and json.loads(told["CMD"]) == service["command"]
    assert json.loads(told["HEALTHCHECK"].partition("CMD ")[2]) == service["healthcheck"]["test"][1:]
    assert dict(each.split("=") for each in told["ENV"].split()).items() <= service["environment"].items()
    assert "--chat-template" in service["command"] and "SALES_KEY" in servers.dockerfile(SERVED)


def test_the_readme_shows_commands_that_a_shell_can_read():
    text = readme.text(SERVED, ["serve_vllm.sh", "Modelfile"], ["a remark"], None)
    blocks = [block.partition("```")[0].replace("\\\n", " ") for block in text.split("```bash\n")[1:]]
    lines = [shlex.split(line) for block in blocks for line in block.splitlines() if line]
    assert {line[0] for line in lines} == {"sha256sum", "python", "sh", "docker", "export", "ollama", "curl"}
    (run,) = [line for line in lines if line[:2] == ["docker", "run"]]
    assert run[run.index("-e") + 1] == "VLLM_API_KEY" and not any("SALES_KEY" in each for each in run), "ps shows these words"
    (body,) = [json.loads(line[-1]) for line in lines if line[0] == "curl" and line[-2] == "-d"]
    assert body["model"] == "sales" and "- a remark" in text
    assert "llama-server" in readme.text(SERVED, ["Modelfile"], [], None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "deployed"
    (made / "model").mkdir(parents=True)
    (made / "model" / "model.safetensors").write_bytes(b"weights")
    (made / "serve_vllm.sh").write_text("exec vllm\n")
    needed = {
        "inputs": "",
        "name": "x",
        "ref": "x",
        "registered": None,
        "digest.weights": "",
        "digest.template": "",
        "deployed": {},
    }
    manifest.write(made, needed)
    return made


def test_an_untouched_folder_is_what_it_was_and_sha256sum_says_so_too(folder):
    assert manifest.verify(folder)["files"]["model/model.safetensors"]["bytes"] == 7
    (folder / ".env").write_text("SALES_KEY=x\n")  # what somebody puts beside it is theirs
    manifest.verify(folder)
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", manifest.SUMS], cwd=folder, check=True)


def test_a_file_that_is_not_as_it_was_is_named(folder):
    weights = folder / "model" / "model.safetensors"
    for change, said in (
        (lambda: weights.write_bytes(b"Weights"), "model/model.safetensors: was altered (sha256 "),
        (lambda: weights.write_bytes(b"weights!"), "model/model.safetensors: was altered (8 bytes, not 7)"),
        (weights.unlink, "model/model.safetensors: is missing"),
        (lambda: (folder / "model" / "more.safetensors").touch(), "model/more.safetensors: is not in the manifest"),
        (
            lambda: (folder / manifest.NAME).write_text('{"files": {"../x": {"sha256": "", "bytes": 0}}}'),
            "is no whole manifest",
        ),
        ((folder / manifest.NAME).unlink, "holds no manifest.json"),
    ):
        change()
        with pytest.raises(UserError) as caught:
            manifest.verify(folder)
        assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_way_back_is_one_line_without_a_path_of_this_machine():
    used = Used("sales", "v1.0", "/secret/rows.jsonl", "training", 3, {}, "first", "1", 0.0)
    found = {
        "c": Ancestor("c", "merged/slerp", "merge_slerp", "merged", (), ("a", "b")),
        "a": Ancestor("a", "first/checkpoint-2", "sft", "first", (used,), ("/home/me/base",)),
        "b": Ancestor("b", "tiny", "", "", (), ()),
        "/home/me/base": Ancestor("/home/me/base", "/home/me/base", "", "", (), ("c",)),
    }
    assert facts.chain(found) == (
        "merged/slerp (merge_slerp) <- [first/checkpoint-2 (sft on sales@v1.0) <- base <- merged/slerp; tiny]"
    )
    assert facts.chain({}) == ""


def test_a_linked_file_keeps_its_rights_and_a_symbolic_link_is_followed(tmp_path):
    (tmp_path / "blob").write_bytes(b"x")
    (tmp_path / "blob").chmod(0o600)
    (tmp_path / "named").symlink_to(tmp_path / "blob")
    with whole_folder(tmp_path / "out") as draft:
        assert link_file(tmp_path / "named", draft / "model.safetensors")
        (draft / "own").write_bytes(b"y")
        (draft / "own").chmod(0o600)
    made = tmp_path / "out"
    assert (made / "model.safetensors").samefile(tmp_path / "blob") and not (made / "model.safetensors").is_symlink()
    assert [oct((made / name).stat().st_mode & 0o777) for name in ("model.safetensors", "own")] == ["0o600", "0o644"]
