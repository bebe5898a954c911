"""What is asked of a language model, what it said, and the address under which that is kept."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass

from hcl_cli.errors import BadOption

_FORMAT = 1  # of the key; raised when what is hashed changes
_MAX_TOKENS = 32768


@dataclass(frozen=True)
class Decoding:
    """How the reply is decoded; part of the key.

    Attributes:
        max_tokens: upper bound of the reply, 1..32768 tokens.
        temperature: 0 for the likeliest reply; None sends none, for models that accept only their own default.
        seed: sent if given. A server need not honour it.
    """

    max_tokens: int = 512
    temperature: float | None = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.max_tokens <= _MAX_TOKENS:
            raise BadOption(f"{self.max_tokens} tokens in a reply: expected 1 to {_MAX_TOKENS}")
        if self.temperature is not None and not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise BadOption(f"temperature {self.temperature}: expected 0 or more")


@dataclass(frozen=True)
class Request:
    """One question, rendered in full."""

    prompt: str
    system: str | None = None
    decoding: Decoding = Decoding()

    def messages(self) -> list[dict[str, str]]:
        """As the chat interface wants them."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": self.prompt}]


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        text: what the model said, maybe nothing (""); null if the server refused this request.
        reported: the model that the server says answered; null if it does not say.
        finish_reason: as reported: "stop", "length" (cut at `max_tokens`), ...
        prompt_tokens, completion_tokens: as reported, else null.
        from_store: whether nobody was asked for it in this run.
        refusal: why the server refused, in one line; null if it answered.
    """

    text: str | None
    reported: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    from_store: bool = False
    refusal: str | None = None


def prompt_sha256(request: Request) -> str:
    """SHA-256 of the fully rendered prompt, system message and roles included, in hex."""
    return hashlib.sha256(_canonical(request.messages())).hexdigest()


def request_key(model: str, request: Request) -> str:
    """SHA-256 of the model asked for, the rendered prompt and the decoding options, in hex.

    The server's address is not in it: the same model behind another port is the same model. The model that the server
    reports is known only from the answer; `AnswerCache` keeps one answer per key and reported model.
    """
    options = request.decoding
    document = {
        "format": _FORMAT, "model": model, "prompt": prompt_sha256(request),
        "decoding": {"max_tokens": options.max_tokens, "seed": options.seed, "temperature": options.temperature},
    }  # fmt: skip
    return hashlib.sha256(_canonical(document)).hexdigest()


def plain_name(model: str) -> str:
    """A model's name as an artifact may hold it, without folders of the machine that serves it.

    Of an absolute path the last part, with 8 digits of the whole name's SHA-256, so that two folders stay apart; any
    other name as it is.
    """
    if not re.match(r"[/\\~]|[A-Za-z]:[/\\]", model):
        return model
    last = re.split(r"[/\\]", model.rstrip("/\\"))[-1]
    return f"{last} ({hashlib.sha256(model.encode()).hexdigest()[:8]})"


def token_estimate(request: Request) -> int:
    """About how many tokens the prompt has: a token per four ASCII characters and per other character, four a message.

    No tokenizer of a model behind a server is at hand. For prose in English within about 20 %; code and numbers have
    more.
    """
    texts = [message["content"] for message in request.messages()]
    n_ascii = sum(char.isascii() for text in texts for char in text)
    return math.ceil(n_ascii / 4) + sum(map(len, texts)) - n_ascii + 4 * len(texts)


def _canonical(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")
