"""Models and tokenizers from a folder, checked before and after."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from mlops_llm import digest
from mlops_llm.errors import UserError, first_line
from mlops_llm.models.ref import Place, resolve

ORIGIN = "mlops_llm.json"
"""File in an adapter's folder that names its base as a ref, with the digest of the base's weights."""


class Dtype(Enum):
    """Number format of weights and arithmetic."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@dataclass
class ModelLoad:
    """How to load a model."""

    dtype: Dtype = Dtype.auto
    """auto is float32 on a CPU and bfloat16 on a GPU."""
    allow_pickle: bool = False
    """Also load pickled weights (.bin); loading them can run code that somebody put there."""


class Task(Enum):
    """What a model's head gives."""

    language = "language"
    """The next token."""
    reward = "reward"
    """One number that says how good a text is."""


_HEADS = ("score", "classifier")
"""Names of the heads that PEFT saves with an adapter of task type SEQ_CLS."""
_SAID = {Task.language: "a language model, whose head gives no score", Task.reward: "a reward model, which writes no answers"}
_REMEDY = {
    Task.language: "take a language model; algo=reward trains a reward model on, reward=model scores answers with it",
    Task.reward: "take a reward model; one is trained by: python -m mlops_llm.train +experiment=reward_sales model=REF",
}


@dataclass(frozen=True)
class Files:
    """What lies in a model folder, read without torch."""

    place: Place
    config: dict[str, Any]
    """config.json of the model, or of the base for an adapter."""
    parameters: int
    bytes: int
    base: Place | None = None
    """The base model, when the folder holds an adapter."""
    adapter: int = 0
    """Numbers of the adapter."""
    task: Task = Task.language
    """What the head gives, of an adapter that which it was trained with."""

    @property
    def is_adapter(self) -> bool:
        """Whether the folder holds a LoRA adapter."""
        return self.base is not None


def inspect(place: Place, how: ModelLoad, task: Task = Task.language, *, fresh: bool = False) -> Files:
    """Check a model's files without loading them.

    Args:
        place: where they are.
        how: number format and rules.
        task: what the model is wanted for.
        fresh: a language model will do too, since it gets a new head.

    Raises:
        UserError: config or weights are missing, cut off, pickled, the base of an adapter is gone, or the model is one for
            another task.
    """
    files = _files(place, how)
    if files.task is not task and not (fresh and files.task is Task.language):
        raise UserError(f"is {_SAID[files.task]}", place.ref, _REMEDY[task])
    return files


def _files(place: Place, how: ModelLoad) -> Files:
    folder = place.folder
    if (folder / "adapter_config.json").is_file():
        adapter = _json(folder / "adapter_config.json")
        count, _ = _weights(folder, "adapter_model", how)
        base = _base(folder, adapter)
        inner = _files(base, how)
        task = _adapter_task(place, adapter, inner.task)
        return Files(place, inner.config, inner.parameters, inner.bytes, base, count, task)
    if not (folder / "config.json").is_file():
        raise UserError("holds no model: config.json is missing", place.ref, "name a folder written by save_pretrained")
    config = _json(folder / "config.json")
    parameters, size = _weights(folder, "model", how)
    return Files(place, config, parameters, size, task=_task(config, place))


def _task(config: dict[str, Any], place: Place) -> Task:
    """What a whole model's head gives.

    Raises:
        UserError: it tells classes apart.
    """
    if not any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or ()):
        return Task.language
    classes = len(config.get("id2label") or "..")  # what is not written down is two
    if classes != 1:
        raise UserError(f"is a classifier of {classes} classes", place.ref, "take a language model, or a reward model")
    return Task.reward


def _adapter_task(place: Place, adapter: dict[str, Any], base: Task) -> Task:
    """What the head gives with an adapter on.

    Raises:
        UserError: the adapter was trained with a head that is not there.
    """
    if adapter.get("task_type") != "SEQ_CLS":
        return base
    files = place.folder.glob("adapter_model*.safetensors")
    names = [name for file in files for name in digest.tensor_places(file)]
    if base is Task.language and names and not any(f".{head}." in name for name in names for head in _HEADS):
        raise UserError("the adapter's head is missing", place.ref, "train it again with its head (modules_to_save)")
    return Task.reward


@cache
def matrices(folder: Path) -> dict[str, int]:
    """Module -> rows and columns together, of every weight with two dimensions in a folder's safetensors files."""
    places = {name: place for file in folder.glob("*.safetensors") for name, place in digest.tensor_places(file).items()}
    return {name.removesuffix(".weight"): sum(shape) for name, (_, shape, _, _) in places.items() if len(shape) == 2}


def tokenizer(place: Place) -> Any:
    """Load the tokenizer of a model (or of an adapter's base), with a padding token.

    Raises:
        UserError: there is none, or it is broken.
    """
    with _libraries():
        from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(place.folder)
    except Exception as error:
        _explain_torchvision(error)
        raise UserError(
            f"the tokenizer cannot be loaded ({first_line(error)})", place.ref, "copy the tokenizer's files there"
        ) from error
    if not loaded.is_fast:
        raise UserError("the tokenizer has no fast form, which offsets need", place.ref, "convert it: save tokenizer.json")
    if loaded.pad_token is None:
        loaded.pad_token = loaded.eos_token
    return loaded


def tokenizer_of(files: Files) -> Any:
    """Load the tokenizer that lies with a model; of an adapter without one, that of its base."""
    there = any((files.place.folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json"))
    return tokenizer(files.place if there or files.base is None else files.base)


def model(files: Files, how: ModelLoad, *, merge: bool, task: Task = Task.language) -> Any:
    """Load a model on the CPU or GPU in the wanted number format and check every tensor for NaN and infinity.

    Args:
        files: from `inspect`.
        how: number format and rules.
        merge: for an adapter: merge it into its base, else keep it trainable on top.
        task: what its head is to give; of a reward model made of a language model the head is new and random.

    Raises:
        UserError: tensors are missing, do not fit the config, or are not finite.
    """
    with _libraries():
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
        from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    # What its warnings say of tensors is checked below; the rest is not for the user of a training.
    transformers_logging.set_verbosity_error()
    place = files.base or files.place
    wanted = dtype_of(how.dtype)
    # Mixed precision in float16 scales gradients of float32 weights.
    dtype = torch.float32 if wanted is Dtype.float16 else getattr(torch, wanted.name)
    safe = not _pickled(place.folder)
    form, more = (
        (AutoModelForCausalLM, {}) if task is Task.language else (AutoModelForSequenceClassification, {"num_labels": 1})
    )
    try:
        loaded, report = form.from_pretrained(place.folder, dtype=dtype, use_safetensors=safe, output_loading_info=True, **more)
    except Exception as error:
        _explain_torchvision(error)
        raise UserError(
            f"the model cannot be loaded ({first_line(error)})", place.ref, "check config.json and the weights"
        ) from error
    missing = sorted(set(report["missing_keys"]) | {str(each) for each in report.get("mismatched_keys", [])})
    if task is Task.reward and _task(files.config, place) is Task.language:
        missing = [name for name in missing if name.startswith(f"{loaded.base_model_prefix}.")]
    if missing:
        raise UserError(
            f"{len(missing)} tensors are missing or of another shape, first {missing[0]}",
            place.ref,
            "copy the weights again",
        )
    if files.is_adapter:
        loaded = _with_adapter(loaded, files, merge, task)
    for name, tensor in loaded.named_parameters():
        if not bool(torch.isfinite(tensor.detach()).all()):
            raise UserError(f"tensor {name} holds NaN or infinity", files.place.ref, "take an earlier checkpoint")
    return loaded


def dtype_of(wanted: Dtype) -> Dtype:
    """Decide `auto` from the hardware."""
    if wanted is not Dtype.auto:
        return wanted
    import torch

    if torch.cuda.is_available():
        return Dtype.bfloat16 if torch.cuda.is_bf16_supported() else Dtype.float16
    return Dtype.float32


def weights_digest(place: Place) -> str:
    """Digest of a model's weights as they lie there.

    Raises:
        UserError: they are not those that the record says.
    """
    found, recorded = _folder_digest(place.folder), place.tags.get("digest.weights")
    if recorded and found != recorded:
        raise UserError(
            f"the weights changed since they were recorded (digest {recorded[:12]}… then, {found[:12]}… now)",
            place.ref,
            "bring the old files back, or take another checkpoint",
        )
    return found


@cache
def _folder_digest(folder: Path) -> str:
    try:
        return digest.weights(folder)
    except FileNotFoundError:
        return "none"  # pickled weights


def write_origin(folder: Path, base: Place) -> None:
    """Say in an adapter's folder what its base is, so that it is found again elsewhere."""
    text = json.dumps({"base": base.ref, "base.digest": weights_digest(base)}, indent=2)
    (folder / ORIGIN).write_text(text, "utf-8")


def _with_adapter(base: Any, files: Files, merge: bool, task: Task) -> Any:
    from peft import PeftModel

    try:
        if files.task is task:
            adapted = PeftModel.from_pretrained(base, files.place.folder, is_trainable=not merge)
        else:
            adapted = _with_new_head(base, files.place.folder)
    except Exception as error:
        raise UserError(
            f"the adapter does not fit its base ({first_line(error)})", files.place.ref, "check base_model_name_or_path"
        ) from error
    if not merge:
        return adapted
    merged = adapted.merge_and_unload()
    merged.requires_grad_(True)  # the adapter had frozen its base
    return merged


def _with_new_head(base: Any, folder: Path) -> Any:
    """A language model's adapter on a reward model, whose head is trained and saved with it from now on."""
    from peft import PeftConfig, get_peft_model, load_peft_weights, set_peft_model_state_dict

    config = PeftConfig.from_pretrained(folder)
    config.task_type, config.inference_mode = "SEQ_CLS", False
    body = f"{base.base_model_prefix}."
    head = {f"base_model.model.{name}": each for name, each in base.named_parameters() if not name.startswith(body)}
    adapted = get_peft_model(base, config)
    set_peft_model_state_dict(adapted, {**load_peft_weights(folder, device="cpu"), **head})
    return adapted


def _base(folder: Path, adapter: dict[str, Any]) -> Place:
    """Find an adapter's base: where its config says, else by the ref that was written beside it."""
    named = str(adapter.get("base_model_name_or_path") or "")
    origin = folder / ORIGIN
    wanted = _json(origin) if origin.is_file() else {}
    ref = str(wanted.get("base") or named)
    try:
        place = Place(named, Path(named).absolute()) if named and Path(named).is_dir() else resolve(ref or "?")
    except UserError as error:
        raise UserError(
            f"the adapter's base '{ref or '?'}' is gone", str(folder), "bring it back or mend base_model_name_or_path"
        ) from error
    if wanted and digest.weights(place.folder) != wanted["base.digest"]:
        raise UserError(f"the adapter's base '{ref}' has other weights now", str(folder), "bring the old base back")
    return place


def _weights(folder: Path, stem: str, how: ModelLoad) -> tuple[int, int]:
    """Count parameters and bytes from the headers of a folder's weights."""
    files = sorted(folder.glob(f"{stem}*.safetensors"))
    if not files:
        if not _pickled(folder):
            raise UserError(f"holds no weights ({stem}.safetensors)", str(folder), "copy the weights there")
        if not how.allow_pickle:
            raise UserError(
                "holds pickled weights, and loading them can run code",
                str(folder),
                "convert them to safetensors, or trust them: model_load.allow_pickle=true",
            )
        size = sum(file.stat().st_size for file in folder.glob("*.bin"))
        return size // 4, size
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        for name in sorted(set(_json(index).get("weight_map", {}).values())):
            if not (folder / name).is_file():
                raise UserError(f"{name} is missing, which the index names", str(folder), "copy the weights again")
    parameters = size = 0
    for file in files:
        counted = _header(file)
        parameters, size = parameters + counted[0], size + counted[1]
    return parameters, size


def _header(file: Path) -> tuple[int, int]:
    """Count parameters and bytes of a safetensors file, and check that it is as long as its header says."""
    try:
        places = digest.tensor_places(file)
    except (ValueError, LookupError, TypeError) as error:
        raise UserError("is no whole safetensors file", str(file), "copy it again") from error
    missing = max((stop for *_, stop in places.values()), default=0) - file.stat().st_size
    if missing > 0:
        last = max(places, key=lambda name: places[name][3])
        raise UserError(f"is cut off: {missing} bytes are missing (tensor {last})", str(file), "copy it again")
    return (
        sum(math.prod(shape) for _, shape, _, _ in places.values()),
        sum(stop - start for _, _, start, stop in places.values()),
    )


def _pickled(folder: Path) -> bool:
    return not any(folder.glob("*.safetensors")) and any(folder.glob("*.bin"))


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read ({first_line(error)})", str(file), "copy it again") from error
    if not isinstance(value, dict):
        raise UserError("is not an object", str(file), "copy it again")
    return value


@contextmanager
def _libraries() -> Iterator[None]:
    """Import of torch and transformers."""
    try:
        yield
    except (ImportError, RuntimeError) as error:
        _explain_torchvision(error)
        raise


def _explain_torchvision(error: BaseException) -> None:
    """A torchvision made for another torch breaks transformers, which text models never need.

    Raises:
        UserError: that is what the error is about.
    """
    seen: BaseException | None = error
    while seen is not None:
        if re.search("torchvision|torchaudio|torchcodec", str(seen)):
            raise UserError(
                "the installed torchvision does not fit this torch, and transformers trips over it",
                remedy="remove it: pip uninstall -y torchvision torchaudio torchcodec",
            ) from error
        seen = seen.__cause__ or seen.__context__
