"""Decoding by contrasting layers: against a plain re-statement of the published code, the library, and itself."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import kl_div

from hcl_cli.errors import BadInput, BadOption, EnvironmentRefused
from hcl_cli.measures.contrast import contrasted, layer_divergence, plausible
from hcl_cli.models import batch as batch_module
from hcl_cli.models.contrast import (
    VANILLA,
    ContrastCell,
    ContrastStreams,
    Method,
    as_published,
    bucket,
    contrast_logprobs,
    decode_contrast,
    parse_method,
    parse_methods,
    ties_embeddings,
)
from hcl_cli.models.decode import Cell, Prompt, Sampling, decode
from hcl_cli.models.layer_entropy import readout

FAMILIES = ("llama", "mistral", "qwen3", "gemma2", "phi", "gpt2", "gpt_neox", "opt", "cohere", "granite", "falcon")
GREEDY = Sampling(temperature=0.0, stop=(), max_new_tokens=12)
DOLA = Method("dola:0-3", (0, 1, 2, 3))


def prompts_of(lengths: Sequence[int], vocab: int, seed: int = 1) -> list[Prompt]:
    rng = np.random.default_rng(seed)
    return [Prompt(f"q{i}", tuple(rng.integers(3, vocab, n).tolist())) for i, n in enumerate(lengths)]


def endless(loaded: Any) -> Any:
    return replace(loaded, eos_ids=frozenset())


def table(streams: ContrastStreams, prompts: Sequence[Prompt], methods: Sequence[Method]) -> dict[Any, Any]:
    """(question, method, sample) -> all that is known of the answer."""
    return {
        (prompts[streams.prompt[i]].question_id, methods[streams.method[i]].name, int(streams.sample_index[i])): (
            streams.token_ids[i], streams.text[i], streams.finish_reason[i], int(streams.n_tokens[i]),
            float(streams.mean_prob[i]), float(streams.mean_logprob[i]), float(streams.mean_max_prob[i]),
            float(streams.mean_mature_logprob[i]), streams.premature_layers[i], streams.divergences[i],
        )
        for i in range(len(streams))
    }  # fmt: skip


def published_answer(
    loaded: Any, ids: Sequence[int], candidates: Sequence[int], n: int, relative_top: float = 0.1
) -> tuple[list[int], list[int]]:
    """Greedy tokens and layers as the reference code has them, re-stated: batch 1, no cache, raw hidden states.

    Written from the description of the reference only: lm_head of `hidden_states`, kl_div with its arguments as they
    are there, relative_top with -inf and -1000 or, where it is 0, raw logits; and the library's own penalty on the
    difference.
    """
    from transformers import RepetitionPenaltyLogitsProcessor

    penalise = RepetitionPenaltyLogitsProcessor(1.2)
    scale, cap = loaded.anatomy.logit_scale, loaded.anatomy.softcap
    text, layers = list(ids), []
    for _ in range(n):
        with torch.inference_mode():
            out = loaded.model(torch.tensor([text]), output_hidden_states=True, use_cache=False)
            stacked = []
            for layer in candidates:
                logits = loaded.model.get_output_embeddings()(out.hidden_states[layer][:, -1]) * scale
                stacked.append(logits if cap is None else cap * torch.tanh(logits / cap))
        final, bases = out.logits[:, -1], torch.stack(stacked)
        mature, premature = final.softmax(-1), bases.softmax(-1)
        middle = 0.5 * (mature[None] + premature)
        kl1 = kl_div(final.log_softmax(-1)[None].expand_as(middle), middle, reduction="none").mean(-1)
        kl2 = kl_div(bases.log_softmax(-1), middle, reduction="none").mean(-1)
        layer = int((0.5 * (kl1 + kl2)).mean(-1).argmax())
        normal = final.log_softmax(-1)
        if relative_top:
            outside = normal < normal.max(-1, keepdim=True).values + math.log(relative_top)
            base = bases[layer].log_softmax(-1).masked_fill(outside, -1000.0)
            scores = normal.masked_fill(outside, -math.inf) - base
        else:
            scores = final - bases[layer]
        scores = penalise(torch.tensor([text]), scores)
        text.append(int(scores.argmax(-1)))
        layers.append(candidates[layer])
    return text[len(ids) :], layers


@pytest.mark.parametrize("family", FAMILIES)
def test_published_is_the_reference_code_and_vanilla_the_librarys_generate(
    tiny_model: Callable[..., Any], family: str
) -> None:
    """Token for token; one question at a time for the published variant, which averages over its batch."""
    loaded = endless(tiny_model(family, "float64"))
    prompts = prompts_of((5, 9), loaded.vocab_size)
    methods = [as_published(DOLA), VANILLA, replace(VANILLA, name="vanilla@penalty=1.2", penalty=1.2)]
    for prompt in prompts:
        streams = decode_contrast(loaded, [prompt], methods, GREEDY)
        tokens, layers = published_answer(loaded, prompt.token_ids, (0, 1, 2, 3), 12)
        assert list(streams.token_ids[0]) == tokens
        assert list(streams.premature_layers[0] or ()) == layers
        for i, penalty in ((1, 1.0), (2, 1.2)):
            out = loaded.model.generate(
                torch.tensor([prompt.token_ids]),
                attention_mask=torch.ones(1, len(prompt.token_ids), dtype=torch.long),
                max_new_tokens=12, min_new_tokens=12, do_sample=False, repetition_penalty=penalty, pad_token_id=2,
                eos_token_id=None,
            )  # fmt: skip
            assert list(streams.token_ids[i]) == out[0, len(prompt.token_ids) :].tolist()
            assert streams.premature_layers[i] is None and streams.divergences[i] is None


def test_without_alpha_the_reference_subtracts_raw_logits(tiny_model: Callable[..., Any]) -> None:
    """Only the penalty notices the constant: with log-probabilities other answers would come out."""
    loaded = endless(tiny_model("llama", "float64"))
    (prompt,) = prompts_of((100,), loaded.vocab_size)
    published = replace(as_published(DOLA), alpha=0.0)
    methods = [published, replace(published, name="log-probabilities", raw_without_alpha=False)]
    streams = decode_contrast(loaded, [prompt], methods, GREEDY)
    tokens, layers = published_answer(loaded, prompt.token_ids, (0, 1, 2, 3), 12, relative_top=0.0)
    assert list(streams.token_ids[0]) == tokens != list(streams.token_ids[1])
    assert list(streams.premature_layers[0] or ()) == layers


def penalised_answer(loaded: Any, ids: Sequence[int], base: int | None, alpha: float, early_mask: bool) -> list[int]:
    """Greedy tokens with the library's penalty 3 on the last layer's logits, `base` read off the model cut there.

    `early_mask`: the plausible set is that of the logits before the penalty.
    """
    from transformers import RepetitionPenaltyLogitsProcessor

    from hcl_cli.models.exits import exit_at

    penalise, text = RepetitionPenaltyLogitsProcessor(3.0), list(ids)
    for _ in range(12):
        given = torch.tensor([text])
        with torch.inference_mode():
            logits = loaded.model(given).logits[:, -1]
            hit = penalise(given, logits.clone()).softmax(-1)
            scores = hit.log()
            if base is not None:
                with exit_at(loaded.model, base) as model:
                    scores = scores - model(given).logits[:, -1].softmax(-1).log()
            law = logits.softmax(-1) if early_mask else hit
            text.append(int(torch.where(law >= alpha * law.max(), scores, -math.inf).argmax()))
    return text[len(ids) :]


def test_a_penalty_on_logits_comes_before_the_plausible_set(tiny_model: Callable[..., Any]) -> None:
    loaded = endless(tiny_model("llama", "float64"))
    prompts = prompts_of((9, 100), loaded.vocab_size)
    method = Method("static:2", (2,), alpha=0.9, penalty=3.0, penalty_on="logits")
    streams = decode_contrast(loaded, prompts, [method], GREEDY)

    def answers(**how: bool) -> list[list[int]]:
        return [penalised_answer(loaded, one.token_ids, 2, 0.9, **how) for one in prompts]

    said = answers(early_mask=False)
    assert [list(ids) for ids in streams.token_ids] == said
    assert said != answers(early_mask=True)


def test_a_penalty_on_logits_by_hand() -> None:
    """Penalty 2 on the first token makes logits (2, 1, -1) into (1, 1, -1); on log-probabilities it would double one.

    Of a uniform premature layer the contrast is then the log-softmax of these and ln 3.
    """
    from hcl_cli.models.contrast_heads import contrast

    method = Method("static:1", (1,), alpha=0.0, penalty=2.0, penalty_on="logits")
    found = contrast(torch.tensor([[2.0, 1.0, -1.0]]), torch.zeros(1, 1, 3), method, torch.tensor([[0, 0]]))
    total = 2 * math.e + 1 / math.e
    np.testing.assert_allclose(found.scores[0].exp(), np.array([math.e, math.e, 1 / math.e]) / total * 3, rtol=1e-6)
    assert found.mature is not None
    np.testing.assert_allclose(found.mature.exp().sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(found.mature[0, 0] - found.mature[0, 1], 1, rtol=1e-6)


def test_the_control_truncates_and_penalises_vanilla(tiny_model: Callable[..., Any]) -> None:
    """Its plausible set is that of the unpenalised logits, as it is of a contrast."""
    loaded = endless(tiny_model("llama", "float64"))
    prompts = prompts_of((9, 30), loaded.vocab_size)
    methods = parse_methods("vanilla@alpha=0.9@penalty=3,vanilla@penalty=3", 4, tied=False)
    streams = decode_contrast(loaded, prompts, methods, GREEDY)
    for i, alpha in ((0, 0.9), (1, 0.0)):
        said = [penalised_answer(loaded, one.token_ids, None, alpha, early_mask=True) for one in prompts]
        assert [list(ids) for ids in streams.token_ids[i::2]] == said
    assert streams.token_ids[0::2] != streams.token_ids[1::2]
    assert streams.premature_layers == [None] * 4


def test_one_candidate_is_the_static_contrast_read_off_a_cut_model(tiny_model: Callable[..., Any]) -> None:
    from hcl_cli.models.exits import exit_at

    loaded = endless(tiny_model("llama", "float64"))
    (prompt,) = prompts_of((7,), loaded.vocab_size)
    (method,) = parse_methods("dola:2@penalty=1", 4, tied=False)
    text = list(prompt.token_ids)
    for _ in range(12):
        given = torch.tensor([text])
        with torch.inference_mode(), exit_at(loaded.model, 2) as cut:
            early = cut(given).logits[:, -1].softmax(-1)
        with torch.inference_mode():
            late = loaded.model(given).logits[:, -1].softmax(-1)
        text.append(int(torch.where(late >= 0.1 * late.max(), late / early, 0.0).argmax()))
    streams = decode_contrast(loaded, [prompt], [method], GREEDY)
    assert list(streams.token_ids[0]) == text[7:]
    assert parse_method("static:2@penalty=1", 4) == replace(method, name="static:2@penalty=1")


def test_of_equally_far_layers_the_lowest_is_taken() -> None:
    from hcl_cli.models.contrast_heads import contrast

    mature, far = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 2.0, 0.0]])
    premature = torch.stack([mature, far, far])
    assert contrast(mature, premature, Method("m", (1, 2, 3))).choice == torch.tensor([1])


@torch.no_grad()
def test_an_averaged_divergence_counts_answers_and_not_rows(tiny_model: Callable[..., Any]) -> None:
    """Five samples of one question stand on one row at first, and count five times."""
    loaded = endless(tiny_model("llama", "float64"))
    prompts = prompts_of((4, 11, 7, 5, 9, 6), loaded.vocab_size)
    method, once = as_published(DOLA), replace(GREEDY, max_new_tokens=1)
    apart = []
    for prompt in prompts:
        states = loaded.model(torch.tensor([prompt.token_ids]), output_hidden_states=True)
        mature = states.logits[:, -1].log_softmax(-1)
        read = [readout(loaded.anatomy, k, norm=False)(states.hidden_states[k][:, -1]) for k in range(4)]
        apart.append(np.array([float(layer_divergence(mature, q.log_softmax(-1), "published")) for q in read]))
    pairs = [
        (a, b)
        for a in range(6)
        for b in range(6)
        if (5 * apart[a] + apart[b]).argmax() != (apart[a] + apart[b]).argmax()
    ]
    assert pairs
    for a, b in pairs[:2]:
        cells = [ContrastCell(a, 4, 0, 5, 0), ContrastCell(b, 4, 0, 1, 0)]
        streams = decode_contrast(loaded, prompts, [method], once, cells=cells)
        assert streams.premature_layers == [(int((5 * apart[a] + apart[b]).argmax()),)] * 6


def test_little_memory_refuses_to_halve_what_is_averaged_over(tiny_model: Callable[..., Any]) -> None:
    """Two halves would be two companies, with other answers under the same recipe."""
    loaded = endless(tiny_model("llama", "float64"))
    prompts = prompts_of((6, 6, 6), loaded.vocab_size)

    def full(_module: Any, _args: Any, kwargs: Any) -> None:
        raise MemoryError("no room")

    handle = loaded.anatomy.decoder.register_forward_pre_hook(full, with_kwargs=True)
    try:
        with pytest.raises(EnvironmentRefused) as caught:
            decode_contrast(loaded, prompts, [VANILLA, as_published(DOLA)], GREEDY)
        assert str(caught.value) == (
            "not enough memory on cpu for a batch of 6 answers, which cannot be halved: dola:0-3 averages over it, so "
            "that other answers would come out; lower --batch-tokens to say what is averaged over, or use @per-row"
        )
        with pytest.raises(EnvironmentRefused, match="for one answer of question"):
            decode_contrast(loaded, prompts, [VANILLA, DOLA], GREEDY)
    finally:
        handle.remove()


def plain_answer(loaded: Any, ids: Sequence[int], method: Method, n: int) -> tuple[list[int], list[int], list[float]]:
    """Greedy tokens, layers and divergences by the definition, one layer at a time with the model cut there."""
    from hcl_cli.models.exits import exit_at

    text, layers, apart = list(ids), [], []
    for _ in range(n):
        with torch.inference_mode():
            mature = loaded.model(torch.tensor([text])).logits[:, -1].log_softmax(-1)
            found = {}
            for layer in method.candidates:
                with exit_at(loaded.model, layer) as model:
                    found[layer] = model(torch.tensor([text])).logits[:, -1].log_softmax(-1)
        values = {k: float(layer_divergence(mature, q, method.divergence)) for k, q in found.items()}
        layer = max(values, key=lambda k: values[k])
        scores = contrasted(mature, found[layer], plausible(mature, method.alpha))
        text.append(int(scores.argmax()))
        layers.append(layer)
        apart.append(values[layer])
    return text[len(ids) :], layers, apart


def test_the_papers_method_is_its_definition_read_off_cut_models(tiny_model: Callable[..., Any]) -> None:
    """JSD, norm, one layer per row and token, in one batch of prompts of several lengths."""
    loaded = endless(tiny_model("llama", "float64"))
    prompts = prompts_of((4, 11, 7, 5), loaded.vocab_size)
    method = Method("dola:1-3", (1, 2, 3), penalty=1.0)
    streams = decode_contrast(loaded, prompts, [method], GREEDY)
    for i, prompt in enumerate(prompts):
        tokens, layers, apart = plain_answer(loaded, prompt.token_ids, method, 12)
        assert list(streams.token_ids[i]) == tokens
        assert list(streams.premature_layers[i] or ()) == layers
        np.testing.assert_allclose(streams.divergences[i] or (), apart, rtol=1e-5)
    assert len({layer for layers in streams.premature_layers for layer in layers or ()}) > 1
    # Chosen per row: at some token two answers use different layers.
    assert any(len(set(column)) > 1 for column in zip(*(row or () for row in streams.premature_layers), strict=True))


COMPANY = [
    VANILLA,
    DOLA,
    Method("static:2", (2,)),
    Method("dola:0,2", (0, 2), norm=False, divergence="published", penalty_on="logits"),
    replace(VANILLA, name="vanilla@penalty=1.3", penalty=1.3),
]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_in_float64_every_answer_is_equal_in_any_company(
    tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """Batch size, order of questions, sharing, fewer methods or samples, and the parts that the head works in."""
    loaded = tiny_model(family, "float64")
    prompts = prompts_of((4, 11, 7, 15, 8), loaded.vocab_size)
    sampling = Sampling(temperature=0.9, top_p=0.95, max_new_tokens=7, stop=("e", "a", "n"), seed=5)
    full = table(decode_contrast(loaded, prompts, COMPANY, sampling, 3), prompts, COMPANY)
    assert len(full) == 5 * len(COMPANY) * 3
    assert len({row[2] for row in full.values()}) > 1  # answers leave the batch at different times

    def part(asked: list[Prompt] = prompts, methods: list[Method] = COMPANY, n: int = 3, **options: Any) -> None:
        found = table(decode_contrast(loaded, asked, methods, sampling, n, **options), asked, methods)
        assert len(found) == len(asked) * len(methods) * n or options
        assert found and all(full[key] == row for key, row in found.items())

    part(prompts[::-1], COMPANY[::-1], batch_tokens=300)
    part(prompts[:2], [COMPANY[1]], batch_tokens=1)
    part(n=2)
    part(share=False)
    part(cells=[ContrastCell(p, 4, 1, 3, m) for m in (3, 1) for p in (4, 0)])
    row_bytes = loaded.vocab_size * 8
    monkeypatch.setattr(batch_module, "HEAD_BYTES", 13 * row_bytes)
    monkeypatch.setattr(batch_module, "DRAW_BYTES", {"cpu": 6 * row_bytes})
    part()
    monkeypatch.setattr(batch_module, "PROMPT_TOKENS", 20)
    part()


def test_vanilla_draws_what_hcl_sample_draws(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama", "float64")
    prompts = prompts_of((4, 11), loaded.vocab_size)
    sampling = Sampling(temperature=0.8, top_p=0.9, max_new_tokens=10, stop=("e",), seed=3)
    streams = decode_contrast(loaded, prompts, [DOLA, VANILLA], sampling, 5)
    plain = decode(loaded, prompts, [Cell(p, 4, 0, 5) for p in (0, 1)], sampling)
    ours = [i for i in range(len(streams)) if streams.method[i] == 1]
    assert [streams.token_ids[i] for i in ours] == plain.token_ids
    assert [streams.text[i] for i in ours] == plain.text
    np.testing.assert_array_equal(streams.mean_logprob[ours], plain.mean_logprob)
    np.testing.assert_array_equal(streams.mean_mature_logprob[ours], plain.mean_logprob)


def test_sampled_tokens_follow_the_contrasted_distribution(tiny_model: Callable[..., Any]) -> None:
    """4000 first tokens against softmax(F) made by hand; the level is that of the sampler's own test."""
    from scipy.stats import chisquare

    loaded = endless(tiny_model("llama", "float64"))
    prompt = prompts_of((6,), loaded.vocab_size)[0]
    method = Method("static:2", (2,), penalty=1.0, alpha=0.02)
    once = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=1, stop=(), seed=2)
    streams = decode_contrast(loaded, [prompt], [method], once, 4000)
    with torch.inference_mode():
        states = loaded.model(torch.tensor([prompt.token_ids]), output_hidden_states=True)
        mature = states.logits[:, -1].log_softmax(-1)
        premature = readout(loaded.anatomy, 2, norm=True)(states.hidden_states[2][:, -1]).log_softmax(-1)
    law = contrasted(mature, premature, plausible(mature, 0.02)).softmax(-1)[0].numpy()
    counts = np.bincount([ids[0] for ids in streams.token_ids], minlength=len(law))
    assert not counts[law == 0].any()
    common = 4000 * law >= 5
    seen, hoped = np.append(counts[common], counts[~common].sum()), np.append(law[common], law[~common].sum())
    assert common.sum() > 3 and chisquare(seen[hoped > 0], 4000 * hoped[hoped > 0]).pvalue > 1e-3
    chosen = np.array([ids[0] for ids in streams.token_ids])
    np.testing.assert_allclose(streams.mean_mature_logprob, mature[0].numpy()[chosen], rtol=1e-5)
    np.testing.assert_allclose(streams.mean_prob, law[chosen], rtol=1e-5)


def test_limits_of_alpha(tiny_model: Callable[..., Any]) -> None:
    """alpha 1 leaves the likeliest token: vanilla. alpha near 0 is alpha 0, and not 0.1."""
    loaded = endless(tiny_model("llama", "float64"))
    prompts = prompts_of((4, 11, 7), loaded.vocab_size)
    methods = [
        VANILLA, replace(DOLA, alpha=1.0, penalty=1.0),
        replace(DOLA, alpha=0.0), replace(DOLA, alpha=1e-300), DOLA,
    ]  # fmt: skip
    streams = decode_contrast(loaded, prompts, methods, GREEDY)
    by_method = [[ids for ids, of in zip(streams.token_ids, streams.method, strict=True) if of == m] for m in range(5)]
    assert by_method[0] == by_method[1]
    assert by_method[2] == by_method[3] != by_method[4]


@torch.no_grad()
def test_one_averaged_layer_for_all_answers_of_a_batch(
    tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published variant takes the layer with the largest mean divergence; alone it is each row's own."""
    loaded = endless(tiny_model("llama", "float64"))
    prompts = prompts_of((4, 11, 7, 5, 9, 6), loaded.vocab_size)
    method = as_published(DOLA)
    once = replace(GREEDY, max_new_tokens=1)
    together = decode_contrast(loaded, prompts, [method, DOLA], once)
    apart = []
    for prompt in prompts:
        states = loaded.model(torch.tensor([prompt.token_ids]), output_hidden_states=True)
        mature = states.logits[:, -1].log_softmax(-1)
        premature = [
            readout(loaded.anatomy, k, norm=False)(states.hidden_states[k][:, -1]).log_softmax(-1) for k in range(4)
        ]
        apart.append([float(layer_divergence(mature, q, "published")) for q in premature])
    best = int(np.mean(apart, 0).argmax())
    own = [int(np.argmax(row)) for row in apart]
    assert len(set(own)) > 1
    assert [together.premature_layers[i] for i in range(0, 12, 2)] == [(best,)] * 6
    np.testing.assert_allclose(
        [(together.divergences[i] or ())[0] for i in range(0, 12, 2)], [row[best] for row in apart], rtol=1e-5
    )
    monkeypatch.setattr(batch_module, "HEAD_BYTES", 11 * loaded.vocab_size * 8)  # rows in parts, the heads run twice
    parts = decode_contrast(loaded, prompts, [method, DOLA], once)
    assert table(parts, prompts, [method, replace(DOLA, name="own")]) == table(
        together, prompts, [method, replace(DOLA, name="own")]
    )
    alone = [decode_contrast(loaded, [prompt], [method], once).premature_layers[0] for prompt in prompts]
    assert alone == [(layer,) for layer in own]


def test_methods_share_the_prompt_and_the_rows_on_which_they_agree(tiny_model: Callable[..., Any]) -> None:
    """alpha 1 and vanilla say the same, so the two cost the blocks of one; the prompt is run once."""
    loaded = endless(tiny_model("llama", "float64"))
    prompt = prompts_of((9,), loaded.vocab_size)
    rows: list[tuple[int, int]] = []
    handle = loaded.anatomy.blocks[0].register_forward_hook(lambda _m, args, _out: rows.append(args[0].shape[:2]))
    try:
        methods = [VANILLA, replace(DOLA, alpha=1.0, penalty=1.0)]
        decode_contrast(loaded, prompt, methods, replace(GREEDY, max_new_tokens=4))
    finally:
        handle.remove()
    assert rows == [(1, 9), (1, 1), (1, 1), (1, 1)]


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2", "falcon"])
@pytest.mark.parametrize("n_prompts", [1, 3])
@torch.no_grad()
def test_scores_of_continuations_are_those_of_whole_texts(
    tiny_model: Callable[..., Any], family: str, n_prompts: int
) -> None:
    """Against one forward per continuation over prompt and continuation, and the formulas written out."""
    loaded = tiny_model(family, "float64")
    shared = prompts_of((12,), loaded.vocab_size, 7)[0].token_ids
    prompts = [shared + p.token_ids for p in prompts_of((3, 1, 5), loaded.vocab_size)][:n_prompts]
    asked = [[p.token_ids for p in prompts_of(lengths, loaded.vocab_size, 9)] for lengths in ((4, 1, 6), (2,), (3, 5))][
        :n_prompts
    ]
    methods = [VANILLA, replace(DOLA, alpha=0.01), Method("static:0", (0,), norm=False, alpha=0.0)]
    found = contrast_logprobs(loaded, prompts, asked, methods)
    outer = contrast_logprobs(loaded, prompts, asked, methods, outside=-math.inf, normalise_over="vocabulary")
    n_outside = 0
    for q, (prompt, answers) in enumerate(zip(prompts, asked, strict=True)):
        for a, answer in enumerate(answers):
            tokens = torch.tensor(answer)
            states = loaded.model(torch.tensor([[*prompt, *answer]]), output_hidden_states=True, use_cache=False)
            law = states.logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            for m, method in enumerate(methods):
                ours, other = found[q][m], outer[q][m]
                np.testing.assert_allclose(
                    ours.mature_logprobs[a], law.gather(1, tokens[:, None])[:, 0], rtol=1e-9, atol=1e-9
                )
                if not method.candidates:
                    assert all(np.array_equal(ours.scores[v][a], ours.mature_logprobs[a]) for v in ours.scores)
                    assert ours.premature_layers is None and ours.divergences is None
                    continue
                bases = torch.stack([
                    readout(loaded.anatomy, k, norm=method.norm)(
                        states.hidden_states[k][0, len(prompt) - 1 : -1]
                    ).log_softmax(-1)
                    for k in method.candidates
                ])  # fmt: skip
                apart, choice = layer_divergence(law, bases, method.divergence).max(0)
                every = law - bases[choice, torch.arange(len(answer))]
                mask = law >= law.max(-1, keepdim=True).values + math.log(max(method.alpha, 1e-300))
                f = every.gather(1, tokens[:, None])[:, 0]
                allowed = mask.gather(1, tokens[:, None])[:, 0]
                n_outside += int((~allowed).sum())
                over_all = f - every.exp().sum(-1).log()
                over_head = f - (every.exp() * mask).sum(-1).log()
                expected = {
                    (False, False): f,
                    (False, True): over_all,
                    (True, False): f.masked_fill(~allowed, -1000.0),
                    (True, True): over_head.masked_fill(~allowed, -1000.0),
                }
                for variant, values in expected.items():
                    np.testing.assert_allclose(ours.scores[variant][a], values, rtol=1e-9, atol=1e-9)
                np.testing.assert_allclose(
                    other.scores[True, True][a], over_all.masked_fill(~allowed, -math.inf), rtol=1e-9, atol=1e-9
                )
                assert ours.premature_layers is not None and ours.divergences is not None
                assert ours.premature_layers[a].tolist() == [method.candidates[i] for i in choice]
                np.testing.assert_allclose(ours.divergences[a], apart, rtol=1e-7)
    assert n_outside > 0


def test_scoring_in_parts_changes_nothing(tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_model("llama", "float64")
    prompts = [p.token_ids for p in prompts_of((5, 7), loaded.vocab_size)]
    asked = [[p.token_ids for p in prompts_of((4, 1, 6), loaded.vocab_size, 9)]] * 2
    whole = contrast_logprobs(loaded, prompts, asked, [DOLA])
    alone = contrast_logprobs(loaded, prompts[:1], [asked[0][2:]], [VANILLA, DOLA])
    assert all(np.array_equal(whole[0][0].scores[v][2], alone[0][1].scores[v][0]) for v in whole[0][0].scores)
    monkeypatch.setattr(batch_module, "HEAD_BYTES", 11 * loaded.vocab_size * 8)
    parts = contrast_logprobs(loaded, prompts, asked, [DOLA])
    for q in (0, 1):
        for v in whole[q][0].scores:
            assert all(np.array_equal(*pair) for pair in zip(whole[q][0].scores[v], parts[q][0].scores[v], strict=True))


def test_little_memory_halves_the_answers_and_changes_no_score(
    tiny_model: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    loaded = tiny_model("llama", "float64")
    prompt, answers = (5, 6, 7), [p.token_ids for p in prompts_of((4, 1, 6, 2, 3), loaded.vocab_size, 9)]
    plenty = contrast_logprobs(loaded, [prompt], [answers], [DOLA])[0][0]
    most = [2]

    def full(_module: Any, _args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].shape[0] > most[0]:
            raise MemoryError("no room")

    handle = loaded.anatomy.decoder.register_forward_pre_hook(full, with_kwargs=True)
    try:
        with caplog.at_level(logging.WARNING):
            halved = contrast_logprobs(loaded, [prompt], [answers], [DOLA])[0][0]
        assert caplog.messages == ["a batch of 5 answers was halved", "a batch of 3 answers was halved"]
        most[0] = 0
        with pytest.raises(EnvironmentRefused, match="not enough memory on cpu for an answer of 4 tokens after a"):
            contrast_logprobs(loaded, [prompt[:1]], [answers], [DOLA])
    finally:
        handle.remove()
    for variant, scores in plenty.scores.items():
        assert all(np.array_equal(*pair) for pair in zip(scores, halved.scores[variant], strict=True))


@torch.no_grad()
def test_what_is_no_number_is_refused(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama", "float64", seed=77)
    loaded.anatomy.final_norm.weight.fill_(math.nan)
    with pytest.raises(BadInput, match="not finite"):
        decode_contrast(loaded, [Prompt("a", (5, 6))], [DOLA], GREEDY)
    with pytest.raises(BadInput, match="not finite"):
        contrast_logprobs(loaded, [(5, 6)], [[(7,)]], [DOLA])


def test_what_cannot_be_scored_or_decoded_is_refused(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama", "float64")
    with pytest.raises(BadInput, match="prompt 0: it has no tokens"):
        contrast_logprobs(loaded, [()], [[(5,)]], [DOLA])
    for answers in ([], [(5,), ()]):
        with pytest.raises(BadInput, match="prompt 1: an answer without tokens, or no answer"):
            contrast_logprobs(loaded, [(5,), (6,)], [[(5,)], answers], [DOLA])
    with pytest.raises(BadInput, match="129 tokens with its longest answer exceed the 128 positions"):
        contrast_logprobs(loaded, [(5,) * 120], [[(5,), (5,) * 9]], [DOLA])
    with pytest.raises(BadInput, match="has no tokens"):
        decode_contrast(loaded, [Prompt("a", ())], [DOLA], GREEDY)
    deep = Method("static:4", (4,))
    with pytest.raises(ValueError, match=r"outside 0\.\.3"):
        decode_contrast(loaded, [Prompt("a", (5,))], [deep], GREEDY)
    with pytest.raises(ValueError, match=r"outside 0\.\.3"):
        contrast_logprobs(loaded, [(5,)], [[(5,)]], [deep])


def test_names_of_methods() -> None:
    assert parse_method("vanilla", 32, defaults=DOLA) == VANILLA == Method("vanilla", alpha=0.0, penalty=1.0)
    assert parse_method("dola-high", 32) == Method("dola-high", tuple(range(16, 32, 2)))
    assert parse_method("dola:2-16:2", 32).candidates == tuple(range(2, 17, 2))
    assert parse_method("static:16", 32) == Method("static:16", (16,))
    published = parse_method("dola-low@published@alpha=0@penalty=1", 32)
    assert published == replace(
        as_published(Method("dola-low@published@alpha=0@penalty=1", tuple(range(0, 16, 2)))), alpha=0.0, penalty=1.0
    )
    assert (published.readout, published.divergence, published.average_over_batch) == ("no-norm", "published", True)
    found = parse_methods("vanilla@penalty=1.2, dola:2,4,6-8,static:3@no-norm@per-row", 10, tied=False)
    assert [method.name for method in found] == ["vanilla@penalty=1.2", "dola:2,4,6-8", "static:3@no-norm@per-row"]
    assert [method.candidates for method in found] == [(), (2, 4, 6, 7, 8), (3,)]
    assert [method.penalty for method in found] == [1.2, 1.2, 1.2]
    given = parse_method("dola:1@jsd@penalty-on=contrasted", 4, defaults=replace(as_published(DOLA), penalty=1.1))
    assert (given.divergence, given.norm, given.penalty) == ("jsd", False, 1.1)


@pytest.mark.parametrize(
    ("n_layers", "tied", "low", "high"),
    [
        (32, False, range(0, 16, 2), range(16, 32, 2)),  # the README's layers of the 7B model
        (40, False, range(0, 20, 2), range(20, 40, 2)),  # 13B
        (60, False, range(0, 20, 2), range(40, 60, 2)),  # 30B
        (80, False, range(0, 20, 2), range(60, 80, 2)),  # 65B
        (16, True, range(2, 8, 2), range(8, 16, 2)),
        (22, False, range(0, 11, 2), range(12, 22, 2)),
    ],
)
def test_buckets(n_layers: int, tied: bool, low: range, high: range) -> None:
    assert bucket("low", n_layers, tied) == tuple(low)
    assert bucket("high", n_layers, tied) == tuple(high)


def test_whether_embeddings_are_tied_is_seen_in_the_model(tiny_model: Callable[..., Any]) -> None:
    assert ties_embeddings(tiny_model("llama32").model) and not ties_embeddings(tiny_model("llama").model)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("static:4", "layer 4 is not below the last one, 4; premature layers are 0..3"),
        ("dola:2-99999999", "layer 99999999 is not below"),
        ("dola-low", "no candidate layer there below the last one; name layers, as in dola:1-3"),
        ("static:1-2", "static has one premature layer, met 2"),
        ("dola:3-1", "'3-1' is no layer or range"),
        ("dola:", "'' is no layer or range"),
        ("dola:1-3:0", "no layer or range"),
        ("greedy", "expected vanilla, dola-low"),
        ("dola:1@alpha=1.5", "--alpha 1.5: expected a number from 0 to 1"),
        ("dola:1@alpha=-0.1", "--alpha -0.1"),
        ("dola:1@alpha=nan", "--alpha nan"),
        ("dola:1@alpha=x", "'x' is not a number"),
        ("dola:1@penalty=0", "--penalty 0: expected a number above 0"),
        ("dola:1@penalty-on=both", "--penalty-on both"),
        ("dola:1@best", "unknown variant 'best'"),
        ("vanilla@norm", "'norm' means nothing for vanilla, which contrasts nothing; it takes alpha= and penalty="),
        ("vanilla@alpha=0.1@published", "'published' means nothing for vanilla"),
        ("vanilla@penalty-on=logits", "'penalty-on=logits' means nothing for vanilla"),
    ],
)
def test_names_that_are_refused(text: str, says: str) -> None:
    with pytest.raises(BadOption) as caught:
        parse_method(text, 4, tied=True)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(BadOption, match="vanilla is there twice"):
        parse_methods("vanilla,dola:1,vanilla", 4, tied=False)
    for twice in ("dola:2,1 and dola:1-2", "dola:1 and static:1", "vanilla and vanilla@penalty=1"):
        with pytest.raises(BadOption, match=f"{twice} are one method; name it once"):
            parse_methods(twice.replace(" and ", ",static:3,"), 4, tied=False)
