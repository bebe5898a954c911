"""Questions -> what a model answers: right or wrong and how sure, sampled answers, given answers, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hcl_cli.errors import BadInput

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.models.decode import Sampling
    from hcl_cli.models.encoders import EncoderRef
    from hcl_cli.models.load import LoadedModel
    from hcl_cli.stages.quality import Source, Template
    from hcl_cli.stages.sample import Protocol

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Asking:
    """How questions are asked and answers judged; the defaults are those of `hcl sample` and `hcl score`.

    Attributes:
        prompt: how a question becomes a prompt.
        n_samples: answers per question.
        temperature: 0 takes the likeliest token.
        top_p, top_k, max_new_tokens, stop, seed: see `models.decode.Sampling`.
        clean: "plain" or "published".
        truncate: cut prompts that leave no room for the answer at their left end instead of refusing them.
        batch_tokens: token budget of one batch.
        judge: one of `stages.score.JUDGES`.
        cluster: "exact" or "cosine", which needs `encoder`.
        threshold: of cosine clusters.
        encoder: the sentence encoder of cosine clusters.
    """

    prompt: Template
    n_samples: int = 1
    temperature: float = 0.0
    top_p: float = 0.9
    top_k: int = 0
    max_new_tokens: int = 50
    stop: tuple[str, ...] = ("\n",)
    clean: str = "plain"
    truncate: bool = False
    seed: int = 0
    batch_tokens: int = 1 << 20
    judge: str = "alias"
    cluster: str = "exact"
    threshold: float = 0.8
    encoder: EncoderRef | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the answers and verdicts beside model and questions."""
        cosine = self.cluster == "cosine"
        return {
            "prompt": self.prompt.identity, "samples": self.n_samples, "temperature": self.temperature,
            "top_p": self.top_p, "top_k": self.top_k, "max_new_tokens": self.max_new_tokens, "stop": list(self.stop),
            "clean": self.clean, "truncate": self.truncate, "seed": self.seed, "batch_tokens": self.batch_tokens,
            "judge": self.judge, "cluster": self.cluster, "threshold": self.threshold if cosine else None,
            "embedder": self.encoder.identity if cosine and self.encoder else None,
        }  # fmt: skip

    def sampling(self) -> Sampling:
        """As the engine takes it."""
        from hcl_cli.models.decode import Sampling

        return Sampling(
            temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, max_new_tokens=self.max_new_tokens,
            stop=self.stop, stop_after_text=self.clean != "published", seed=self.seed,
        )  # fmt: skip

    def protocol(self, loaded: LoadedModel) -> Protocol:
        """As the stage takes it."""
        from hcl_cli.stages.sample import Protocol

        return Protocol(
            render=lambda question: self.prompt.render(question, loaded.tokenizer),
            special_tokens=not self.prompt.is_chat, clean=self.clean, truncate=self.truncate,
            batch_tokens=self.batch_tokens,
        )  # fmt: skip


@dataclass(eq=False)
class _Asked:
    """Answers of a model's last exit to the first questions of a set, judged and clustered."""

    source: Source
    limit: int | None
    asking: Asking
    columns: dict[str, str] = field(default_factory=dict)
    unit: str = "questions"
    _encode: Callable[[list[str]], npt.NDArray[np.float32]] | None = field(default=None, repr=False)

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the values beside the model."""
        return {
            "data": self.source.identity, "data_name": self.source.name, "columns": self.columns,
            "limit": self.limit, **self.asking.identity,
        }  # fmt: skip

    def _questions(self) -> pl.DataFrame:
        frame = self.source.load()
        frame = frame if self.limit is None else frame.head(self.limit)
        if not frame["answers"].list.len().sum():
            raise BadInput(
                f"{self.source.name}: none of its first {frame.height} questions has an accepted answer; "
                "use more questions or another set"
            )
        return frame

    def _scored(self, loaded: LoadedModel, cluster: str) -> tuple[list[str], pl.DataFrame]:
        """Question ids in order, and SCORED rows."""
        from hcl_cli.stages.clusterings import Clustering, Cosine, Exact
        from hcl_cli.stages.sample import sampled
        from hcl_cli.stages.score import scored

        questions, asking = self._questions(), self.asking
        ids = questions["question_id"].to_list()
        wanted = {(name, loaded.n_layers): (0, asking.n_samples) for name in ids}
        responses = sampled(
            loaded, questions, wanted, asking.sampling(), asking.protocol(loaded),
            model=loaded.name, dataset=self.source.name,
        )  # fmt: skip
        if cluster == "cosine" and self._encode is None:
            from hcl_cli.models.encoders import load_encoder

            if asking.encoder is None:
                raise ValueError("cosine clusters need an encoder")
            self._encode = load_encoder(asking.encoder).encode
        clustering: Clustering = Exact()
        if cluster == "cosine" and self._encode is not None:
            clustering = Cosine(self._encode, asking.threshold)
        return ids, scored(responses, judges=(asking.judge,), clusterings=(clustering,))


@dataclass(eq=False)
class Answering(_Asked):
    """The answers of `hcl sample -n 1 --temperature 0` (unless `asking` says otherwise) at the last exit, judged.

    `answer-accuracy` has [question, 1] (the share of its answers that are right), and each calibration measure
    [question, 2]: the confidence exp(mean log-probability of the answer's tokens), and 1 if it is right. Of several
    answers to a question the first counts for calibration. A question that cannot be graded has no value.
    """

    def __call__(self, loaded: LoadedModel) -> dict[str, Floats]:
        """Metric -> [question, column]."""
        import polars as pl

        ids, frame = self._scored(loaded, "exact")
        shares = dict(frame.group_by("question_id").agg(pl.col("correct").mean()).iter_rows())
        right = np.array([shares[name] for name in ids], dtype=np.float64)[:, None]
        first = {name: (logprob, correct) for name, logprob, correct in frame.filter(sample_index=0).select(
            "question_id", "mean_logprob", "correct"
        ).iter_rows()}  # fmt: skip
        rows = np.array([first[name] for name in ids], dtype=np.float64)
        rows[:, 0] = np.minimum(np.exp(rows[:, 0]), 1.0)  # rounded in float32
        rows[np.isnan(rows[:, 1])] = np.nan
        return {"answer-accuracy": right, **dict.fromkeys(CALIBRATION, rows)}


CALIBRATION = ("accuracy@50", "coverage@50", "ece", "brier", "auroc")


@dataclass(eq=False)
class SampledAnswering(_Asked):
    """Several sampled answers per question: `hallucination-rate` and `creativity`, [question, 1] each.

    As `hcl hcb` has them: the share of a question's graded answers that are wrong, and the number of clusters of its
    right ones (0 without any).
    """

    def __call__(self, loaded: LoadedModel) -> dict[str, Floats]:
        """Metric -> [question, 1]; NaN where no answer could be graded."""
        from hcl_cli.stages.curves import read_curves
        from hcl_cli.stages.scored_groups import ScoredInput

        ids, frame = self._scored(loaded, self.asking.cluster)
        (curve,) = read_curves([ScoredInput(frame, "")], "clusters")
        place = {name: index for index, name in enumerate(curve.question_ids)}
        found = {}
        for name, values in (("hallucination-rate", curve.wrong), ("creativity", curve.diversity)):
            rows = [values[place[question], 0] if question in place else np.nan for question in ids]
            found[name] = np.array(rows, dtype=np.float64)[:, None]
        return found


@dataclass(eq=False)
class Choosing:
    """TruthfulQA's multiple choice under the model's own distribution: `mc1`, `mc2`, `mc3`, [question, 1] each.

    Attributes:
        source: questions with right and wrong answers.
        limit: the first so many questions, or None for all.
        prompt: how a question becomes a prompt.
        columns: our column -> column of the file, as the set was opened with.
    """

    source: Source
    limit: int | None
    prompt: Template
    columns: dict[str, str] = field(default_factory=dict)
    unit: str = "questions"

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the values beside the model."""
        return {
            "data": self.source.identity, "data_name": self.source.name, "columns": self.columns,
            "limit": self.limit, "prompt": self.prompt.identity,
        }  # fmt: skip

    def __call__(self, loaded: LoadedModel) -> dict[str, Floats]:
        """Metric -> [question, 1]; NaN where no answer can be said at all (MC2)."""
        import polars as pl

        from hcl_cli.models.contrast_methods import VANILLA
        from hcl_cli.stages.choices import METRICS, choice_rows, question_choices

        frame = self.source.load()
        frame = frame if self.limit is None else frame.head(self.limit)
        choices = question_choices(frame, lambda question: self.prompt.render(question, loaded.tokenizer))
        rows = choice_rows(
            loaded, choices, [VANILLA], kind="mc", model=loaded.name, dataset=self.source.name,
            special_tokens=not self.prompt.is_chat,
        )  # fmt: skip
        return {
            name: rows.filter(pl.col("metric") == name)["value"].to_numpy().astype(np.float64)[:, None]
            for name in METRICS["mc"]
        }


@dataclass(eq=False)
class Speed:
    """How many tokens this machine generates in a second with the model: [run, 1].

    Every prompt is continued by exactly `n_tokens` tokens, greedily, ends of sequence and stop strings ignored, so
    that each model does the same number of steps. All prompts decode together. A measurement of a machine at a time:
    no artifact that is named by its ingredients should hold it unless it was asked for by name.

    Attributes:
        source: questions.
        limit: the first so many questions.
        asking: how they are asked.
        n_tokens: new tokens per prompt.
        n_runs: runs that count; one more goes before them and does not.
    """

    source: Source
    limit: int | None
    asking: Asking
    n_tokens: int = 32
    n_runs: int = 5
    columns: dict[str, str] = field(default_factory=dict)
    unit: str = "runs"

    @property
    def identity(self) -> dict[str, Any]:
        """What was measured; not what it came to."""
        return {
            "data": self.source.identity, "data_name": self.source.name, "columns": self.columns,
            "limit": self.limit, "runs": self.n_runs,
            "tokens": self.n_tokens, "prompt": self.asking.prompt.identity,
        }  # fmt: skip

    def once(self, loaded: LoadedModel) -> float:
        """Tokens per second of one run."""
        from hcl_cli.models.decode import Cell, decode
        from hcl_cli.stages.sample import tokenised_prompt

        frame = self.source.load()
        rows = (frame if self.limit is None else frame.head(self.limit)).to_dicts()
        sampling = replace(self.asking.sampling(), temperature=0.0, max_new_tokens=self.n_tokens, stop=())
        protocol = self.asking.protocol(loaded)
        prompts = [tokenised_prompt(loaded, row, sampling, protocol) for row in rows]
        cells = [Cell(prompt=index, exit_layer=loaded.n_layers, first=0, stop=1) for index in range(len(prompts))]
        endless = replace(loaded, eos_ids=frozenset())
        start = time.perf_counter()
        streams = decode(endless, prompts, cells, sampling, batch_tokens=self.asking.batch_tokens)
        return float(streams.n_tokens.sum()) / (time.perf_counter() - start)

    def __call__(self, loaded: LoadedModel) -> dict[str, Floats]:
        """Runs one after the other; to compare models run them in turn, as `quality_values.measured_variants` does."""
        self.once(loaded)
        return {"tokens-per-second": np.array([[self.once(loaded)] for _ in range(self.n_runs)])}


@dataclass(eq=False)
class Size:
    """The number of parameters, tied ones counted once: `parameters`, [1, 1]."""

    unit: None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Nothing but the model determines it."""
        return {}

    def __call__(self, loaded: LoadedModel) -> dict[str, Floats]:
        """Metric -> [1, 1]."""
        return {"parameters": np.array([[float(sum(weight.numel() for weight in loaded.model.parameters()))]])}
