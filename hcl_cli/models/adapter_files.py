"""Trained adapters on disk: the adapter in the library's own form, and the merged model that needs no library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hcl_cli.models.adapters import Adapter, merged, switched_on
from hcl_cli.models.checkpoints import CARD, markdown_cell, new_folder, save_model

if TYPE_CHECKING:
    from hcl_cli.models.load import LoadedModel

ADAPTER, MERGED = "adapter", "merged"


def export_adapter(
    loaded: LoadedModel,
    adapter: Adapter,
    folder: Path,
    *,
    provenance: Mapping[str, object],
    record: Mapping[str, str] | None = None,
) -> None:
    """Write `adapter/` (for `PeftModel.from_pretrained`) and `merged/` (for plain `from_pretrained`), both with a card.

    The folder appears whole or not at all. Nothing in it names a path of this machine: the base model stands in the
    adapter's configuration by its name.

    Args:
        loaded: the untouched model.
        adapter: trained on it.
        folder: new or empty.
        provenance: what the cards say of how it was made: no path, no host.
        record: further small files, name -> text.
    Raises:
        BadOption: a folder that is not empty.
        EnvironmentRefused: disk or memory.
    """
    with new_folder(folder) as beside:
        with switched_on(loaded, adapter) as wrapped:
            config = wrapped.peft_config["default"]
            config.base_model_name_or_path = loaded.name
            # The library would look the base model up on the Hub to see whether its vocabulary has grown.
            wrapped.save_pretrained(beside / ADAPTER, safe_serialization=True, save_embedding_layers=False)
        with merged(loaded, adapter):
            save_model(loaded, beside / MERGED)
        for name in (ADAPTER, MERGED):
            (beside / name / CARD).write_text(adapter_card(loaded, adapter, name, provenance), encoding="utf-8")
        for name, text in (record or {}).items():
            (beside / name).write_text(text, encoding="utf-8")


def adapter_card(loaded: LoadedModel, adapter: Adapter, kind: str, provenance: Mapping[str, object]) -> str:
    """The card of an adapter, or of the model that it was merged into, as Markdown."""
    name = markdown_cell(loaded.name)
    rows: dict[str, object] = {
        "base model": loaded.name,
        f"blocks trained, of 1..{loaded.n_layers}": ", ".join(map(str, adapter.blocks)),
        "LoRA rank, alpha": f"{adapter.lora.rank}, {adapter.lora.alpha}",
        "parameters trained": f"{adapter.n_parameters:,}",
        **provenance,
    }
    table = "\n".join(f"| {markdown_cell(key)} | {markdown_cell(value)} |" for key, value in rows.items())
    library, tag, load = {
        ADAPTER: ("peft", "lora", "`PeftModel.from_pretrained` on the base model"),
        MERGED: ("transformers", "merged", "`AutoModelForCausalLM.from_pretrained`; no adapter library is needed"),
    }[kind]
    return f"""---
library_name: {library}
tags:
- {tag}
---

# {name}, some blocks trained contrastively ({kind})

Linear layers of the blocks below were trained to hold the model's factual answers to a question together and its
hallucinated ones away (InfoNCE on mean answer states, with cross-entropy on factual answers); everything else is as it
was. Written by `hcl mitigate`, whose method is a working definition of that project.

| | |
| --- | --- |
{table}

Load it with {load}. Whether it hallucinates less has to be measured: this card makes no claim about it. The licence is
that of the base model.
"""
