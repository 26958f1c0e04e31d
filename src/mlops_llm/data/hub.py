"""Data sets of the Hugging Face hub: hf:ORG/NAME, hf:ORG/NAME/CONFIG, each with :SPLIT behind it where there are several."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mlops_llm.data import columnar
from mlops_llm.data.rows import Read, Record
from mlops_llm.errors import UserError, first_line

_REF = re.compile(r"hf:(?P<name>\w[\w.-]*(?:/\w[\w.-]*)?)(?:/(?P<config>[\w.-]+))?(?::(?P<split>[\w.-]+))?")


def is_ref(ref: str) -> bool:
    """Whether a dataset ref means the hub."""
    return ref.startswith("hf:")


def name(ref: str) -> str:
    """A dataset's name: NAME, with config and split behind it where the ref gives them."""
    found = _REF.fullmatch(ref)
    parts = [found["name"].rpartition("/")[2], found["config"], found["split"]] if found else [ref]
    return "_".join(part for part in parts if part)


def rows(ref: str, how: Read | None = None) -> Iterator[Record]:
    """Every row of a split, numbered from 1; columns are not renamed here, but those wanted are looked for.

    The library `datasets` fetches it, keeps it on disk and reads it from there without memory. It looks at folders first: a
    folder ORG/NAME here comes before the hub. Nothing of the data set's own code is run. Without a split `train` is taken, or
    the only one.

    Raises:
        UserError: the ref is no such ref; the data set, config or split is unknown (what there is is named); or there is no
            connection.
    """
    found = _REF.fullmatch(ref)
    if not found:
        raise UserError("is no hub data set", ref[:200], "write hf:ORG/NAME, hf:ORG/NAME:SPLIT or hf:ORG/NAME/CONFIG:SPLIT")
    data = _loaded(ref, **found.groupdict())
    wanted = list(how.columns.values()) if how and how.columns else []
    batches = data.with_format("arrow").iter(columnar.ROWS)
    yield from columnar.rows(batches, data.features.arrow_schema, ref, ref, wanted)


def _loaded(ref: str, name: str, config: str | None, split: str | None) -> Any:
    import datasets

    try:
        # Whole, and the split chosen after: so that what splits there are can be said.
        found = datasets.load_dataset(name, config)
    except datasets.exceptions.DatasetNotFoundError as error:
        gated = "gated" in str(error)
        if gated:
            raise UserError("asks for consent on its page", ref, "give it there, then: huggingface-cli login") from error
        raise UserError("there is no such data set on the hub, or it cannot be reached", ref, _OFFLINE) from error
    except (datasets.exceptions.DataFilesNotFoundError, datasets.data_files.EmptyDatasetError) as error:
        raise UserError("holds no files of rows", ref, "look at its page") from error
    except datasets.exceptions.DatasetBuildError as error:
        said = first_line(error.__cause__ or error)
        raise UserError(
            f"cannot be loaded ({said})", ref, "download its files and name them: then each line is checked"
        ) from error
    except OSError as error:
        raise UserError("is not here, and the hub cannot be reached", ref, _OFFLINE) from error
    except (ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        listed = re.search(r"(?:[Aa]vailable|configs)[^\[]*(\[.*?\])", said)
        if listed:
            names = listed[1].strip("[]").replace("'", "")
            what = f"has no config '{config}'" if config else "has several configs"
            first = names.split(",")[0].strip()
            raise UserError(
                what, ref, f"one of: {names[:200]}; e.g. hf:{name}/{first}{':' + split if split else ''}"
            ) from error
        raise UserError(f"cannot be loaded ({first_line(error)})", ref, "open its page and download the files") from error
    if not split:
        split = "train" if "train" in found or len(found) != 1 else next(iter(found))
    if split not in found:
        example = f"hf:{name}{'/' + config if config else ''}:{next(iter(found))}"
        raise UserError(f"has no split '{split}'", ref, f"one of: {', '.join(found)}; e.g. {example}")
    return found[split]


_OFFLINE = "check the name and the connection (HF_HUB_OFFLINE, HF_ENDPOINT), or download the files and name their folder"
