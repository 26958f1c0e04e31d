"""A GGUF beside a model: whether it is the same model in another form."""

from __future__ import annotations

from pathlib import Path

from mlops_llm.errors import UserError
from mlops_llm.models import digested, packed
from mlops_llm.models.load import Files
from mlops_llm.models.ref import Place
from mlops_llm.tracking.origin import recipe
from mlops_llm.tracking.store import connect, exists


def file_of(place: Place, files: Files, weights: str) -> Path:
    """The GGUF file of a folder, if its recipe says that it was made of a model.

    Of a model whose weights are packed, one that was made of the same weights before they were packed will do.

    Args:
        place: of the GGUF.
        files: of the model.
        weights: digest of the model's own weights, of an adapter those of the adapter.

    Raises:
        UserError: there is no GGUF, or it was made of another model, or nothing says of which.
    """
    found = packed.gguf_file(place.folder)
    if found is None:
        raise UserError("holds no GGUF file", place.ref, "export one with python -m mlops_llm.surgery op=export_gguf")
    parents, wanted = _parents(place, digested.weights_digest(place)), {weights}
    if packed.form(files.config):
        wanted |= _parents(files.place, weights)
    if not parents:
        remedy = "export it of this model with python -m mlops_llm.surgery op=export_gguf"
        raise UserError("nothing says of which model it was made (recipe.json)", place.ref, remedy)
    if not parents & wanted:
        other = min(parents)
        what = f"was made of another model (weights {other[:12]}…, not {weights[:12]}…)"
        raise UserError(what, place.ref, "export it of this model")
    return found


def _parents(place: Place, weights: str) -> set[str]:
    """Digests of the weights that others were made of, by their recipe."""
    store = connect() if place.run and exists() else None
    told = recipe(store, place.run, place.folder, weights).get("sources") or []
    return {str(each["digest"]).partition(" on ")[0] for each in told if each.get("role") == "parent" and each.get("digest")}
