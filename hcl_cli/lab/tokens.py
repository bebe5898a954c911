"""The lab models' tokenizer, and how questions and statements become token rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hcl_cli.data.prompts import PLAIN
from hcl_cli.lab.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PROMPT = PLAIN
"""The default prompt of `hcl sample`, to the letter. It ends without a blank: the answer begins with one."""

VERDICTS = {True: " True", False: " False"}
"""What follows a statement when its truth is judged."""

VOCABULARY = 1536
CONTEXT = 512  # positions the models are declared for; no training row is longer than about 60


def training_text(world: World) -> list[str]:
    """Every string of the world that a model may read or write, each once, held-out facts left out; in a fixed order.

    Held-out questions share their words with others, but their answers must not shape the vocabulary.
    """
    texts: dict[str, None] = dict.fromkeys([PROMPT, *VERDICTS.values()])
    for question in world.questions:
        if question.frequency == "held":
            continue
        texts.update(dict.fromkeys(PROMPT.format(question=wording) for wording in question.wordings))
        for answer, others, weight in zip(question.answers, question.aliases, question.answer_weights, strict=True):
            if weight:  # a question with several answers may have a held-out one among them
                texts.update(dict.fromkeys(f" {form}" for form in (answer, *others)))
    texts.update(dict.fromkeys(item.statement for item in world.statements if item.label and not item.held))
    return list(texts)


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with `<pad>` (0), `<s>` (1) and `</s>` (2); `<s>` is put before every text.

    Byte-level, so no text is out of vocabulary and decoding gives the text back. It depends on the texts alone.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
