"""A small real entailment model whose verdicts are known: a BERT that has learnt the table below by heart.

Its classes stand in an order of their own, so that a reader who assumes one is found out. And random models of real
architectures, whose verdicts mean nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONTRADICTION, NEUTRAL, ENTAILMENT = range(3)
LABELS = {0: "ENTAILMENT", 1: "neutral", 2: "Contradiction"}
ORDER = (ENTAILMENT, NEUTRAL, CONTRADICTION)  # of the classes of the head

SYNONYMS = (("paris", "lutetia"), ("rome", "roma"), ("berlin",), ("city", "town"), ("blue", "azure"))
CITIES = (0, 1, 2)
HYPERNYM = 3
QUESTIONS = ("", "where is it", "what is the capital")
WORDS = tuple(word for words in SYNONYMS for word in words)


def relation(premise: str, hypothesis: str) -> int:
    """Synonyms entail each other, a city entails "city", two cities contradict; the rest is neutral."""
    one, other = (next(at for at, words in enumerate(SYNONYMS) if text in words) for text in (premise, hypothesis))
    if one == other or (one in CITIES and other == HYPERNYM):
        return ENTAILMENT
    return CONTRADICTION if one in CITIES and other in CITIES else NEUTRAL


def word_tokenizer() -> Any:
    """Whole words, lower case; [CLS] a [SEP] b [SEP] with token types."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = sorted({word for question in QUESTIONS for word in question.split()} | set(WORDS))
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate([*special, *words])}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"], model_max_length=64,
    )  # fmt: skip


def write_planted_nli(folder: Path) -> Path:
    """Train and save the planted model; it knows its table, with and without a question in front, or this raises."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = word_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
        max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        id2label=LABELS, label2id={label: at for at, label in LABELS.items()}, pad_token_id=0,
    )  # fmt: skip
    cases = [(q, a, b) for q in QUESTIONS for a in WORDS for b in WORDS]
    told = tokenizer(
        [f"{q} {a}".strip() for q, a, _ in cases], [f"{q} {b}".strip() for q, _, b in cases], padding=True,
        return_tensors="pt",
    )  # fmt: skip
    wanted = torch.tensor([ORDER.index(relation(a, b)) for _, a, b in cases])
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        model = BertForSequenceClassification(config)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
        for _ in range(400):
            logits = model(**told).logits
            sure = logits.detach().softmax(-1)
            if bool((sure.argmax(-1) == wanted).all()) and float(sure.amax(-1).min()) > 0.97:
                break
            loss = torch.nn.functional.cross_entropy(logits, wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        else:
            raise RuntimeError("the planted model has not learnt its table")
    finally:
        torch.set_rng_state(state)
        torch.set_num_threads(threads)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_random_classifier(folder: Path, architecture: str, labels: dict[int, str], **options: Any) -> Path:
    """A random model of a real architecture (deberta-v2, roberta, bert, llama) with the planted model's words."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    tokenizer = word_tokenizer()
    config = AutoConfig.for_model(
        architecture, vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=40, pad_token_id=0, id2label=labels,
        label2id={label: at for at, label in labels.items()}, **options,
    )  # fmt: skip
    state = torch.get_rng_state()
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config)
    torch.set_rng_state(state)
    model.save_pretrained(folder)
    if architecture == "llama":
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    return folder
