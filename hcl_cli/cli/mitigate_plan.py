"""The plan of `hcl mitigate`: which answers are learned from, what is trained, what is exported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcl_cli.cli.answers import first_value
from hcl_cli.errors import BadInput, BadOption, HclError, shown

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.artifacts.store import Source
    from hcl_cli.cli.loading import ModelChoice
    from hcl_cli.cli.session import Session
    from hcl_cli.data.prompts import Prompt
    from hcl_cli.models.load import LoadedModel
    from hcl_cli.stages.contrast_pairs import AnsweredQuestion
    from hcl_cli.stages.contrastive_training import Epoch, Trained, Training
    from hcl_cli.stages.mitigate import Parts, Variant

RECORD = "hcl.json"  # of an export: which recipe made it


@dataclass
class Plan:
    """What one call trains and measures.

    Attributes:
        source: SCORED rows.
        choice: the model that sampled them.
        prompt: how questions are asked, and were.
        given: blocks to train, 1..L; None for those with the highest EAVSS contrast.
        variants: names of what is trained, `chosen` first.
        options: as the recipe has them.
    """

    session: Session
    source: Source
    choice: ModelChoice
    prompt: Prompt
    given: tuple[int, ...] | None
    variants: tuple[str, ...]
    options: Mapping[str, Any]
    _trained: dict[str, Trained] = field(default_factory=dict, repr=False)

    # ------------------------------------------------------------------------------------------------- what there is

    @cached_property
    def scored(self) -> pl.DataFrame:
        """The rows of the input."""
        return self.source.frame().collect()

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model."""
        return self.choice.load()

    @cached_property
    def questions(self) -> list[AnsweredQuestion]:
        """Questions with their distinct answers.

        Raises:
            BadInput, BadOption: unusable rows; the message begins with the file.
        """
        from hcl_cli.stages.contrast_pairs import answered_questions, distinct_answers

        asked = self.options["answers_of"]
        try:
            found = distinct_answers(
                self.scored,
                model=self.choice.reference.name,
                answers_of=tuple(asked) if isinstance(asked, list) else asked,
            )
            questions = answered_questions(
                self.loaded,
                found.frame,
                lambda question: self.prompt.render(question, self.loaded.tokenizer),
                special_tokens=not self.prompt.is_chat,
            )
        except HclError as error:
            raise self._of_the_file(error) from error
        n_right = int(found.frame["correct"].sum())
        whose = f" of exit layers {found.exit_layers[0]} to {found.exit_layers[-1]}" if found.exit_layers else ""
        left_out = [
            f"{n} {why}"
            for n, why in (
                (found.n_empty, "empty"), (found.n_ungraded, "without a verdict"),
                (found.n_contradictory, "judged both ways"),
            )
            if n
        ]  # fmt: skip
        self.session.terminal.say(
            f"mitigate: {n_right} correct and {found.frame.height - n_right} hallucinated distinct answers{whose} to "
            f"{len(questions)} questions" + (f"; left out: {', '.join(left_out)}" if left_out else "")
        )
        return questions

    @cached_property
    def parts(self) -> Parts:
        """The questions, split; says how many of those trained on have a contrast."""
        from hcl_cli.stages.mitigate import parts_of

        try:
            parts = parts_of(self.questions, self.options["seed"])
        except BadInput as error:
            raise self._of_the_file(error) from error
        n_contrast = sum(one.has_contrast for one in parts.train)
        n_plain = sum(bool(one.factual) and not one.has_contrast for one in parts.train)
        self.session.terminal.say(
            f"mitigate: {len(parts.train)} questions to train on, {len(parts.validation)} to stop early by, "
            f"{len(parts.test)} held out; of those trained on {n_contrast} have a contrast (two correct answers and a "
            f"hallucinated one), {n_plain} teach by the likelihood of their correct answers alone, "
            f"{len(parts.train) - n_contrast - n_plain} have no correct answer and teach nothing"
        )
        return parts

    @cached_property
    def planned(self) -> list[Variant]:
        """What is trained: the chosen blocks first."""
        from hcl_cli.stages.mitigate import hallucination_prone, planned_variants

        blocks = self.given
        if blocks is None:
            blocks = hallucination_prone(
                self.loaded, self.parts.train, self.options["fraction"], batch_tokens=self.options["batch_tokens"]
            )
        found = planned_variants(
            self.variants,
            blocks,
            self.loaded.n_layers,
            chosen_by="eavss" if self.given is None else "given",
            random_seeds=[self.options["seed"] + number for number in range(self.options["random_seeds"] or 0)],
        )
        for one in found:
            self.session.terminal.say(f"mitigate: {one.label} trains blocks {', '.join(map(str, one.blocks))}")
        return found

    @cached_property
    def training(self) -> Training:
        """The options as the stage takes them."""
        from hcl_cli.models.adapters import Lora
        from hcl_cli.stages.contrastive_training import Training

        given = self.options
        return Training(
            epochs=given["epochs"], patience=given["patience"], learning_rate=given["learning_rate"],
            temperature=given["tau"], likelihood_weight=given["ce_weight"], most_answers=given["most_answers"],
            lora=Lora(given["rank"], given["alpha"]), seed=given["seed"], batch_tokens=given["batch_tokens"],
        )  # fmt: skip

    @cached_property
    def dataset(self) -> str:
        """The data by name, never a path."""
        return first_value(self.source, "dataset") or self.source.path.name

    # ---------------------------------------------------------------------------------------------------- what is made

    def retained(self) -> pl.DataFrame:
        """RETAINED rows: everything trained and measured."""
        from hcl_cli.models.adapters import require_peft
        from hcl_cli.stages.mitigate import trainings
        from hcl_cli.stages.mitigate_held_out import compared, held_out_metrics, held_out_questions
        from hcl_cli.stages.quality_answers import Asking

        require_peft("hcl mitigate")
        given, parts = self.options, self.parts
        try:
            questions = held_out_questions(self.scored, [one.question_id for one in parts.test])
        except BadInput as error:
            raise self._of_the_file(error) from error
        variants = self.planned
        trained = trainings(self.loaded, parts, variants, self.training, self._note)
        self._trained = {one.label: found for one, found in trained.items()}
        for one, found in trained.items():
            if not found.best:
                self.session.terminal.warn(
                    f"{one.label}: no epoch lowered the validation loss, so the model stays as it was; try a lower "
                    "--learning-rate"
                )
        asking = Asking(
            self.prompt, given["samples"], given["temperature"], judge=given["judge"], seed=given["seed"],
        )  # fmt: skip
        metrics = held_out_metrics(questions, parts, asking, dataset=self.dataset)
        with self.session.terminal.progress("mitigate", "passes over held-out questions") as advance:
            return compared(
                self.loaded, trained, metrics, parts, self.training,
                model=self.choice.reference.name, n_bootstrap=given["bootstrap"], progress=advance,
            )  # fmt: skip

    def export_target(self, folder: Path, key: str) -> Path | None:
        """Where the export goes; None where this very export is there already.

        Raises:
            BadOption: a file, or a folder with something else in it.
        """
        from hcl_cli.models.checkpoints import check_export_folder

        if _recorded(folder) == key:
            self.session.terminal.say(f"mitigate: the export in {folder} is of these very options and stays")
            return None
        check_export_folder(folder)
        return folder

    def export(self, folder: Path, key: str) -> None:
        """Write the chosen blocks' adapter and merged model; trains once more where the table came from the store."""
        from hcl_cli.models.adapter_files import export_adapter
        from hcl_cli.models.adapters import require_peft
        from hcl_cli.stages.mitigate import trainings

        require_peft("--export")
        chosen = self.planned[0]
        trained = self._trained.get(chosen.label)
        if trained is None:
            self.session.terminal.say(f"mitigate: the store keeps the comparison only; {chosen.label} is trained again")
            trained = trainings(self.loaded, self.parts, [chosen], self.training, self._note)[chosen]
        given = self.options
        export_adapter(
            self.loaded,
            trained.adapter,
            folder,
            provenance={
                "blocks chosen by": "the EAVSS contrast" if chosen.name == "eavss" else "hand",
                "answers": self.dataset, "questions trained on": len(self.parts.train),
                "epochs": f"{trained.best} of at most {given['epochs']}", "learning rate": given["learning_rate"],
                "tau": given["tau"], "weight of the cross-entropy": given["ce_weight"], "seed": given["seed"],
                "hcl recipe": key,
            },
            record={RECORD: json.dumps({"recipe": key}) + "\n"},
        )  # fmt: skip
        self.session.terminal.say(f"mitigate: adapter in {folder / 'adapter'}, merged model in {folder / 'merged'}")

    def _note(self, variant: Variant, epoch: Epoch) -> None:
        contrast = "none" if epoch.contrast is None else f"{epoch.contrast:.3f}"
        train = "" if epoch.train is None else f"loss {epoch.train:.3f}, "
        self.session.terminal.say(
            f"mitigate: {variant.label}, epoch {epoch.number} of {self.training.epochs}: {train}validation "
            f"{epoch.validation:.3f} (InfoNCE {contrast}, cross-entropy {epoch.likelihood:.3f})"
        )

    def _of_the_file(self, error: HclError) -> HclError:
        return error if isinstance(error, BadOption) else BadInput(f"{self.source.path}: {error}")


def check_sampled_by(source: Source, model: str) -> None:
    """Refuse answers of another model before that is loaded, as far as the first rows tell.

    Raises:
        BadInput
    """
    sampled_by = first_value(source, "model")
    if sampled_by not in (None, model):
        raise BadInput(
            f"{source.path}: answers of {shown(sampled_by, 60)}, but --model is {model}; a model learns from its own "
            f"answers: leave --model out, or sample and score with {model}"
        )


def _recorded(folder: Path) -> str | None:
    """The recipe of the export in a folder; None if there is none."""
    try:
        found = json.loads((folder / RECORD).read_text("utf-8"))
        return str(found["recipe"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
