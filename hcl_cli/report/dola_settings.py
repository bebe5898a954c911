"""How each method of `hcl dola` works, in words, and which control tells its contrast from what else it does."""

from __future__ import annotations

from collections.abc import Sequence

from hcl_cli.report.dola_words import VANILLA, method_name
from hcl_cli.report.labels import Row, one_line
from hcl_cli.report.probe_labels import joined

_DIVERGENCES = {"jsd": "the Jensen-Shannon divergence", "published": "the published code's reversed divergence"}


def settings_sentences(settings: Sequence[Row], *, decoded: bool = True, scored: bool = False) -> list[str]:
    """How each method works, and which method differs from vanilla in more than the contrast.

    Args:
        settings: per method: name (or method), and any of candidates (layers; none for vanilla), divergence, norm
            (bool) or readout, alpha, penalty, penalty_on, average_over_batch, raw_without_alpha.
        decoded: answers were decoded.
        scored: given answers were scored: without penalty, each token by its own layer.
    """
    said = [f"{method_name(row)}: {', '.join(_settings(row, decoded))}." for row in settings]
    if decoded and scored and any(row.get("average_over_batch") or row.get("penalty", 1) != 1 for row in settings):
        said.append("In multiple choice every token has its own layer, and there is no penalty.")
    return [*said, *_control_sentences(settings, decoded)]


def _control_sentences(settings: Sequence[Row], decoded: bool) -> list[str]:
    """Where a method truncates or penalises and vanilla does not, the control that does so without a contrast."""

    def artefacts(row: Row) -> tuple[float, float]:
        return row.get("alpha") or 0.0, row.get("penalty", 1.0) if decoded else 1.0

    plain = {method_name(row): artefacts(row) for row in settings if not row.get("candidates")}
    if VANILLA not in plain:
        return []
    missing: dict[str, list[str]] = {}
    there: dict[str, list[str]] = {}
    for row in settings:
        alpha, penalty = artefacts(row)
        if not row.get("candidates") or artefacts(row) == (0.0, 1.0):
            continue
        control = VANILLA + f"@alpha={alpha:g}" * bool(alpha) + f"@penalty={penalty:g}" * (penalty != 1)
        found = next((name for name, one in plain.items() if one == (alpha, penalty)), None)
        (there if found else missing).setdefault(found or control, []).append(method_name(row))
    return [
        *(
            f"{joined(names)} differ{'s' * (len(names) == 1)} from vanilla in more than the contrast, namely in the "
            f"plausible set or the penalty: add the control {control} to --methods to tell these apart."
            for control, names in missing.items()
        ),
        *(
            f"{control} is the control of {joined(names)}: it differs from {'it' if len(names) == 1 else 'them'} in "
            "the contrast alone."
            for control, names in there.items()
        ),
    ]


def _settings(row: Row, decoded: bool) -> list[str]:
    layers = list(row.get("candidates") or ())
    penalty = row.get("penalty") if decoded else None
    if not layers:
        said = ["the last layer alone", *([f"alpha {row['alpha']:g}"] if row.get("alpha") else [])]
        return [*said, *([] if penalty is None else [_penalty(penalty, None)])]
    if len(layers) == 1:
        said = [f"premature layer {layers[0]}"]
    else:
        far = _DIVERGENCES.get(row.get("divergence") or "", one_line(str(row.get("divergence") or "a divergence")))
        said = [f"the farthest of layers {layer_numbers(layers)} by {far}"]
        if decoded and row.get("average_over_batch"):
            said.append("averaged over the batch")
    norm = row.get("norm", {"norm": True, "no-norm": False}.get(row.get("readout") or ""))
    if norm is not None:
        said.append(f"read {'through' if norm else 'without'} the final norm")
    if row.get("alpha") is not None:
        said.append(f"alpha {row['alpha']:g}" + (" (no constraint)" if row["alpha"] == 0 else ""))
    if decoded and row.get("raw_without_alpha") and row.get("alpha") == 0:
        said.append("raw logits subtracted")
    return [*said, *([] if penalty is None else [_penalty(penalty, row.get("penalty_on"))])]


def _penalty(penalty: float, on: str | None) -> str:
    if penalty == 1:
        return "no repetition penalty"
    where = {"contrasted": " on contrasted scores", "logits": " on the last layer's logits"}.get(on or "", "")
    return f"repetition penalty {penalty:g}{where}"


def layer_numbers(layers: Sequence[int]) -> str:
    """`16, 18, .., 30` for an even row of four or more, else every number."""
    steps = {after - before for before, after in zip(layers, layers[1:], strict=False)}
    if len(layers) > 3 and len(steps) == 1:
        return f"{layers[0]}, {layers[1]}, .., {layers[-1]}"
    return joined([str(layer) for layer in layers])
