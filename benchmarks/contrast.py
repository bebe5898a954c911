"""Decoding by contrasting layers against plain decoding, as ratios in one run.

    python benchmarks/contrast.py                           random weights, 12 blocks of width 512, 32 000 tokens
    python benchmarks/contrast.py --shape llama-3.2-1b      random weights of that shape
    python benchmarks/contrast.py --model FOLDER            a model's own weights

Greedy, the same number of tokens for all (no answer may end), one answer per question. Compared:
  vanilla         the same engine, the last layer alone
  one by one      DoLa one question at a time with the library's forward, its cache and `output_hidden_states`
Steps alone are compared: the time for all tokens less the time for the first, so that the prompt counts nowhere. The
FLOP ratio of a step is (L blocks + (1 + c) heads) / (L blocks + 1 head) for c candidates; attention scores are left
out. Each round runs all; the medians over rounds are shown, and the ratio of times over the ratio of FLOPs.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from sampler import LLAMA_32_1B, timed

SMALL = {
    "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 12, "num_attention_heads": 8,
    "num_key_value_heads": 4, "vocab_size": 32000, "tie_word_embeddings": False, "max_position_embeddings": 2048,
}  # fmt: skip
SHAPES = {"small": SMALL, "llama-3.2-1b": LLAMA_32_1B}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", type=Path, help="model folder; default: random weights of --shape")
    add("--shape", choices=sorted(SHAPES), default="small")
    add("--methods", default="dola-low,dola-high,dola-high@no-norm,dola-high@published")
    add("--questions", type=int, default=32)
    add("--prompt-tokens", type=int, default=24)
    add("--new-tokens", type=int, default=17)
    add("--penalty", type=float, default=1.2)
    add("--dtype", default="float32")
    add("--device", default="cpu")
    add("--threads", type=int, default=1)
    add("--rounds", type=int, default=3)
    add("--one-by-one", type=int, default=2, help="questions that the peer runs; its time is scaled up")
    return parser.parse_args()


def prepared(options: argparse.Namespace) -> Any:
    import torch

    from hcl_cli.models.load import load_model, loaded_from

    if options.model:
        loaded = load_model(options.model, dtype=options.dtype, device=options.device)
    else:
        from tokenizers import Tokenizer, models
        from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

        torch.manual_seed(0)
        config = LlamaConfig(**SHAPES[options.shape])
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, options.dtype)).to(options.device).eval()
        vocab = {"a": 0} | {f"t{i}": i for i in range(1, config.vocab_size)}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocab, unk_token="a")))
        loaded = loaded_from(model, tokenizer, options.shape)
    return replace(loaded, eos_ids=frozenset())


def flop_ratio(loaded: Any, n_candidates: int) -> float:
    blocks = sum(weight.numel() for block in loaded.anatomy.blocks for weight in block.parameters())
    head = sum(weight.numel() for weight in loaded.anatomy.unembedding.parameters())
    return (blocks + (1 + n_candidates) * head) / (blocks + head)


def one_by_one(loaded: Any, ids: tuple[int, ...], method: Any, n_tokens: int) -> list[int]:
    """One answer as a user of the library would write it: cached forward, all hidden states, a loop over layers."""
    import torch
    from transformers import DynamicCache

    from hcl_cli.measures.contrast import contrasted, penalised, plausible
    from hcl_cli.measures.information import js_divergence
    from hcl_cli.models.layer_entropy import readout

    cache, text = DynamicCache(config=loaded.model.config), list(ids)
    new = torch.tensor([text], device=loaded.device)
    for _ in range(n_tokens):
        out = loaded.model(new, past_key_values=cache, output_hidden_states=True, use_cache=True, logits_to_keep=1)
        mature = out.logits[:, -1].float().log_softmax(-1)
        found = [
            readout(loaded.anatomy, k, norm=method.norm)(out.hidden_states[k][:, -1]).float().log_softmax(-1)
            for k in method.candidates
        ]
        apart = [float(js_divergence(mature.exp(), q.exp())) for q in found]
        scores = contrasted(mature, found[apart.index(max(apart))], plausible(mature, method.alpha))
        scores = penalised(scores, torch.tensor([text], device=loaded.device), method.penalty)
        text.append(int(scores.argmax(-1)))
        new = torch.tensor([text[-1:]], device=loaded.device)
    return text[len(ids) :]


def main() -> None:
    options = parse()
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    import torch

    from hcl_cli.models.contrast import VANILLA, Method, decode_contrast, parse_methods, ties_embeddings
    from hcl_cli.models.decode import Prompt, Sampling

    torch.set_num_threads(options.threads)
    loaded = prepared(options)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, loaded.vocab_size, (options.questions, options.prompt_tokens), generator=generator)
    prompts = [Prompt(f"q{i}", tuple(row)) for i, row in enumerate(ids.tolist())]
    methods = parse_methods(
        options.methods,
        loaded.n_layers,
        tied=ties_embeddings(loaded.model),
        defaults=Method("", penalty=options.penalty),
    )
    compared = [VANILLA, *methods]
    print(f"# {platform.machine()}, torch {torch.__version__}, {options.threads} thread(s), {loaded.device}")
    print(
        f"# {loaded.name}: {loaded.n_layers} blocks, {loaded.vocab_size} tokens, {options.dtype}; {len(prompts)} "
        f"questions of {options.prompt_tokens} tokens, {options.new_tokens - 1} steps after the first token, penalty "
        f"{options.penalty:g}, median of {options.rounds} rounds"
    )

    def engine(which: list[Any], n_tokens: int) -> Any:
        sampling = Sampling(temperature=0.0, stop=(), max_new_tokens=n_tokens)
        return decode_contrast(loaded, prompts, which, sampling)

    def steps(run: Any) -> float:
        return timed(loaded, lambda: run(options.new_tokens)) - timed(loaded, lambda: run(1))

    def peer(n_tokens: int) -> None:
        with torch.inference_mode():
            for prompt in prompts[: options.one_by_one]:
                one_by_one(loaded, prompt.token_ids, methods[0], n_tokens)

    engine(compared, 2)  # warm
    seconds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for method in compared:
            seconds.setdefault(method.name, []).append(steps(lambda n, m=method: engine([m], n)))
        seconds.setdefault("all in one run", []).append(steps(lambda n: engine(compared, n)))
        seconds.setdefault("one by one", []).append(steps(peer) * len(prompts) / options.one_by_one)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    per = 1e3 / (len(prompts) * (options.new_tokens - 1))
    for method in compared:
        name = method.name
        flops = flop_ratio(loaded, len(method.candidates))
        # Each round's own ratio: what else runs on the machine changes from round to round.
        measured = statistics.median(a / b for a, b in zip(seconds[name], seconds["vanilla"], strict=True))
        print(
            f"{name:24s} {per * median[name]:8.3f} ms per token, {len(method.candidates)} candidates: "
            f"{measured:.2f} x vanilla, FLOPs {flops:.2f} x: {measured / flops:.2f}"
        )
    each = sum(median[method.name] for method in compared)
    print(
        f"{'all in one run':24s} {per * median['all in one run']:8.3f} ms per token of all; one method after another "
        f"takes {each / median['all in one run']:.2f} x that"
    )
    first = methods[0].name
    print(
        f"{'one by one':24s} {per * median['one by one']:8.3f} ms per token of {first}: "
        f"{median['one by one'] / median[first]:.2f} x the engine"
    )


if __name__ == "__main__":
    main()
