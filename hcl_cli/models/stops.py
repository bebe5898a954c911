"""When an answer ends: end-of-sequence tokens and stop strings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hcl_cli.errors import BadOption


def decoded(tokenizer: Any, token_ids: list[list[int]]) -> list[str]:
    """The text of each token sequence, special tokens left out, blanks as the model wrote them."""
    texts: list[str] = tokenizer.batch_decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return texts


def first_stop(text: str, stops: tuple[str, ...], after_text: bool) -> int | None:
    """Where the first stop string begins in `text`, or None.

    Args:
        after_text: count a stop string only after the first non-blank character.
    """
    start = len(text) - len(text.lstrip()) if after_text else 0
    found = [position for stop in stops if (position := text.find(stop, start)) >= 0]
    return min(found) if found else None


class StopFilter:
    """Tells which tokens can complete a stop string, so that all others need no decoding.

    A stop string is complete when its last character is there, and that character comes with the newest token. A
    token whose piece cannot be told from its text alone (part of a character, text that merges with its neighbour)
    is taken as one that can.
    """

    def __init__(self, tokenizer: Any, vocab: int, stops: tuple[str, ...]) -> None:
        if "" in stops:
            raise BadOption("--stop '': a stop string cannot be empty; leave the option out or name a text")
        self.stops = stops
        self.can_end: NDArray[np.bool_] = np.zeros(vocab, dtype=bool)
        if not stops:
            return
        anchor = tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
        known = min(vocab, len(tokenizer))
        head = decoded(tokenizer, [anchor])[0]
        last = {stop[-1] for stop in stops}
        # Read after a plain letter: alone, a piece that begins with a blank may lose it.
        for token, text in enumerate(decoded(tokenizer, [[*anchor, token] for token in range(known)])):
            piece = text[len(head) :]
            plain = text.startswith(head) and "\N{REPLACEMENT CHARACTER}" not in text
            self.can_end[token] = not plain or not last.isdisjoint(piece)
