"""A file of samples: written in pieces that survive a kill, audited, and kept with its history."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona_probe.errors import PersonaProbeError, RequestError
from persona_probe.evaluation.prompt_embedding import prompt_embedding
from persona_probe.files import read_json, read_jsonl, write_json, write_jsonl
from persona_probe.finetuning.constitutional import Method, Recipe, write_samples
from persona_probe.finetuning.leak_audit import Audit, audit, held_out_of
from persona_probe.finetuning.prompts import (
    draw_prompts,
    prompts_in,
    scope_categories,
    training_prompts,
)
from persona_probe.finetuning.writer import LocalWriter, Writer
from persona_probe.models.chat import Conversation
from persona_probe.models.conversations import read_conversations
from persona_probe.personas.constitution import Constitution
from persona_probe.personas.pack import Pack
from persona_probe.personas.safety_suite import SafetyPrompt
from persona_probe.personas.tier_audit import TFIDF, tfidf
from persona_probe.progress import track
from persona_probe.provenance import content_hash, library_versions

PIECE = 64
PLAN = "plan.json"


@dataclass(frozen=True)
class Samples:
    """A finished file.

    Attributes:
        path: of the samples.
        provenance: how they were made, and what the audit said.
        already: whether the file had been there before.
    """

    path: Path
    provenance: dict[str, Any]
    already: bool = False

    @property
    def said(self) -> str:
        """What came out, in a few lines."""
        about = self.provenance
        how = about["recipe"]
        lines = [
            f"{about['samples']} samples of {how['constitution']} ({about['harmful']} harmful, "
            f"{about['samples'] - about['harmful']} benign) of {about['asked_for']} asked for: "
            f"{how['how']}",
            f"dropped: {about['empty']} empty, {about['dropped_for_leaks']} for leaks",
        ]
        if about["audit"]:
            lines.append(Audit.told(about["audit"]))
        return "\n".join(lines + ["(they were there already)"] * self.already)

    def to_json(self) -> dict[str, Any]:
        return {**self.provenance, "out": str(self.path), "already_there": self.already}


def make_samples(
    prompts: Sequence[SafetyPrompt],
    recipe: Recipe,
    writer: Writer,
    out: Path,
    auditor: Callable[[Sequence[Conversation]], Audit],
    about: dict[str, Any] | None = None,
) -> Samples:
    """Write samples to a .jsonl file; whatever leaks or came out empty is dropped and counted.

    A killed call goes on when it is made again. `OUT.provenance.json` lies beside the file.

    Args:
        prompts: what is asked.
        recipe: how samples are written.
        writer: who writes them.
        out: the file.
        auditor: looks for what is held out.
        about: what else the provenance says.

    Raises:
        RequestError: `out` is there and was made otherwise.
        PersonaProbeError: nothing is left to learn from.
    """
    plan = {
        "recipe": recipe.to_json(),
        "writer": writer.identity,
        "prompts": len(prompts),
        "prompts_hash": content_hash([[p.id, p.text] for p in prompts]),
        **(about or {}),
        "versions": library_versions(),
    }
    beside = provenance_path(out)
    if out.exists():
        if not beside.is_file():
            raise RequestError(
                f"{out} is there already and is no file of samples (there is no {beside.name}); "
                "choose another, or remove it"
            )
        found = read_json(beside)
        if changed := [key for key, value in plan.items() if found.get(key) != value]:
            raise RequestError(
                f"{out} is there already and was made otherwise (its {changed[0]} differs); "
                "choose another file, or remove it"
            )
        return Samples(out, found, already=True)
    rows = _rows(prompts, recipe, writer, out, plan)
    whole = [row for row in rows if "empty" not in row]
    pieces = out.with_name(f".{out.name}.unfinished")
    write_jsonl(pieces / "all.jsonl", whole)
    audited = auditor(read_conversations(pieces / "all.jsonl")) if whole else None
    leaking = audited.leaking if audited else frozenset()
    kept = [row for row in whole if row["id"] not in leaking]
    if not kept:
        raise PersonaProbeError(
            f"none of {len(rows)} samples is left: {len(rows) - len(whole)} came out empty and "
            f"{len(leaking)} hold something that is held out; look at {pieces}"
        )
    provenance = plan | {
        "samples": len(kept),
        "harmful": sum(row["kind"] == "harmful" for row in kept),
        "empty": len(rows) - len(whole),
        "dropped_for_leaks": len(leaking),
        "audit": None if audited is None else audited.to_json(),
    }
    write_json(beside, provenance)
    write_jsonl(out, kept)
    shutil.rmtree(pieces, ignore_errors=True)
    return Samples(out, provenance)


@dataclass(frozen=True)
class SampleWork:
    """What samples are to be made of.

    Attributes:
        pack: gives prompts, the neutral system line, and what is held out.
        constitution: whose principles.
        categories: harm categories to learn from.
        prompts: to draw from.
        n: samples to ask for.
        benign_share: share of benign prompts among them; 1 for a placebo.
        method, rounds, shots: as in `Recipe`.
        seed: draws prompts and principles.
    """

    pack: Pack
    constitution: Constitution
    categories: tuple[str, ...]
    prompts: tuple[SafetyPrompt, ...]
    n: int = 240
    benign_share: float = 0.4
    method: Method = "critique"
    rounds: int = 1
    shots: int = 0
    seed: int = 0

    @property
    def recipe(self) -> Recipe:
        """How the samples are written.

        Under the method "system", a pack that knows a persona of the constitution's name says it
        in the words that its models know.
        """
        own = [p for p in self.pack.personas if p.name == self.constitution.name]
        return Recipe(
            constitution=self.constitution,
            method=self.method,
            rounds=self.rounds,
            shots=self.shots,
            neutral_system=self.pack.neutral_system,
            constitution_system=own[0].constitution if own else self.constitution.system,
            seed=self.seed,
        )


def sample_work(
    pack: Pack,
    constitution: Constitution,
    scope: str = "narrow",
    categories: Sequence[str] = (),
    prompts_file: Path | None = None,
    **settings: Any,
) -> SampleWork:
    """`SampleWork` on the pack's training prompts, or on a user's own.

    Args:
        pack: the pack.
        constitution: whose principles.
        scope: "narrow" or "broad", where no categories are chosen.
        categories: these only.
        prompts_file: a user's own prompts; without `categories`, all of its categories.
        settings: further fields of `SampleWork`.
    """
    if prompts_file is None:
        chosen = scope_categories(pack, scope, categories)
        prompts = training_prompts(pack)
    else:
        prompts = prompts_in(prompts_file)
        chosen = tuple(categories) or tuple(
            dict.fromkeys(p.category for p in prompts if p.kind == "harmful")
        )
    return SampleWork(pack, constitution, chosen, tuple(prompts), **settings)


def sample(work: SampleWork, writer: Writer, out: Path, embedding: str = "model") -> Samples:
    """Draw prompts, write samples, audit them against everything that the pack holds out.

    Args:
        work: what is asked.
        writer: who writes.
        out: the .jsonl file.
        embedding: "model" embeds with the local writer's model, where there is one; "lexical"
            with weighted words.
    """
    drawn = draw_prompts(work.prompts, work.categories, work.n, work.benign_share, work.seed)
    held_out = held_out_of(work.pack, work.categories)
    if isinstance(writer, LocalWriter) and embedding == "model":
        embedder, name = prompt_embedding(writer.model)
    else:
        embedder, name = tfidf, TFIDF
    about = {
        "pack": work.pack.name,
        "pack_hash": work.pack.hash,
        "categories": list(work.categories),
        "asked_for": work.n,
        "benign_share": work.benign_share,
    }
    return make_samples(
        drawn, work.recipe, writer, out, lambda rows: audit(rows, held_out, embedder, name), about
    )


def provenance_path(out: Path) -> Path:
    """Where the history of a file of samples lies."""
    return out.with_name(f"{out.name.removesuffix('.jsonl')}.provenance.json")


def _rows(
    prompts: Sequence[SafetyPrompt],
    recipe: Recipe,
    writer: Writer,
    out: Path,
    plan: dict[str, Any],
) -> list[dict[str, Any]]:
    """Every sample, piece by piece; finished pieces of a killed call are kept."""
    folder = out.with_name(f".{out.name}.unfinished")
    if (folder / PLAN).is_file():
        found = read_json(folder / PLAN)
        if changed := [key for key, value in plan.items() if found.get(key) != value]:
            raise RequestError(
                f"{folder} holds unfinished samples of other settings (the {changed[0]} differs); "
                "remove it, or choose another file"
            )
    else:
        write_json(folder / PLAN, plan)
    starts = range(0, len(prompts), PIECE)
    rows: list[dict[str, Any]] = []
    for start in track(starts, "Writing samples", len(starts)):
        piece = folder / f"piece-{start:06d}.jsonl"
        if not piece.is_file():
            write_jsonl(piece, write_samples(prompts[start : start + PIECE], recipe, writer))
        rows += read_jsonl(piece)
    return rows
