import pytest
import torch

from persona_probe.errors import RequestError
from persona_probe.steering.schedule import SCHEDULES, matching_schedule, schedule_named

# A row padded on the left, one on the right and a decoding step seen as part of a full row.
POSITIONS = torch.tensor([[-1, -1, 0, 1, 2, 3], [0, 1, 2, 3, -1, -1]])
LENGTHS = torch.tensor([[3], [2]])
EXPECTED = {
    "prompt": [[0, 0, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]],
    "last_prompt_token": [[0, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 0]],
    "response": [[0, 0, 0, 0, 0, 1], [0, 0, 1, 1, 0, 0]],
    "both": [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]],
}


def test_every_schedule_is_covered() -> None:
    assert set(EXPECTED) == set(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_names_positions_of_the_sequence(name: str) -> None:
    assert SCHEDULES[name](POSITIONS, LENGTHS).int().tolist() == EXPECTED[name]


def test_a_direction_acts_where_it_was_read() -> None:
    assert matching_schedule("last_prompt_token") == "last_prompt_token"
    assert matching_schedule("response_mean") == "response"
    assert matching_schedule("prompt_mean") == "prompt"
    with pytest.raises(RequestError, match="choose one of prompt"):
        matching_schedule("somewhere")


def test_an_unknown_schedule_lists_the_choices() -> None:
    with pytest.raises(RequestError, match="last_prompt_token"):
        schedule_named("always")
