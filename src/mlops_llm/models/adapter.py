"""An adapter and its base, which is named beside it by a ref and a digest, so that it is found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_llm.errors import UserError, first_line
from mlops_llm.files import read_object, write_text
from mlops_llm.models.digested import digest_now, weights_digest
from mlops_llm.models.ref import Place, resolve

if TYPE_CHECKING:
    from mlops_llm.models.load import Files, Task

ORIGIN = "mlops_llm.json"
"""File in an adapter's folder that names its base as a ref, with the digest of the base's weights. Where the base is an adapter
that was merged, `base.of` names what that one lies on."""
CONFIG = "adapter_config.json"


def base_of(folder: Path, config: dict[str, Any]) -> Place:
    """Find an adapter's base: where it was, else by the ref that was written beside the adapter.

    Raises:
        UserError: it is gone.
    """
    origin = read_origin(folder)
    named = str(origin.get("base.folder") or config.get("base_model_name_or_path") or "")
    ref = str(origin.get("base") or named)
    try:
        return Place(ref, Path(named).absolute()) if named and Path(named).is_dir() else resolve(ref or "?")
    except (UserError, OSError, ValueError) as error:  # a name that no file can have
        raise UserError(
            f"the adapter's base '{ref or '?'}' is gone", str(folder), "bring it back or mend base_model_name_or_path"
        ) from error


def read_origin(folder: Path) -> dict[str, Any]:
    """What is written beside an adapter of its base; empty where another program wrote the adapter."""
    file = folder / ORIGIN
    return read_object(file) if file.is_file() else {}


def beneath(folder: Path) -> list[str]:
    """What an adapter lies on, at any depth: ids of checkpoints, and the digests of other weights."""
    told, found = read_origin(folder), list[str]()
    while told:
        base = str(told.get("base", ""))
        found.append(base.removeprefix("models:/") if base.startswith("models:/m-") else str(told.get("base.digest", base)))
        told = _of(told)
    return found


def _of(told: dict[str, Any]) -> dict[str, Any]:
    """What the base of a base lies on itself; empty where nothing is said of it."""
    found = told.get("base.of")
    return found if isinstance(found, dict) else {}


def check_origin(folder: Path, origin: dict[str, Any], base: Files) -> None:
    """See that the base's weights, and those that it lies on itself, are the ones that the adapter was trained on.

    Raises:
        UserError: they are others.
    """
    if not origin:
        return
    if digest_now(base.place.folder) != origin.get("base.digest"):
        raise UserError(f"the adapter's base '{base.place.ref}' has other weights now", str(folder), "bring the old base back")
    if base.base is not None:
        check_origin(folder, _of(origin), base.base)


def write_origin(folder: Path, base: Files) -> None:
    """Say in an adapter's folder what its base is.

    Of a base that is itself an adapter, merged, no folder holds the weights: `base_model_name_or_path` then names no folder, so
    that a program which does not merge stops instead of taking the base's base.
    """
    write_text(folder / ORIGIN, json.dumps(_origin(base), indent=2))
    if base.is_adapter:
        config = read_object(folder / CONFIG) | {"base_model_name_or_path": f"{_ref(base.place)} (merged)"}
        write_text(folder / CONFIG, json.dumps(config, indent=2))


def _origin(base: Files) -> dict[str, Any]:
    told: dict[str, Any] = {"base": _ref(base.place), "base.digest": weights_digest(base.place)}
    if base.base is not None:
        told |= {"base.folder": str(base.place.folder), "base.of": _origin(base.base)}
    return told


def _ref(place: Place) -> str:
    """The ref that means the same for ever: an alias moves on."""
    return f"models:/{place.checkpoint}" if place.checkpoint else place.ref


def put_on(base: Any, files: Files, task: Task, *, merge: bool) -> Any:
    """Load an adapter onto its base, in memory; merged, it is a model like any other.

    Args:
        base: the model that it lies on.
        files: the adapter's.
        task: what the model is for; a language model's adapter goes onto a reward model together with that one's head.
        merge: make it part of the base, else keep it trainable on top.

    Raises:
        UserError: it does not fit.
    """
    from peft import PeftModel

    try:
        if files.task is task:
            adapted = PeftModel.from_pretrained(base, files.place.folder, is_trainable=not merge)
        else:
            adapted = _with_new_head(base, files.place.folder)
    except Exception as error:
        refuse_code(error, files.place.ref)
        raise UserError(
            f"the adapter does not fit its base ({first_line(error)})", files.place.ref, "check base_model_name_or_path"
        ) from error
    if not merge:
        # Where the base lies now; PEFT looks there for the vocabulary when it saves.
        adapted.peft_config["default"].base_model_name_or_path = base.name_or_path
        return adapted
    merged = adapted.merge_and_unload()
    merged.requires_grad_(True)  # the adapter had frozen its base
    return merged


def refuse_code(error: BaseException, ref: str) -> None:
    """Say what torch means when it does not open a pickled file; what it says itself tells how to open it all the same.

    Raises:
        UserError: that is what the error is about.
    """
    if "weights_only" in str(error):
        what = "its pickled file holds more than weights, such as code that is run when it is opened: it was not opened"
        raise UserError(what, ref, "take it from somewhere else, as safetensors") from error


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
