"""All activation criteria together, against a plain forward pass of the same decoder; and the memory they take.

    python benchmarks/blocks.py                             12 blocks x 768, random Llama and GPT-2, texts of 512 tokens
    python benchmarks/blocks.py --shape gpt2 --rounds 9
    python benchmarks/blocks.py --dtype bfloat16 --device cuda

Ways, each over the same texts of random tokens in the same batches:
  plain       the decoder alone, no hook, no head
  residual    `hcl_cli.models.block_statistics.block_statistics`: variance, sparsity, norms, block influence, angular
              distance of every span
  published   the same with the published AVSS statistics
  all         the same with attention and MLP too
They take turns within a round; the ratio to `plain` is taken within each round, and its median over rounds is shown
with the least and the largest. Memory (--memory): peak resident memory of processes of their own that measure 4, 16 and
32 texts, and of the plain decoder on as many, over that of the loaded model alone. Random weights, since neither time
nor memory depends on them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12,
                        "num_attention_heads": 12, "num_key_value_heads": 12, "vocab_size": 32000,
                        "max_position_embeddings": 2048}),
    "gpt2": ("gpt2", {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 32000}),
}  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "residual": {},
    "published": {"published": True},
    "all": {"published": True, "activations": ("residual", "attention", "mlp")},
}
GOAL = 1.3
MEMORY_TEXTS = (4, 16, 32)


def parse() -> argparse.Namespace:
    from hcl_cli.models.block_statistics import DEFAULT_BATCH_TOKENS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--shape", choices=sorted(SHAPES), help="only this one")
    add("--texts", type=int, default=8)
    add("--tokens", type=int, default=512)
    add("--batch-tokens", type=int, default=DEFAULT_BATCH_TOKENS)
    add("--rounds", type=int, default=5)
    add("--dtype", default="float32")
    add("--device", default="cpu")
    add("--threads", type=int, default=1)
    add("--memory", action="store_true", help="measure memory instead of time")
    add("--memory-of", choices=["plain", *WAYS], help="only print this way's peak memory beside the model, in MiB")
    return parser.parse_args()


def built(options: argparse.Namespace, shape: str) -> Any:
    """A LoadedModel with random weights."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    from hcl_cli.models.load import loaded_from

    torch.manual_seed(0)
    family, sizes = SHAPES[shape]
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = AutoConfig.for_model(family, **sizes, **special)
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, options.dtype)).to(options.device).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    return loaded_from(model, tokenizer, shape)


def ways_of(options: argparse.Namespace, loaded: Any) -> dict[str, Callable[[], Any]]:
    import torch

    from hcl_cli.models.block_statistics import block_statistics

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, loaded.vocab_size, (options.texts, options.tokens), generator=generator)
    texts = [tuple(row) for row in ids.tolist()]
    rows = max(1, options.batch_tokens // options.tokens)

    def plain() -> None:
        with torch.inference_mode():
            for start in range(0, len(ids), rows):
                loaded.anatomy.decoder(input_ids=ids[start : start + rows].to(loaded.device), use_cache=False)

    def measured(extra: dict[str, Any]) -> Callable[[], Any]:
        return lambda: block_statistics(loaded, texts, batch_tokens=options.batch_tokens, **extra)

    return {"plain": plain, **{name: measured(extra) for name, extra in WAYS.items()}}


def timed(device: str, run: Callable[[], Any]) -> float:
    """Seconds: of this process on one CPU thread (others on the machine disturb those less), else by the clock."""
    import torch

    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    if device != "cpu":
        torch.cuda.synchronize()
    start = clock()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def peak_mib(options: argparse.Namespace, shape: str, way: str, texts: int) -> float:
    """Peak resident memory of a process of its own."""
    command = [sys.executable, __file__, "--shape", shape, "--memory-of", way, "--texts", str(texts),
               "--tokens", str(options.tokens), "--batch-tokens", str(options.batch_tokens),
               "--dtype", options.dtype, "--threads", str(options.threads)]  # fmt: skip
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    options = parse()
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    import torch
    import transformers

    torch.set_num_threads(options.threads)
    transformers.utils.logging.set_verbosity_error()
    if options.memory_of:
        run = ways_of(options, built(options, options.shape or "llama"))[options.memory_of]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run()
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
        return
    print(
        f"# {platform.machine()}, torch {torch.__version__}, {options.threads} thread(s), {options.device}, load "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    print(
        f"# {options.dtype}, {options.texts} texts of {options.tokens} tokens, {options.batch_tokens} tokens a batch; "
        f"median (least .. most) of {options.rounds} rounds"
    )
    for shape in [options.shape] if options.shape else SHAPES:
        if options.memory:
            for way in ("plain", "all"):
                peaks = [f"{peak_mib(options, shape, way, texts):.0f} MiB with {texts}" for texts in MEMORY_TEXTS]
                print(f"{shape:6s} {way:10s} peak beside the model: {', '.join(peaks)} texts")
            continue
        ways = ways_of(options, built(options, shape))
        took: dict[str, list[float]] = {name: [] for name in ways}
        for run in ways.values():
            run()
        for _ in range(options.rounds):
            for name, run in ways.items():
                took[name].append(timed(options.device, run))
        for name, seconds in took.items():
            ratios = [one / other for one, other in zip(seconds, took["plain"], strict=True)]
            print(
                f"{shape:6s} {name:10s} {statistics.median(seconds):7.2f} s ({min(seconds):.2f} .. {max(seconds):.2f}) "
                f"{statistics.median(ratios):5.2f} x plain ({min(ratios):.2f} .. {max(ratios):.2f}; goal {GOAL})"
            )


if __name__ == "__main__":
    main()
