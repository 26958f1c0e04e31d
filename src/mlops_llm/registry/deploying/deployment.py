"""The deployment folder: planned, so that what is wrong shows before anything is written, then written whole."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlops_llm import console, digest
from mlops_llm.errors import UserError
from mlops_llm.files import TakenError, clear_drafts, free_bytes, link_file, read_object, whole_folder, writable
from mlops_llm.models import digested, load, packed, template
from mlops_llm.models.load import Files, ModelLoad
from mlops_llm.models.ref import Place
from mlops_llm.registry.deploying import facts, gguf, manifest, modelfile, placing, readme, servers
from mlops_llm.registry.deploying.facts import Known
from mlops_llm.registry.deploying.servers import MODEL, TEMPLATE, Served

KEY = "VLLM_API_KEY"
"""Variable that holds the key of clients, where no other is named."""
_FORMAT = 1
"""Of the folder; raised when it is written otherwise."""
_GGUF = "gguf"


@dataclass(frozen=True)
class Deployment:
    """A folder that another machine can serve from."""

    folder: Path
    model: Path
    """Folder of the model's files within."""
    name: str
    """What clients call the model."""
    template: str
    """Digest of its chat template."""
    weights: str
    """Digest of the weights that are served, of an adapter those of the whole model that it became."""
    manifest: Mapping[str, Any]
    is_new: bool
    """False where it was there already."""


@dataclass(frozen=True)
class Wish:
    """How it is to be served."""

    name: str = ""
    """What clients call the model; empty takes the registered model's name, else that of run or folder."""
    port: int = 8000
    api_key_env: str = KEY
    """Variable that holds the key of clients."""
    context: int | None = None
    """Tokens of a prompt and its answer together; None is the model's own."""
    tag: str = ""
    """Of the image vllm/vllm-openai; empty is that of the vLLM that is installed here."""
    gguf: Place | None = None
    """The same model as a GGUF, for Ollama."""


def deployment(
    place: Place, how: ModelLoad, out: Path, *, name: str = "", port: int = 8000, api_key_env: str = KEY
) -> Deployment:
    """Write a folder that another machine can serve a model from.

    Args:
        place: the model, of any form; an adapter becomes part of its base.
        how: rules of loading; its number format, where it is not `auto`, is the one that the server counts with.
        out: a folder that does not exist yet, or holds the same already, which is then left as it is.
        name: what clients call the model; empty takes the registered model's name, else that of run or folder.
        port: on which the server listens.
        api_key_env: variable that holds the key of clients; its value is written nowhere.

    Raises:
        UserError: the model cannot be handed on, or `out` holds something else.
    """
    return planned(place, how, out, Wish(name, port, api_key_env)).write()


@dataclass(frozen=True)
class Plan:
    """A deployment that can be written."""

    files: Files
    how: ModelLoad
    out: Path
    wish: Wish
    known: Known
    tokenizer: Any
    """With a chat template."""
    has_own_template: bool
    gguf: Path | None
    weights: str
    """Digest of the model's own weights, of an adapter those of the adapter."""

    @cached_property
    def served(self) -> Served:
        """How vLLM is started."""
        beside = {each.name for each in placing.sources(self.files)}
        return Served(
            self.name,
            placing.arithmetic(self.files, self.how).name,
            self.context,
            TEMPLATE in beside or not self.has_own_template,
            self.wish.port,
            self.wish.api_key_env,
            self.wish.tag or servers.tag(),
        )

    @property
    def name(self) -> str:
        """What clients call the model."""
        version, place = self.known.version, self.files.place
        found = self.wish.name or (version.model if version else "") or facts.said(place.ref)
        return re.sub(r"[^\w.-]+", "-", found.removeprefix("runs:/").removeprefix("models:/")).strip("-.") or MODEL

    @property
    def context(self) -> int | None:
        """Tokens of a prompt and its answer together."""
        own = self.files.config.get("max_position_embeddings")
        return self.wish.context or (int(own) if own else None)

    @property
    def parts(self) -> list[dict[str, str]]:
        """The model, of an adapter what it lies on, too."""
        found, each = list[dict[str, str]](), self.files
        while True:
            role = "adapter" if each.is_adapter else "base" if found else "model"
            found.append({"role": role, "ref": facts.said(each.place.ref), "weights": digested.weights_digest(each.place)})
            if each.base is None:
                return found
            each = each.base

    @cached_property
    def inputs(self) -> str:
        """Digest of all that decides what is written, but for what the record says of the model."""
        beside = {each.name: digest.raw(each) for each in placing.sources(self.files) if not placing.is_weights(each)}
        told = {
            "format": _FORMAT,
            "parts": [each["weights"] for each in self.parts],
            "beside": beside,
            "template": template.template_digest(self.tokenizer),
            "served": vars(self.served) if not packed.gguf_file(self.files.place.folder) else [self.name, self.context],
            "gguf": digest.raw(self.gguf) if self.gguf else "",
        }
        return digest.row(told)

    def is_there(self) -> bool:
        """Whether the folder holds the same already.

        Raises:
            UserError: it holds something else, or a file of it was altered.
        """
        if not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir())):
            return False
        told = read_object(self.out / manifest.NAME) if (self.out / manifest.NAME).is_file() else {}
        if told.get("inputs") != self.inputs:
            raise UserError("holds something else already", str(self.out), "choose another folder, or remove it")
        manifest.verify(self.out)
        return True

    def write(self, run: str = "") -> Deployment:
        """Write the folder; it appears complete or not at all.

        Args:
            run: name of the run that records it.

        Raises:
            UserError: it holds something else, or an adapter does not fit its base.
        """
        if self.is_there():
            return self._found(manifest.read(self.out), is_new=False)
        clear_drafts(self.out)
        if self.out.is_dir():
            self.out.rmdir()  # empty, else it were refused
        try:
            with whole_folder(self.out) as draft:
                self._fill(draft, run)
        except TakenError:
            if self.is_there():  # another process was first
                return self._found(manifest.read(self.out), is_new=False)
            raise
        script = self.out / servers.SCRIPT
        if script.is_file():
            script.chmod(0o755)
        return self._found(manifest.read(self.out), is_new=True)

    def _fill(self, draft: Path, run: str) -> None:
        placing.place(self.files, self.how, draft / MODEL)
        if not self.has_own_template:
            (draft / MODEL / TEMPLATE).write_text(str(self.tokenizer.chat_template), encoding="utf-8")
        if self.gguf:
            (draft / _GGUF).mkdir()
            link_file(self.gguf, draft / _GGUF / self.gguf.name)
        about = readme.text(self.served, self.starts, self.ollama.remarks, self.known.version)
        for name, text in {**self.starts, readme.NAME: about}.items():
            (draft / name).write_text(text, encoding="utf-8")
        if servers.IMAGE in self.starts:
            (draft / servers.IGNORED).write_text(servers.ignored(), encoding="utf-8")
        manifest.write(draft, self._told(draft / MODEL, run))

    @cached_property
    def starts(self) -> dict[str, str]:
        """File -> content, of what starts a server."""
        texts = {}
        if not packed.gguf_file(self.files.place.folder):
            texts = {
                servers.SCRIPT: servers.script(self.served),
                servers.IMAGE: servers.dockerfile(self.served),
                servers.COMPOSE: servers.compose(self.served),
            }
        if text := self.ollama.text:
            texts[modelfile.NAME] = text
        return texts

    @cached_property
    def ollama(self) -> modelfile.Ollama:
        """The model for Ollama."""
        own = packed.gguf_file(self.files.place.folder)
        source = f"./{_GGUF}/{self.gguf.name}" if self.gguf else f"./{MODEL}/{own.name}" if own else f"./{MODEL}"
        form = "" if self.gguf or own else packed.form(self.files.config)
        return modelfile.ollama(self.tokenizer, source, form, self.ends, self.context, self.served.image)

    @cached_property
    def ends(self) -> list[str]:
        """Tokens that end an answer."""
        under = (self.files.place.folder, self.files.whole.place.folder)
        file = next((each / "generation_config.json" for each in under if (each / "generation_config.json").is_file()), None)
        told = (read_object(file) if file else {}).get("eos_token_id", self.files.config.get("eos_token_id"))
        ids: Sequence[Any] = told if isinstance(told, list) else [told]
        tokens = self.tokenizer.convert_ids_to_tokens([each for each in ids if isinstance(each, int)])
        return [each for each in dict.fromkeys([*tokens, self.tokenizer.eos_token]) if each]

    def _told(self, model: Path, run: str) -> dict[str, Any]:
        """The manifest, but for the files."""
        known = self.known
        return {
            "format": _FORMAT,
            "inputs": self.inputs,
            "name": self.name,
            "ref": facts.said(self.files.place.ref),
            "registered": known.registration,
            "checkpoint": known.checkpoint,
            "digest.weights": digested.digest_now(model),
            "digest.template": template.template_digest(self.tokenizer),
            "made_of": self.parts,
            "dtype": self.served.dtype,
            "packed": "GGUF" if packed.gguf_file(model) else packed.form(self.files.config),
            "context": self.context,
            "ends": self.ends,
            "certificate": known.certificate,
            "scores": [dict(each) for each in known.scores],
            "lineage": known.lineage,
            "starts": sorted(self.starts),
            "ollama": list(self.ollama.remarks),
            "deployed": facts.made(run),
        }

    def _found(self, told: Mapping[str, Any], *, is_new: bool) -> Deployment:
        weights, shown = str(told["digest.weights"]), str(told["digest.template"])
        return Deployment(self.out, self.out / MODEL, str(told["name"]), shown, weights, told, is_new)


def planned(place: Place, how: ModelLoad, out: Path, wish: Wish) -> Plan:
    """See that a model can be deployed.

    Weights are read once, for their digest.

    Raises:
        UserError: it cannot, or `out` holds something else.
    """
    files = load.inspect(place, how)
    placing.check(files)
    _check(files, out, wish)
    weights = digested.weights_digest(place)
    tokenizer = load.tokenizer_of(files)
    source = template.ensure(tokenizer, place.ref)
    other = gguf.file_of(wish.gguf, files, weights) if wish.gguf else None
    if other and packed.gguf_file(place.folder):
        raise UserError("is given, and the model is a GGUF itself", "op.gguf", "leave it out")
    plan = Plan(files, how, out.absolute(), wish, facts.known(place, weights), tokenizer, source == "own", other, weights)
    plan.is_there()  # for its error
    return plan


def _check(files: Files, out: Path, wish: Wish) -> None:
    """See that the wish can be met.

    Raises:
        UserError: it cannot.
    """
    most = files.config.get("max_position_embeddings")
    if wish.context and most and wish.context > int(most):
        raise UserError(f"is {wish.context}, and the model takes {most} tokens", "op.context", "give fewer, or leave it out")
    free = free_bytes(out.parent)
    if files.is_adapter and files.bytes > free:
        what = f"{console.size(files.bytes)} are needed and {console.size(free)} are free"
        raise UserError(what, str(out.parent), "free some disk or choose another folder")
    writable(out.parent)
