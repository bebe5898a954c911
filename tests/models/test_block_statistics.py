"""Statistics of blocks in one pass are those of plain numpy over whole activations, one text at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hcl_cli.errors import BadInput
from hcl_cli.measures.activations import Epsilon, published_mean, token_mean
from hcl_cli.models import block_statistics as module
from hcl_cli.models.anatomy import find_anatomy
from hcl_cli.models.block_parts import find_part, refuse_shared_blocks
from hcl_cli.models.block_statistics import BlockStatistics, block_statistics
from hcl_cli.models.load import loaded_from

FAMILIES = ("llama", "gemma2", "gpt2", "opt", "phi", "mixtral", "falcon")
WIDE = ("mistral", "qwen3", "gemma3_text", "phi3", "gpt_neox", "cohere", "granite", "olmo2", "llama32", "gptj", "mpt")
LENGTHS = (3, 14, 9, 1, 20, 14, 12)
FIRSTS = (1, 0, 5, 0, 19, 3, 2)


def sequence(n: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(3, 352, (n,), generator=generator).tolist())


TEXTS = [sequence(n, seed) for seed, n in enumerate(LENGTHS)]


def library_states(loaded: Any, ids: tuple[int, ...]) -> dict[str, Any]:
    """Float64 [block, position, width] of one text alone through the whole model: inputs, outputs, parts' outputs."""
    kept: dict[str, list[Any]] = {"input": [], "residual": [], "attention": [], "mlp": []}

    def keep(name: str) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            found = output[0] if isinstance(output, tuple) else output
            kept[name].append(found.double().numpy().reshape(len(ids), -1))

        return hook

    handles = [block.register_forward_hook(keep("residual")) for block in loaded.anatomy.blocks]
    for name in ("attention", "mlp"):
        handles += [part.register_forward_hook(keep(name)) for part in find_part(loaded.anatomy, name)]
    handles += [
        block.register_forward_pre_hook(
            lambda _block, args, kwargs: kept["input"].append(
                (args[0] if args else kwargs["hidden_states"]).double().numpy().reshape(len(ids), -1)
            ),
            with_kwargs=True,
        )
        for block in loaded.anatomy.blocks
    ]
    with torch.inference_mode():
        loaded.model(input_ids=torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    return {name: np.stack(states) for name, states in kept.items()}


def block_outputs(loaded: Any, ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
    outputs: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(lambda _block, _args, output: outputs.append(output))
        for block in loaded.anatomy.blocks
    ]
    with torch.inference_mode():
        loaded.model(input_ids=ids, attention_mask=mask)
    for handle in handles:
        handle.remove()
    return outputs


def angle(a: Any, b: Any) -> float:
    return float(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1)) / np.pi)


@pytest.mark.parametrize("family", [*FAMILIES, *(pytest.param(family, marks=pytest.mark.long) for family in WIDE)])
def test_one_pass_is_whole_activations(tiny_model: Callable[..., Any], family: str) -> None:
    """Whatever the batch: to 2e-5 of the largest, since float32 states of another batch differ in the last bits."""
    loaded = tiny_model(family)
    for batch_tokens, epsilon in ((1, Epsilon(0.2)), (40, Epsilon(0.2, relative=True)), (1 << 11, Epsilon(0.2))):
        found = block_statistics(
            loaded, TEXTS, measured_from=FIRSTS, activations=("mlp", "residual", "attention"), epsilon=epsilon,
            batch_tokens=batch_tokens,
        )  # fmt: skip
        states = [library_states(loaded, ids) for ids in TEXTS]
        assert found.n_tokens.tolist() == [n - first for n, first in zip(LENGTHS, FIRSTS, strict=True)]
        assert list(found.activations) == ["residual", "attention", "mlp"]
        for kind, of_kind in found.activations.items():
            every = [state[kind][:, first:] for state, first in zip(states, FIRSTS, strict=True)]
            close(of_kind.variance, [text.var(axis=2).mean(axis=1) for text in every])
            whole = np.concatenate(every, axis=1)  # [block, token, width]
            rms = np.sqrt((whole**2).mean(axis=2, keepdims=True))
            bound = epsilon.value * rms if epsilon.relative else np.full_like(rms, epsilon.value)
            sparse = (np.abs(whole) < bound).mean(axis=2)
            # An entry that rounding moves over the bound is one of 48 of some of 45 tokens.
            np.testing.assert_allclose(token_mean(of_kind.sparsity, found.n_tokens), sparse.mean(axis=1), atol=1e-3)
            close(of_kind.l1_norm, np.abs(whole).sum(axis=2).mean(axis=1))
            close(of_kind.l2_norm, np.sqrt((whole**2).sum(axis=2)).mean(axis=1))
            close(of_kind.rms, np.sqrt((whole**2).mean(axis=(1, 2))))
            close(of_kind.epsilon, bound.mean(axis=(1, 2)))
        for row, (state, first) in enumerate(zip(states, FIRSTS, strict=True)):
            before, after = state["input"][:, first:], state["residual"][:, first:]
            cosine = (before * after).sum(2) / np.linalg.norm(before, axis=2) / np.linalg.norm(after, axis=2)
            np.testing.assert_allclose(found.influence[row], 1 - cosine.mean(axis=1), atol=2e-6)
        for start in range(4):
            for n in range(1, 5 - start):
                each = [angle(state["input"][start, -1], state["residual"][start + n - 1, -1]) for state in states]
                np.testing.assert_allclose(found.spans[start, n - 1], np.mean(each), atol=2e-6)
                if n == 1:
                    np.testing.assert_allclose(found.angular[:, start], each, atol=2e-6)
            assert np.isnan(found.spans[start, 4 - start :]).all()


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * float(np.abs(expected).max()))


def numbers(found: BlockStatistics) -> list[Any]:
    of_kind = found.activations["residual"]
    return [
        of_kind.variance, of_kind.sparsity, of_kind.l1_norm, of_kind.l2_norm, of_kind.rms, found.influence,
        found.angular, found.spans, found.published_variance, found.published_sparsity,
    ]  # fmt: skip


@pytest.mark.parametrize("family", ["gpt2", "opt", "gemma3_text", "phi3"])
def test_in_float64_company_is_not_seen_at_all(tiny_model: Callable[..., Any], family: str) -> None:
    """What the float32 test allows is rounding: with float64 arithmetic it is gone, padding and order included."""
    loaded = tiny_model(family, dtype="float64")
    alone = block_statistics(loaded, TEXTS, batch_tokens=1, epsilon=Epsilon(0.2), published=True)
    mixed = block_statistics(loaded, TEXTS, epsilon=Epsilon(0.2), published=True)
    turned = block_statistics(loaded, TEXTS[::-1], epsilon=Epsilon(0.2), batch_tokens=300, published=True)
    for one, two, three in zip(numbers(alone), numbers(mixed), numbers(turned), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-9, atol=1e-9)
        by_text = one.shape[0] == len(TEXTS)
        np.testing.assert_allclose(three[::-1] if by_text else three, one, rtol=1e-9, atol=1e-9)


def test_the_last_block_is_not_normed(tiny_model: Callable[..., Any]) -> None:
    """The last of the library's hidden states is normed: its variance is another, by a factor."""
    loaded = tiny_model("llama")
    found = block_statistics(loaded, TEXTS[:1], measured_from=[0]).activations["residual"].variance[0, -1]
    with torch.inference_mode():
        out = loaded.model(input_ids=torch.tensor([TEXTS[0]]), output_hidden_states=True)
        raw = library_states(loaded, TEXTS[0])["residual"][-1]
    normed = out.hidden_states[-1][0].double().numpy().var(axis=1).mean()
    assert found == pytest.approx(raw.var(axis=1).mean(), rel=1e-5)
    assert abs(found / normed - 1) > 0.5


def test_the_published_script_is_reproduced(tiny_model: Callable[..., Any]) -> None:
    """Restated line by line: batches of eight in order, padded to 128 with the tokenizer's mask, padding counted."""
    loaded = tiny_model("llama")
    texts = [*TEXTS, sequence(5, 50), sequence(30, 51), sequence(7, 52)]
    found = block_statistics(loaded, texts, published=True, batch_tokens=600)
    variances, sparsities = [], []
    for start in range(0, len(texts), 8):
        batch = texts[start : start + 8]
        ids = torch.tensor([[*text, *[2] * (128 - len(text))] for text in batch])
        mask = torch.tensor([[1] * len(text) + [0] * (128 - len(text)) for text in batch])
        outputs = block_outputs(loaded, ids, mask)
        variances.append([float(output.mean(dim=1).var(dim=1).mean()) for output in outputs])
        sparsities.append([float((output.abs() < 1e-5).float().mean()) for output in outputs])
    assert found.published_variance is not None and found.published_sparsity is not None
    np.testing.assert_allclose(published_mean(found.published_variance), np.mean(variances, axis=0), rtol=1e-4)
    np.testing.assert_allclose(published_mean(found.published_sparsity), np.mean(sparsities, axis=0), atol=1e-6)
    # The other statistics do not see that the texts were padded.
    plain = block_statistics(loaded, texts)
    for one, two in zip(numbers(found)[:8], numbers(plain)[:8], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=2e-3)


def test_the_published_script_cuts_long_texts(tiny_model: Callable[..., Any]) -> None:
    """A text of 150 tokens counts as its first 128; for everything else it is whole."""
    loaded = tiny_model("llama", max_position_embeddings=256)
    long = sequence(150, 9)
    found, cut = (block_statistics(loaded, [text], published=True) for text in (long, long[:128]))
    np.testing.assert_allclose(found.published_variance, cut.published_variance, rtol=1e-4)  # type: ignore[arg-type]
    assert found.n_tokens.tolist() == [150]


def with_identity(loaded: Any, number: int) -> Any:
    """A copy of a Llama whose block `number` (1..L) adds nothing."""
    model = copy.deepcopy(loaded.model)
    with torch.no_grad():
        block = model.model.layers[number - 1]
        block.self_attn.o_proj.weight.zero_()
        block.mlp.down_proj.weight.zero_()
    return loaded_from(model, loaded.tokenizer, "planted")


def test_a_block_that_does_nothing_is_found(tiny_model: Callable[..., Any]) -> None:
    """Influence and angular distance of a planted identity are 0 up to rounding, of the others far from it."""
    found = block_statistics(with_identity(tiny_model("llama"), 3), TEXTS)
    influence = token_mean(found.influence, found.n_tokens)
    assert abs(influence[2]) < 1e-6 and influence[[0, 1, 3]].min() > 0.05
    assert found.spans[2, 0] < 1e-7 and found.spans[[0, 1, 3], 0].min() > 0.05
    assert found.spans[1, 1] == pytest.approx(found.spans[1, 0], abs=1e-7)


def test_a_zero_state_has_no_direction(tiny_model: Callable[..., Any]) -> None:
    """An embedding of zeros in a model without positions and biases: NaN for that text, and it is counted."""
    loaded = tiny_model("llama")
    model = copy.deepcopy(loaded.model)
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = 0.0
    planted = loaded_from(model, loaded.tokenizer, "zero")
    found = block_statistics(planted, [(7,), TEXTS[1]])
    assert np.isnan(found.influence[0]).all() and not np.isnan(found.influence[1]).any()
    assert found.n_directionless.tolist() == [1.0] * 4
    np.testing.assert_allclose(found.spans[0, 0], found.angular[1, 0])


def test_a_part_that_does_not_run_once_is_refused(tiny_model: Callable[..., Any]) -> None:
    """Its numbers would be whatever memory held."""
    loaded = tiny_model("llama")
    for times, words in ((0, "ran in 3 of 4 blocks"), (2, "runs more than once")):
        model = copy.deepcopy(loaded.model)
        mlp = model.model.layers[0].mlp
        planted = copy.copy(loaded)
        object.__setattr__(planted, "anatomy", find_anatomy(model))

        def call(_self: Any, hidden: Any, own: Any = mlp._call_impl, times: int = times) -> Any:
            for _ in range(times):
                hidden = own(hidden)
            return hidden

        mlp.__class__ = type("Mlp", (type(mlp),), {"__call__": call})
        with pytest.raises(BadInput, match=f"--activations mlp: the module found to be the mlp .*{words}"):
            block_statistics(planted, TEXTS[:1], activations=("mlp",))


def test_what_a_text_leaves_behind_is_a_few_numbers(tiny_model: Callable[..., Any]) -> None:
    """Whatever its length: of 4 blocks four numbers each, two more of the MLP, and its number of tokens."""
    loaded = tiny_model("llama")

    def kept(texts: list[tuple[int, ...]]) -> int:
        found = block_statistics(loaded, texts, activations=("mlp",))
        arrays = [value for part in (found, *found.activations.values()) for value in vars(part).values()]
        return sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))

    assert kept([sequence(100, 1), sequence(100, 2)]) - kept([sequence(7, 1)]) == 8 * (4 * (4 + 2) + 1)


def test_groups_and_progress(tiny_model: Callable[..., Any]) -> None:
    done: list[int] = []
    loaded = tiny_model("llama")
    found = block_statistics(loaded, TEXTS[:3], groups=["a", "b", "a"], batch_tokens=1, progress=done.append)
    assert done == [1, 1, 1]
    assert found.of_group("a").tolist() == [True, False, True]


def test_a_batch_that_does_not_fit_is_halved(tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_model("llama")
    expected = block_statistics(loaded, TEXTS)
    whole = module.BlockPass.run

    def small(self: Any) -> None:
        if len(self.batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        whole(self)

    monkeypatch.setattr(module.BlockPass, "run", small)
    found = block_statistics(loaded, TEXTS)
    np.testing.assert_allclose(found.influence, expected.influence, atol=1e-5)


def test_what_cannot_be_measured_is_refused(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama")
    for texts, firsts, words in (
        ([], None, "no text to measure"),
        ([()], None, "text 1: it has no token to measure"),
        ([(1, 2), (3, 4)], [0, 2], "text 2: it has no token to measure"),
        ([tuple([5] * 129)], None, "text 1: 129 tokens, but the model has 128 positions"),
        ([(1, 999)], None, "it has token 999, but llama knows 0..351"),
    ):
        with pytest.raises(BadInput, match=words) as caught:
            block_statistics(loaded, texts, measured_from=firsts)
        assert "\n" not in str(caught.value)
    short = tiny_model("llama", max_position_embeddings=64)
    with pytest.raises(BadInput, match="pads texts to 128 tokens, but llama has 64 positions"):
        block_statistics(short, TEXTS, published=True)


def test_states_that_overflow_are_refused(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama")
    model = copy.deepcopy(loaded.model)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(float("inf"))
    planted = copy.copy(loaded)
    object.__setattr__(planted, "model", model)
    object.__setattr__(planted, "anatomy", find_anatomy(model))
    with pytest.raises(BadInput, match=r"text 5, block 2: the variance of its residual activations is not a finite"):
        block_statistics(planted, TEXTS)


def tied_module(model: Any) -> None:
    model.model.layers[2] = model.model.layers[1]


def tied_weight(model: Any) -> None:
    model.model.layers[2].mlp.up_proj.weight = model.model.layers[1].mlp.up_proj.weight


def tied_storage(model: Any) -> None:
    stored = model.model.layers[1].mlp.up_proj.weight.data
    model.model.layers[2].mlp.up_proj.weight = torch.nn.Parameter(stored)


@pytest.mark.parametrize("tie", [tied_module, tied_weight, tied_storage])
def test_shared_blocks_are_refused(tiny_model: Callable[..., Any], tie: Callable[[Any], None]) -> None:
    loaded = tiny_model("llama")
    refuse_shared_blocks(loaded.anatomy)
    refuse_shared_blocks(tiny_model("llama32").anatomy)  # embedding and unembedding are tied, blocks are not
    model = copy.deepcopy(loaded.model)
    tie(model)
    planted = copy.copy(loaded)
    object.__setattr__(planted, "anatomy", find_anatomy(model))
    with pytest.raises(BadInput, match="blocks 2 and 3 of a LlamaModel share weights") as caught:
        block_statistics(planted, TEXTS)
    assert "\n" not in str(caught.value)


def test_parts_are_found_or_refused(tiny_model: Callable[..., Any]) -> None:
    assert [type(part).__name__ for part in find_part(tiny_model("opt").anatomy, "mlp")] == ["Linear"] * 4
    assert find_part(tiny_model("opt").anatomy, "mlp")[0] is tiny_model("opt").anatomy.blocks[0].fc2
    assert find_part(tiny_model("gpt2").anatomy, "attention")[3] is tiny_model("gpt2").anatomy.blocks[3].attn
    anatomy = copy.deepcopy(tiny_model("llama").anatomy)
    anatomy.blocks[1].second_attention = anatomy.blocks[1].self_attn.__class__(anatomy.config, 1)
    with pytest.raises(BadInput, match="--activations attention: block 2 of a LlamaModel has 2 modules"):
        find_part(anatomy, "attention")
