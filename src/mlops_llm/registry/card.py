"""A model card from the record, in the form of the Hugging Face hub: README.md with YAML front matter.

The form is that of https://huggingface.co/docs/hub/model-cards; results stand in `model-index` as its metadata schema has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlops_llm import console
from mlops_llm.eval.recording import BESIDE, PREFIX
from mlops_llm.registry import descent
from mlops_llm.tracking.ledger import RunRow
from mlops_llm.tracking.lineage import Ancestor, Lineage
from mlops_llm.tracking.registered import Measured, VersionRow

_PACKAGES = ("torch", "transformers", "trl", "peft", "mlops-llm")
_SETTINGS = ("choice.algo", "choice.peft", "trainer.max_steps", "trainer.epochs", "trainer.learning_rate", "trainer.schedule",
             "trainer.batch_size", "trainer.gradient_accumulation_steps", "seed")  # fmt: skip
"""Settings of a training that a card tells."""
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""A base that is named: folders of somebody's machine are none for others."""


def card(
    title: str,
    weights: Mapping[str, str],
    measured: Sequence[Measured],
    run: RunRow | None,
    found: tuple[Mapping[str, Ancestor], Lineage],
    version: VersionRow | None,
    *,
    is_adapter: bool = False,
) -> str:
    """Write the card.

    Args:
        title: what the model is called.
        weights: tags of its checkpoint.
        measured: its numbers.
        run: that made it, if the record knows it.
        found: what `lineage.tree` returns.
        version: as which it is registered, if it is.
        is_adapter: its weights lie on a base.
    """
    ancestors, lineage = found
    scores = [each for each in measured if each.name.startswith(PREFIX) and not each.name.endswith(BESIDE)]
    parts = [
        "---",
        _front(title, scores, lineage, ancestors, is_adapter=is_adapter),
        "---",
        "",
        f"# {_text(title)}",
        "",
        *_about(weights, run, version),
        "## Results",
        "",
        *_results(scores, measured),
        "## Training data",
        "",
        *_data(lineage),
        "## How it was made",
        "",
        *_made(run),
        *_code(descent.lines(descent.boxes(ancestors))),
        "",
        *_limits(scores, lineage),
    ]
    return "\n".join(parts) + "\n"


def _front(
    title: str, scores: Sequence[Measured], lineage: Lineage, ancestors: Mapping[str, Ancestor], *, is_adapter: bool
) -> str:
    """YAML, each value as JSON writes it, which every reader of YAML takes."""
    bases = [*lineage.bases, *(each.name for each in ancestors.values() if not each.run and not each.parents)]
    bases = [each for each in dict.fromkeys(bases) if _HUB_ID.fullmatch(each)]
    names = dict.fromkeys(each.name for each in lineage.datasets if each.context == "training")
    lines = [
        "library_name: " + ("peft" if is_adapter else "transformers"),
        "pipeline_tag: text-generation",
        *_listed("tags", ["mlops-llm", *dict.fromkeys(each.how for each in ancestors.values() if each.how)]),
        *(_listed("base_model", bases) if bases else []),
        *(_listed("datasets", list(names)) if names else []),
    ]
    if scores:
        lines += ["model-index:", f"- name: {_json(title)}", "  results:"]
        for (dataset, digest), some in _by_rows(scores).items():
            lines += ["  - task:", "      type: text-generation", "    dataset:"]
            lines += [f"      name: {_json(dataset or 'benchmark')}", f"      type: {_json(dataset or 'benchmark')}"]
            lines += [f"      revision: {_json(digest)}"] if digest else []
            lines.append("    metrics:")
            for each in some:
                lines += [f"    - type: {_json(each.name.removeprefix(PREFIX))}", f"      value: {each.value:.6g}"]
    return "\n".join(lines)


def _about(weights: Mapping[str, str], run: RunRow | None, version: VersionRow | None) -> list[str]:
    rows = []
    if version:
        named = f" ({', '.join(version.aliases)})" if version.aliases else ""
        rows.append(("Registered", f"`{version.ref}`{named}"))
    if run:
        rows.append(("Run", f"`{run.name}` ({run.id}), project {run.project or '-'}"))
    if weights.get("digest.weights"):
        rows.append(("Weights (SHA-256)", f"`{weights['digest.weights']}`"))
    if weights.get("bytes", "").isdecimal():
        rows.append(("Size", console.size(int(weights["bytes"]))))
    if weights.get("certificate"):
        rows.append(("Certificate", weights["certificate"]))
    if version and version.tags.get("decision"):
        rows.append(("Decision", f"{version.tags['decision']}: {version.tags.get('decision.why', '')}"))
    return [*_table(("", ""), rows), ""] if rows else []


def _results(scores: Sequence[Measured], measured: Sequence[Measured]) -> list[str]:
    if not scores:
        return ["No evaluation of this model is in the record.", ""]
    near = {(each.name, each.dataset, each.digest): each.value for each in measured}
    rows = []
    for each in sorted(scores, key=lambda one: (one.dataset, one.name)):
        low, high = (near.get((f"{each.name}{end}", each.dataset, each.digest)) for end in ("_low", "_high"))
        sure = f"{low:.4g} to {high:.4g}" if low is not None and high is not None else "-"
        rows.append((each.name.removeprefix(PREFIX), each.dataset or "-", f"{each.value:.4g}", sure))
    return [*_table(("score", "dataset", "value", "95 %"), rows), ""]


def _data(lineage: Lineage) -> list[str]:
    if not lineage.datasets:
        return ["Not recorded.", ""]
    rows = [
        (each.name, descent.label(each) or "-", each.context, f"{each.rows:,}", f"`{each.digests.get('canonical', '')[:16]}`")
        for each in lineage.datasets
    ]
    return [*_table(("dataset", "version", "use", "rows", "digest"), rows), ""]


def _made(run: RunRow | None) -> list[str]:
    if run is None:
        return []
    told = [f"{key.rpartition('.')[2]} {run.params[key]}" for key in _SETTINGS if run.params.get(key, "None") != "None"]
    versions = [f"{name} {run.tags[f'version.{name}']}" for name in _PACKAGES if run.tags.get(f"version.{name}")]
    command = run.tags.get("command", "")
    return [
        *([f"Settings: {_text(', '.join(told))}.", ""] if told else []),
        *([f"Packages: {_text(', '.join(versions))}; commit {run.tags.get('git.commit', '-')[:12]}.", ""] if versions else []),
        *([*_code([command], "bash"), ""] if command else []),
    ]


def _limits(scores: Sequence[Measured], lineage: Lineage) -> list[str]:
    said = [f"- {_text(each)}" for each in (*lineage.unknown, *(f"influenced by {one}" for one in lineage.influences))]
    if not scores:
        said.append("- It was not evaluated.")
    return ["## Limits", "", *said, ""] if said else []


def _by_rows(scores: Sequence[Measured]) -> dict[tuple[str, str], list[Measured]]:
    found = dict[tuple[str, str], list[Measured]]()
    for each in scores:
        found.setdefault((each.dataset, each.digest), []).append(each)
    return found


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    written = [f"| {' | '.join(_cell(each) for each in row)} |" for row in rows]
    return [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *written]


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")


def _text(said: str) -> str:
    """A text on one line in which neither HTML nor a link begins: names may be anybody's."""
    return " ".join(said.split()).replace("<", "&lt;").replace("](", "]\\(")


def _code(lines: Sequence[str], kind: str = "") -> list[str]:
    """Lines as they are, between marks that none of them holds."""
    longest = max((len(each) for each in re.findall("`+", "\n".join(lines))), default=0)
    mark = "`" * max(3, longest + 1)
    return [f"{mark}{kind}", *lines, mark]


def _listed(key: str, values: Sequence[str]) -> list[str]:
    return [f"{key}:", *(f"- {_json(each)}" for each in values)]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
