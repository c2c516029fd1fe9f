"""This project, through its public function."""

from collections.abc import Sequence
from typing import Any

from benchmarks.methods import Values
from benchmarks.prompts import Prompt


class Capture:
    """`capture` of token ids that were read before."""

    positions: tuple[str, ...] = ("last_prompt_token", "response_mean")

    def __init__(self, folder: str, device: str, dtype: str) -> None:
        from persona_probe.models.loading import load_model

        self.model = load_model(folder, device=device, dtype=dtype)
        self.sites = self.model.sites

    def ready(self, prompts: Sequence[Prompt]) -> Any:
        """The conversations as a `Reading`: token ids, and the place of the reply in them."""
        from persona_probe.activations.reading import read
        from persona_probe.models.chat import Conversation, Message

        conversations = [
            Conversation((Message("user", p.question), Message("assistant", p.reply)))
            for p in prompts
        ]
        reading = read(self.model, conversations, list(self.positions))
        if [ids.tolist() for ids in reading.ids] != [p.ids for p in prompts]:
            raise AssertionError("ours and the peers were given different token ids")
        return reading

    def run(self, prompts: Any, batch: int) -> Values:
        """`batch` is not used: it is chosen by the tokens, and by free memory on a GPU."""
        from persona_probe.activations.capture import capture

        del batch
        found = capture(self.model, prompts, self.sites)
        return {position: found[position].values for position in self.positions}


def prepare(folder: str, device: str, dtype: str) -> Capture:
    """Load the model."""
    return Capture(folder, device, dtype)
