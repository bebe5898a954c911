"""Self-speculative decoding against plain decoding of the full model, as ratios in one run.

    python benchmarks/speculative.py                   the lab model, 32 questions, 10 samples each
    python benchmarks/speculative.py --model FOLDER    another model (--dataset NAME for its questions)
    python benchmarks/speculative.py --shape 12x768 --exits 3,6,9    random weights, late blocks turned down

Both draw the same number of answers with the same temperature and top-p; each round runs all exits and the plain
engine in turn. Shown per exit: drafts accepted, tokens per pass of the full model, and the median over rounds of
plain time / self-speculative time (above 1: drafting saves time). `one by one` is the same with single answers, where
no two streams share a row: what speculative decoding was made for.

`--shape` is a Llama of random weights of which all blocks but the first add `--late` times what they would, so that
drafts are accepted often, as a well-trained exit's are: it tells what drafting saves at that size, not how often a real
exit is right.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

LAB = Path(__file__).parents[1] / "data" / "models" / "lab"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", type=Path, default=LAB)
    add("--shape", metavar="BLOCKSxWIDTH", help="random weights of that shape instead")
    add("--late", type=float, default=0.02, help="of the blocks behind the first, with --shape")
    add("--exits", help="exit layers with commas; all by default")
    add("--dataset", default="lab")
    add("--questions", type=int, default=32)
    add("--samples", type=int, default=10)
    add("--singles", type=int, default=8, help="questions of `one by one`")
    add("--temperature", type=float, default=0.6)
    add("--draft-tokens", type=int, default=6)
    add("--dtype", default="float32")
    add("--device", default="cpu")
    add("--rounds", type=int, default=3)
    return parser.parse_args()


def write_damped(folder: Path, shape: str, late: float) -> Path:
    """A Llama with random weights whose blocks behind the first hardly change what the head sees."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    n_layers, width = map(int, shape.split("x"))
    tokenizer = AutoTokenizer.from_pretrained(LAB)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=n_layers,
        num_attention_heads=width // 64, num_key_value_heads=width // 64, max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.weight.mul_(10)  # a peaked distribution, as a trained model's
        for block in model.model.layers[1:]:
            block.self_attn.o_proj.weight.mul_(late)
            block.mlp.down_proj.weight.mul_(late)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        if options.shape:
            options.model = write_damped(Path(folder), options.shape, options.late)
        measure(options)


def measure(options: argparse.Namespace) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()
    from hcl_cli.data.prompts import open_prompt
    from hcl_cli.data.questions import open_questions
    from hcl_cli.models.decode import Cell, Prompt, Sampling, decode
    from hcl_cli.models.load import load_model
    from hcl_cli.models.speculative import decode_speculative

    loaded = load_model(options.model, dtype=options.dtype, device=options.device)
    template = open_prompt("plain")
    rows = open_questions(options.dataset).load().head(options.questions).select("question_id", "question").rows()
    prompts = [Prompt(name, tuple(loaded.tokenizer(template.render(text))["input_ids"])) for name, text in rows]
    sampling = Sampling(temperature=options.temperature)
    last = loaded.n_layers
    together = {
        layer: [Cell(index, layer, 0, options.samples) for index in range(len(prompts))]
        for layer in sorted({*(map(int, options.exits.split(","))), last} if options.exits else range(1, last + 1))
    }

    def speculative(cells: list[Cell], batch_tokens: int = 1 << 20):  # type: ignore[no-untyped-def]
        return decode_speculative(
            loaded, prompts, cells, sampling, draft_tokens=options.draft_tokens, batch_tokens=batch_tokens
        )

    ratios: dict[int, list[tuple[float, float]]] = {layer: [] for layer in together}
    found = {}
    for _ in range(options.rounds):
        plain, _ = timed(lambda: decode(loaded, prompts, together[last], sampling))
        alone = [Cell(index, last, 0, 1) for index in range(min(options.singles, len(prompts)))]
        single, _ = timed(lambda cells=alone: decode(loaded, prompts, cells, sampling, batch_tokens=1))
        for layer, cells in together.items():
            took, found[layer] = timed(lambda cells=cells: speculative(cells))
            ones = [Cell(cell.prompt, layer, 0, 1) for cell in alone]
            took_alone, _ = timed(lambda cells=ones: speculative(cells, 1))
            ratios[layer].append((plain / took, single / took_alone))
    print(f"{options.shape or loaded.name}, {len(prompts)} questions x {options.samples}, n = {options.rounds} rounds")
    print("exit  accepted  tokens/pass  plain/ours together  one by one")
    for layer, streams in found.items():
        both, ones = (statistics.median(values) for values in zip(*ratios[layer], strict=True))
        accepted = streams.accepted_drafts.sum() / streams.drafted.sum()
        per_pass = streams.n_tokens.sum() / streams.verifications.sum()
        print(f"{layer:4d}  {accepted:8.2f}  {per_pass:11.2f}  {both:19.2f}x  {ones:9.2f}x")


def timed(work):  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
