"""The sampler against its peers, as ratios in one run.

    python benchmarks/sampler.py                                the lab model, all exits, n = 50, T = 0.6
    python benchmarks/sampler.py --model FOLDER --questions-file questions.txt
    python benchmarks/sampler.py --shape llama-3.2-1b           random weights: little to share
    python benchmarks/sampler.py --sweep                        the engine alone at several --batch-tokens

Peers, both with the library's own `generate` on the model cut to k blocks, for every exit k:
  one by one   the published way: one stream at a time, batch 1, the prompt encoded every time
  library      a competent user today: `num_return_sequences=n`, one question and exit at a time
All run the same questions, exits, samples and length limit; where a peer would take minutes it runs a part that is
stated, and its time is scaled up. Each round runs all of them; medians over rounds are shown.
Compute floor: the rows that ran, times the time per row of the same matrices alone, in batches as large as the mean.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

PROMPT = "Answer the following question with no other comment.\nQuestion: {question}\nAnswer:"
LLAMA_32_1B = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "high_freq_factor": 4.0,
        "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
    },
}  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", type=Path, help="model folder; default: the lab model")
    add("--shape", choices=["llama-3.2-1b"], help="random weights of this shape in place of a model")
    add("--questions-file", type=Path, help="one question per line; default: the lab's, else built-in ones")
    add("--questions", type=int, help="questions for the engine (32, one shard of hcl sample; 1 with --shape)")
    add("--samples", type=int, help="samples per exit (50; 20 with --shape)")
    add("--new-tokens", type=int, help="length limit (50; 8 with --shape)")
    add("--prompt-tokens", type=int, default=45, help="prompt length with --shape")
    add("--temperature", type=float, default=0.6)
    add("--dtype", help="float32; bfloat16 with --shape")
    add("--device", default="cpu")
    add("--threads", type=int, default=1)
    add("--batch-tokens", type=int)
    add("--rounds", type=int, default=3)
    add("--library-questions", type=int, help="questions that the peers run (32; 1 with --shape)")
    add("--peer-exits", type=int, help="exits that the peers run, evenly spread (all; 4 with --shape)")
    add("--one-by-one-samples", type=int, default=2, help="samples per exit of the one-by-one peer")
    add("--sweep", action="store_true")
    options = parser.parse_args()
    for name, lab, shape in (
        ("questions", 32, 1), ("samples", 50, 20), ("new_tokens", 50, 8), ("dtype", "float32", "bfloat16"),
        ("library_questions", 32, 1), ("peer_exits", 10**6, 4),
    ):  # fmt: skip
        if getattr(options, name) is None:
            setattr(options, name, shape if options.shape else lab)
    return options


def questions(options: argparse.Namespace) -> list[str]:
    """The questions asked, repeated if there are fewer than wanted (with another id each)."""
    from hcl_cli.resources import data_root

    if options.questions_file:
        lines = options.questions_file.read_text(encoding="utf-8").splitlines()
    else:
        import polars as pl

        found = sorted(data_root().joinpath("lab").glob("questions*.parquet"))
        lines = pl.read_parquet(found[0] if found else data_root() / "sets" / "popqa.parquet")["question"].to_list()
        lines = lines[:: max(1, len(lines) // options.questions)]
    lines = [line for line in lines if line.strip()]
    return [lines[i % len(lines)] for i in range(options.questions)]


def prepared(options: argparse.Namespace) -> tuple[Any, list[Any]]:
    """The model and the prompts."""
    import torch

    from hcl_cli.models.decode import Prompt, tokenize_prompt
    from hcl_cli.models.load import load_model, loaded_from
    from hcl_cli.resources import data_file

    if not options.shape:
        loaded = load_model(options.model or data_file("models", "lab"), dtype=options.dtype, device=options.device)
        texts = [PROMPT.format(question=line) for line in questions(options)]
        return loaded, [Prompt(f"q{i}", tokenize_prompt(loaded, text)) for i, text in enumerate(texts)]
    from tokenizers import Tokenizer, models
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(**LLAMA_32_1B)
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, options.dtype)).to(options.device).eval()
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    vocab = {"a": 0} | {f"t{i}": i for i in range(1, config.vocab_size)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocab, unk_token="a")))
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, config.vocab_size, (options.questions, options.prompt_tokens), generator=generator)
    loaded = replace(loaded_from(model, tokenizer, options.shape), eos_ids=frozenset())
    return loaded, [Prompt(f"q{i}", tuple(row)) for i, row in enumerate(ids.tolist())]


@dataclass
class Work:
    """What ran: positions through each block, and rows through the head."""

    blocks: list[list[int]]
    head: list[int]


def count_work(loaded: Any, run: Callable[[], Any]) -> Work:
    work = Work([[] for _ in loaded.anatomy.blocks], [])

    def counter(kept: list[int]) -> Callable[..., None]:
        return lambda _module, args: kept.append(args[0].shape[:-1].numel())

    handles = [loaded.anatomy.unembedding.register_forward_pre_hook(counter(work.head))]
    for block, kept in zip(loaded.anatomy.blocks, work.blocks, strict=True):
        handles.append(block.register_forward_pre_hook(counter(kept)))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return work


def floor_seconds(loaded: Any, work: Work) -> float:
    """Time of the matrix products alone, at the mean number of rows per call."""
    import torch
    from torch import nn

    def per_row(linears: list[Any], calls: list[int]) -> float:
        rows = max(1, round(sum(calls) / len(calls)))
        inputs = [torch.randn(rows, linear.in_features, device=loaded.device, dtype=loaded.dtype) for linear in linears]
        best = float("inf")
        with torch.inference_mode():
            for _ in range(5):
                best = min(best, timed(loaded, lambda: [f(x) for f, x in zip(linears, inputs, strict=True)]))
        return best / rows

    total = 0.0
    for block, calls in zip(loaded.anatomy.blocks, work.blocks, strict=True):
        if calls:
            total += sum(calls) * per_row([m for m in block.modules() if isinstance(m, nn.Linear)], calls)
    return total + sum(work.head) * per_row([loaded.anatomy.unembedding], work.head)


def timed(loaded: Any, run: Callable[[], Any]) -> float:
    """Seconds: of this process on one CPU thread (others on the machine disturb those less), else by the clock."""
    import torch

    clock = time.process_time if loaded.device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    if loaded.device.type == "cuda":
        torch.cuda.synchronize()
    start = clock()
    run()
    if loaded.device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def generate(loaded: Any, prompt: Any, exits: list[int], options: argparse.Namespace, at_once: int, times: int) -> None:
    """The library's own way: `times` calls of `generate` for `at_once` samples, at each of these exits."""
    import torch

    from hcl_cli.models.exits import exit_at

    ids = torch.tensor([prompt.token_ids], device=loaded.device)
    for layer in exits:
        with exit_at(loaded.model, layer) as model, torch.inference_mode():
            for _ in range(times):
                model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=True,
                    temperature=options.temperature,
                    top_p=0.9,
                    top_k=0,
                    num_return_sequences=at_once,
                    max_new_tokens=options.new_tokens,
                    eos_token_id=sorted(loaded.eos_ids) or None,
                    pad_token_id=0,
                )


def main() -> None:
    options = parse()
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    import torch
    import transformers

    from hcl_cli.models.decode import DEFAULT_BATCH_TOKENS, Cell, Sampling, decode

    torch.set_num_threads(options.threads)
    transformers.utils.logging.set_verbosity_error()
    loaded, prompts = prepared(options)
    layers = list(range(1, loaded.n_layers + 1))
    sampling = Sampling(temperature=options.temperature, max_new_tokens=options.new_tokens, stop=())
    cells = [Cell(p, k, 0, options.samples) for p in range(len(prompts)) for k in layers]
    batch_tokens = options.batch_tokens or DEFAULT_BATCH_TOKENS

    def engine(share: bool = True, tokens: int = batch_tokens) -> Any:
        return decode(loaded, prompts, cells, sampling, batch_tokens=tokens, share=share)

    print(f"# {platform.machine()}, torch {torch.__version__}, {options.threads} thread(s), {loaded.device}")
    print(
        f"# {loaded.name}: {loaded.n_layers} exits x {options.samples} samples, T {options.temperature}, top-p 0.9, "
        f"at most {options.new_tokens} tokens, {options.dtype}, {loaded.attention}, median (least .. most) of "
        f"{options.rounds} rounds"
    )
    if options.sweep:
        engine()
        for power in range(16, 22):
            seconds = [timed(loaded, lambda p=power: engine(tokens=1 << p)) for _ in range(options.rounds)]
            print(f"batch tokens 2^{power}: {1e3 * statistics.median(seconds) / len(prompts):8.1f} ms per question")
        return

    exits = layers if options.peer_exits >= len(layers) else layers[:: -(-len(layers) // options.peer_exits)]
    # A cut model costs blocks plus head: scale by that, not by the number of exits.
    costs = loaded.relative_costs()
    exit_scale = sum(costs) / sum(costs[k - 1] for k in exits)
    asked = prompts[:: max(1, len(prompts) // options.library_questions)][: options.library_questions]
    few = options.one_by_one_samples
    per_question: dict[str, list[float]] = {"engine": [], "engine, no sharing": [], "library": [], "one by one": []}
    streams = engine()  # warm
    generate(loaded, asked[0], exits[:1], options, 1, 1)
    for _ in range(options.rounds):
        per_question["engine"].append(timed(loaded, engine) / len(prompts))
        per_question["engine, no sharing"].append(timed(loaded, lambda: engine(share=False)) / len(prompts))
        seconds = timed(loaded, lambda: [generate(loaded, p, exits, options, options.samples, 1) for p in asked])
        per_question["library"].append(seconds * exit_scale / len(asked))
        seconds = timed(loaded, lambda: [generate(loaded, p, exits, options, 1, few) for p in asked])
        per_question["one by one"].append(seconds * exit_scale * options.samples / few / len(asked))

    median = {name: statistics.median(values) for name, values in per_question.items()}
    print(f"# engine: {len(prompts)} questions, batch tokens {batch_tokens}; {streams.n_tokens.mean():.1f} tokens each")
    print(
        f"# library: {len(asked)} questions, exits {exits}; one by one: the same with {few} of {options.samples} "
        "samples; what is a part is scaled up"
    )
    for name, value in median.items():
        spread = " .. ".join(f"{1e3 * edge:.1f}" for edge in (min(per_question[name]), max(per_question[name])))
        print(f"{name:20s} {1e3 * value:12.1f} ms per question ({spread})   {value / median['engine']:7.1f} x engine")
    for share in (True, False):
        name = "engine" if share else "engine, no sharing"
        work = count_work(loaded, lambda s=share: engine(share=s))
        floor = floor_seconds(loaded, work) / len(prompts)
        rows, head = sum(map(sum, work.blocks)), sum(work.head)
        print(
            f"{name:20s} {rows:12,d} rows x blocks, {head:10,d} head rows; matrix products alone "
            f"{1e3 * floor:.1f} ms per question = {floor / median[name]:.0%} of its time"
        )
    tokens = int(streams.n_tokens.sum())
    print(f"engine: {tokens / (median['engine'] * len(prompts)):,.0f} tokens per second")


if __name__ == "__main__":
    main()
