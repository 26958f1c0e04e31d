"""What a model's weights are known by: their digest as they lie there now, held against the one in the record."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from mlops_llm import digest
from mlops_llm.errors import UserError
from mlops_llm.models import packed
from mlops_llm.models.ref import Place
from mlops_llm.record import Checkpoint


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


def as_recorded(place: Place, **tags: str) -> Checkpoint:
    """A model that is read, as the record names it and knows it by the digest of its weights.

    Args:
        place: where it is.
        tags: more that is known of it; an underscore stands for a dot.

    Raises:
        UserError: the weights are not those that the record says.
    """
    told = {"digest.weights": weights_digest(place), "ref": place.ref}
    told |= {name.replace("_", "."): value for name, value in tags.items()}
    name = place.name or re.sub(r"[^\w.\-]+", "_", place.ref).strip("_")
    return Checkpoint(name, place.step, place.folder, told, place.checkpoint)


def digest_now(folder: Path) -> str:
    """Digest of the weights that lie in a folder; of pickled ones, which are not opened for it, and of GGUF that of files."""
    if one := packed.gguf_file(folder):
        return digest.raw(one)
    try:
        return digest.weights(folder)
    except FileNotFoundError:
        return digest.text("\n".join(f"{file.name} {digest.raw(file)}" for file in sorted(folder.glob("*.bin"))))


_folder_digest = cache(digest_now)
