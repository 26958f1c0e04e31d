"""Models and tokenizers from a folder, checked before and after."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlops_llm import digest
from mlops_llm.errors import UserError, first_line
from mlops_llm.files import read_object
from mlops_llm.models import adapter, code, gptq, packed, stored
from mlops_llm.models.libraries import explain_torchvision, imported
from mlops_llm.models.ref import Place


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
    trust_remote_code: bool = False
    """Also run Python code that lies in a model's folder (auto_map), where transformers does not know the model itself."""


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
    base: Files | None = None
    """What an adapter lies on: a whole model, or an adapter that is merged into its own base first."""
    adapter: int = 0
    """Numbers of the adapter."""
    task: Task = Task.language
    """What the head gives, of an adapter that which it was trained with."""
    adapter_config: dict[str, Any] = field(default_factory=dict)
    """adapter_config.json, when the folder holds an adapter."""
    code: str = ""
    """Digest of Python code that is run when the whole model is loaded; empty where none is."""

    @property
    def is_adapter(self) -> bool:
        """Whether the folder holds a LoRA adapter."""
        return self.base is not None

    @property
    def window(self) -> int | None:
        """Tokens that it takes in, where its config says."""
        most = self.config.get("max_position_embeddings")
        return int(most) if most and isinstance(most, int | float) else None

    @property
    def whole(self) -> Files:
        """The whole model beneath all adapters."""
        return self if self.base is None else self.base.whole


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
    files = _inspect(place, how, ())
    if files.task is not task and not (fresh and files.task is Task.language):
        raise UserError(f"is {_SAID[files.task]}", place.ref, _REMEDY[task])
    return files


def _inspect(place: Place, how: ModelLoad, above: tuple[Path, ...]) -> Files:
    """As `inspect`, for any task; `above` are the adapters that lie on the folder."""
    folder = place.folder
    if (folder / adapter.CONFIG).is_file():
        config = read_object(folder / adapter.CONFIG)
        under = adapter.base_of(folder, config)
        if under.folder in (*above, folder):
            raise UserError("the adapter lies on itself", str(folder), "mend base_model_name_or_path")
        return onto(place, _inspect(under, how, (*above, folder)), how)
    if not (folder / "config.json").is_file():
        raise UserError("holds no model: config.json is missing", place.ref, "name a folder written by save_pretrained")
    config = read_object(folder / "config.json")
    parameters, size = stored.counted(folder, "model", how.allow_pickle, config)
    own = code.trusted(place, config, how.trust_remote_code)
    return Files(place, config, parameters, size, task=_task(config, place), code=own)


def onto(place: Place, base: Files, how: ModelLoad) -> Files:
    """An adapter on a base, wherever that one lies now.

    Raises:
        UserError: the adapter is cut off, or was trained on other weights.
    """
    config = read_object(place.folder / adapter.CONFIG)
    count, _ = stored.counted(place.folder, "adapter_model", how.allow_pickle)
    adapter.check_origin(place.folder, adapter.read_origin(place.folder), base)
    task = _adapter_task(place, config, base.task)
    return Files(place, base.config, base.parameters, base.bytes, base, count, task, config, base.code)


def _task(config: dict[str, Any], place: Place) -> Task:
    """What a whole model's head gives.

    Raises:
        UserError: it tells classes apart.
    """
    named, labels = config.get("architectures"), config.get("id2label")
    if not any(str(name).endswith("ForSequenceClassification") for name in (named if isinstance(named, list) else ())):
        return Task.language
    classes = len(labels) if labels and isinstance(labels, dict) else 2  # what is not written down is two
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
    with imported():
        from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(place.folder, trust_remote_code=False)
    except Exception as error:
        explain_torchvision(error)
        raise UserError(
            f"the tokenizer cannot be loaded ({first_line(error)})", place.ref, "copy the tokenizer's files there"
        ) from error
    if not loaded.is_fast:
        raise UserError("the tokenizer has no fast form, which offsets need", place.ref, "convert it: save tokenizer.json")
    if loaded.pad_token is None:
        loaded.pad_token = loaded.eos_token
    return loaded


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer lies in a folder."""
    return any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json"))


def with_tokenizer(files: Files) -> Files:
    """What has a model's tokenizer: itself, or of an adapter without one what it lies on; the lowest where none has."""
    return files if files.base is None or has_tokenizer(files.place.folder) else with_tokenizer(files.base)


def tokenizer_of(files: Files) -> Any:
    """Load the tokenizer that lies with a model; of an adapter without one, that of its base."""
    return tokenizer(with_tokenizer(files).place)


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
    if packed.form(files.whole.config):
        _check_stored(files.whole.place)  # unpacked, or within torchao's tensors, nothing shows any more
        return _loaded(files, how, task, merge=merge)
    loaded = _loaded(files, how, task, merge=merge)
    check_finite(((name, tensor.detach()) for name, tensor in loaded.named_parameters()), files.place.ref)
    return loaded


def _check_stored(place: Place) -> None:
    """See that what is stored is finite where it can be otherwise: of quantized weights that is their scales.

    Raises:
        UserError: a number is not.
    """
    from safetensors import safe_open

    for file in sorted(place.folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            check_finite(((name, tensors.get_tensor(name)) for name in tensors.keys()), place.ref)  # noqa: SIM118


def check_finite(tensors: Iterable[tuple[str, Any]], ref: str) -> None:
    """See that every number of a model is finite.

    Raises:
        UserError: one is not.
    """
    import torch

    for name, tensor in tensors:
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"tensor {name} holds NaN or infinity", ref, "take an earlier checkpoint")


def in_four_bits(files: Files, how: ModelLoad) -> Any:
    """Load a whole model with its linear layers, but the output head, as 4-bit numbers (NF4, their scales quantized again).

    The weights are checked where they lie, since 4-bit numbers show neither NaN nor infinity.

    Raises:
        UserError: tensors are missing, do not fit the config, or are not finite.
    """
    import torch
    from transformers import BitsAndBytesConfig

    _check_stored(files.place)
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype_of(how.dtype).name),
    )
    loaded = _whole(files.place, how, Task.language, quantization_config=settings)
    for module in loaded.modules():
        if type(module).__name__ == "Linear4bit":
            # On a CPU the first evaluation would pack the weights into a form through which no gradient passes.
            module.support_avx512bf16_for_cpu = False
    return loaded


def _loaded(files: Files, how: ModelLoad, task: Task, *, merge: bool) -> Any:
    """The model; an adapter's base is whole, whatever it was made of."""
    if files.base is None:
        return _whole(files.place, how, task)
    return adapter.put_on(_loaded(files.base, how, task, merge=True), files, task, merge=merge)


def _whole(place: Place, how: ModelLoad, task: Task, **arguments: Any) -> Any:
    with imported():
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
        from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    # What its warnings say of tensors is checked below; the rest is not for the user of a training.
    transformers_logging.set_verbosity_error()
    wanted = dtype_of(how.dtype)
    # Mixed precision in float16 scales gradients of float32 weights.
    dtype = torch.float32 if wanted is Dtype.float16 else getattr(torch, wanted.name)
    safe = not stored.pickled(place.folder)
    form, more = (
        (AutoModelForCausalLM, {}) if task is Task.language else (AutoModelForSequenceClassification, {"num_labels": 1})
    )
    config = read_object(place.folder / "config.json")
    trust = bool(code.trusted(place, config, how.trust_remote_code))
    told = {"use_safetensors": safe, "trust_remote_code": trust, **more, **arguments, **_unpacking(place.folder)}
    if packed.form(config) == packed.GPTQ and find_spec("gptqmodel") is None:
        return gptq.whole(place.folder, config, dtype)
    try:
        loaded, report = form.from_pretrained(place.folder, dtype=dtype, output_loading_info=True, **told)
    except Exception as error:
        explain_torchvision(error)
        adapter.refuse_code(error, place.ref)
        raise UserError(
            f"the model cannot be loaded ({first_line(error)})", place.ref, "check config.json and the weights"
        ) from error
    missing = sorted(set(report["missing_keys"]) | {str(each) for each in report.get("mismatched_keys", [])})
    if task is Task.reward and _task(config, place) is Task.language:
        missing = [name for name in missing if name.startswith(f"{loaded.base_model_prefix}.")]
    if missing:
        raise UserError(
            f"{len(missing)} tensors are missing or of another shape, first {missing[0]}",
            place.ref,
            "copy the weights again",
        )
    return loaded


def _unpacking(folder: Path) -> dict[str, Any]:
    """What transformers must be told of weights that are not stored plainly."""
    packed.quiet()
    file = packed.gguf_file(folder)
    if file is None:
        return {}
    from transformers import AutoConfig, GgufConfig

    # What transformers makes of a GGUF's own settings lacks some, such as the size of a head; it knows Mistral as Llama alone.
    settings = read_object(folder / "config.json")
    family = {"mistral": "llama"}.get(settings["model_type"], settings["model_type"])
    config = AutoConfig.for_model(family, **{name: value for name, value in settings.items() if name != "model_type"})
    told = {"config": config, "gguf_file": file.name, "quantization_config": GgufConfig(dequantize=True)}
    return {**told, "use_safetensors": None}


def dtype_of(wanted: Dtype) -> Dtype:
    """Decide `auto` from the hardware."""
    if wanted is not Dtype.auto:
        return wanted
    import torch

    if torch.cuda.is_available():
        return Dtype.bfloat16 if torch.cuda.is_bf16_supported() else Dtype.float16
    return Dtype.float32
