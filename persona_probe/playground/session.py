"""One model, its directions and a pack, as somebody plays with them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from persona_probe.activations.contrast import under
from persona_probe.directions.checks.controls import isotropic
from persona_probe.directions.direction_set import DirectionSet, direction_at
from persona_probe.evaluation.profile import Profile, Questionnaire, joined
from persona_probe.evaluation.profile_match import dimension_scores, signature_match
from persona_probe.evaluation.rating import FORMS
from persona_probe.models.residual_model import ResidualModel
from persona_probe.models.site import Site
from persona_probe.personas.pack import Pack
from persona_probe.personas.sampling import spread, spread_items
from persona_probe.playground.setting import Question, Setting, intervention, units_of
from persona_probe.progress import silent
from persona_probe.report.palette import (
    NEGATIVE,
    POSITIVE,
    STRONGEST_TINT,
    persona_colours,
    title_of,
)
from persona_probe.steering.add import Add
from persona_probe.steering.arm import Arm, Intervention
from persona_probe.steering.dialogue import SIDES
from persona_probe.steering.scale import Scale
from persona_probe.steering.schedule import SCHEDULES, matching_schedule
from persona_probe.steering.stream import stream

# Of the diagnostic: few enough that the profile follows a slider. A statement on a scale is put in
# several forms, and counts as often.
ITEMS = 100
AT_ONCE = 25  # items per step, so that a reply never waits long for a profile
RESAMPLES, PERMUTATIONS = 500, 1
EXAMPLES = {"harmful": 8, "borderline": 3, "benign": 3}
CONTROL = "random"


@dataclass(frozen=True)
class Session:
    """What the page shows comes from here; it knows nothing of the network.

    Attributes:
        model: left as it was found after every call, and between two pieces of a reply.
        directions: persona → site → direction; one slider per persona.
        pack: whose prompts are offered and whose diagnostic makes the profile.
        adapter: LoRA adapter that is on.
        max_new_tokens: room for a reply; the pack's if not given.
        called: how the user names the model; its label if not given.
    """

    model: ResidualModel
    directions: DirectionSet
    pack: Pack
    adapter: str | None = None
    max_new_tokens: int | None = None
    called: str | None = None

    def __post_init__(self) -> None:
        for by_site in self.directions.values():
            for direction in by_site.values():
                direction.check_fits(self.model)

    def about(self) -> dict[str, Any]:
        """What there is to play with."""
        known = [p.name for p in self.pack.personas if p.name in self.directions]
        colours = persona_colours([*known, *self.directions])
        layers = sorted({site.layer for by_site in self.directions.values() for site in by_site})
        read_at = next(iter(next(iter(self.directions.values())).values())).position
        return {
            "model": self.called or self.model.label,
            "adapter": self.adapter,
            "pack": self.pack.name,
            "system": self.pack.neutral_system,
            "room": self.max_new_tokens or self.pack.max_new_tokens,
            "units": units_of(self.directions),
            "n_layers": self.model.n_layers,
            "layers": [
                {"layer": n, "personas": [p for p, by in self.directions.items() if Site(n) in by]}
                for n in layers
            ],
            "layer": layers[(len(layers) - 1) // 2],
            "positions": matching_schedule(read_at),
            "schedules": list(SCHEDULES),
            "ends": [NEGATIVE, POSITIVE],
            "tint": STRONGEST_TINT,
            "personas": [
                {"name": p, "title": self._title(p), "colour": c} for p, c in colours.items()
            ],
            "examples": self._examples(),
        }

    def reply(self, question: Question) -> Iterator[dict[str, Any]]:
        """Both replies, token by token: which side, the text, and its projection in class gaps.

        Raises:
            RequestError: the prompt is too long, or a setting makes no sense.
        """
        axis = direction_at(self.directions, question.colour, question.setting.layer)
        scale = Scale.of(axis)
        asked = under(question.system, question.text, id="the prompt")
        turns = [(asked, arm) for arm in self._arms(question.setting)]
        room = self.max_new_tokens or self.pack.max_new_tokens
        for piece in stream(self.model, turns, axis, room, question.temperature, question.seed):
            value = scale.value(piece.projection)
            yield {"row": piece.row, "text": piece.text, "value": round(value, 4)}

    def profile(self, setting: Setting) -> dict[str, Any]:
        """The persona profile, unsteered, steered, and steered by a random direction as long.

        Items come from the evaluate part of the pack's split, without families that a direction
        was found on. Intervals resample items.

        Raises:
            RequestError: the diagnostic has no such item.
        """
        (measured,) = [told for told in self.profile_in_steps(setting) if told is not None]
        return measured

    def profile_in_steps(self, setting: Setting) -> Iterator[dict[str, Any] | None]:
        """The same, a few items at a time: `None` while there is more to score."""
        acting = intervention(self.directions, setting)
        arms = [Arm(SIDES[0], (), self.adapter)]
        if acting is not None:
            axis = acting.direction
            (other,) = isotropic({axis.site: axis}, 1)
            chance = Intervention(other[axis.site], Add(1.0, "gap"), acting.schedule)
            arms.append(Arm(SIDES[1], (acting,), self.adapter))
            arms.append(Arm(CONTROL, (chance,), self.adapter))
        pieces = []
        for some in self._questionnaires:
            with silent():
                pieces.append(some.ask(self.model, arms))
            yield None
        found = [joined(parts) for parts in zip(*pieces, strict=True)]
        yield self._told(*found) if len(found) > 1 else self._told(*found * 3)

    def _told(self, before: Profile, after: Profile, control: Profile) -> dict[str, Any]:
        measured = {SIDES[0]: before, SIDES[1]: after, CONTROL: control}
        scores = {name: dimension_scores(p, RESAMPLES) for name, p in measured.items()}
        return {
            "items": len(before.items),
            "option_mass": {name: float(p.option_mass.mean()) for name, p in measured.items()},
            "dimensions": [
                {
                    "name": title_of(dimension),
                    **{name: own[dimension].to_json() for name, own in scores.items()},
                }
                for dimension in before.dimensions
            ],
            "matches": [] if after is before else self._matches(before, after, control),
        }

    def warm_up(self) -> None:
        """Do once what is slow the first time."""
        persona, by_site = next(iter(self.directions.items()))
        setting = Setting(next(iter(by_site)).layer, {persona: 0.1})
        pieces = self.reply(Question("Hello.", setting, persona, self.pack.neutral_system))
        next(pieces, None)
        self.profile(setting)

    def _matches(self, before: Profile, after: Profile, control: Profile) -> list[dict[str, Any]]:
        """How well the shift agrees with each persona's expected one, and what chance reaches."""
        found = []
        for persona in self.pack.personas:
            if not set(before.dimensions) <= set(persona.signature):
                continue
            own, chance = (
                signature_match(
                    profile, before, persona.signature, PERMUTATIONS, RESAMPLES
                ).pearson.to_json()
                for profile in (after, control)
            )
            told = {"name": persona.name, "title": persona.title}
            found.append(told | {SIDES[1]: own, CONTROL: chance})
        return found

    def _arms(self, setting: Setting) -> tuple[Arm, Arm]:
        acting = intervention(self.directions, setting)
        added = () if acting is None else (acting,)
        return Arm(SIDES[0], (), self.adapter), Arm(SIDES[1], added, self.adapter)

    @cached_property
    def _questionnaires(self) -> list[Questionnaire]:
        used = {
            family
            for by_site in self.directions.values()
            for direction in by_site.values()
            for family in direction.families_used
        }
        held_out = self.pack.diagnostic.of(self.pack.split().evaluate - used)
        forms = 1 if held_out.scale is None else FORMS
        asked, step = spread_items(held_out, ITEMS // forms), max(1, AT_ONCE // forms)
        parts = [asked.items[i : i + step] for i in range(0, len(asked), step)] or [()]
        return [
            Questionnaire.of(self.model, replace(asked, items=part), self.pack.neutral_system)
            for part in parts
        ]

    def _examples(self) -> list[dict[str, str]]:
        """Prompts that no direction was found or selected on."""
        families = self.pack.split().evaluate
        return [
            {"kind": kind, "category": self._category(p.category), "text": p.text}
            for kind, n in EXAMPLES.items()
            for p in spread(self.pack.suite.of(kind=kind, families=families).prompts, n)
        ]

    def _category(self, name: str) -> str:
        return self.pack.categories.get(name) or title_of(name)

    def _title(self, persona: str) -> str:
        titles = {p.name: p.title for p in (*self.pack.personas, *self.pack.foils)}
        return titles.get(persona) or title_of(persona)
