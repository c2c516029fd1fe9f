import random


def test_by_length_keeps_every_row_once_and_pads_within_the_budget() -> None:
    from persona_probe.activations.batches import by_length

    generator = random.Random(0)
    lengths = [generator.randint(1, 60) for _ in range(200)]
    for budget in (1, 64, 256):
        batches = by_length(lengths, budget)
        assert sorted(i for batch in batches for i in batch) == list(range(200))
        for batch in batches:
            padded = len(batch) * max(lengths[i] for i in batch)
            assert padded <= budget or len(batch) == 1


def test_by_length_puts_the_longest_first_and_neighbours_together() -> None:
    from persona_probe.activations.batches import by_length

    assert by_length([3, 50, 4, 49, 2], budget=100) == [[1, 3], [2, 0, 4]]
    assert by_length([], budget=10) == []


def test_end_to_end_fills_batches_to_the_budget_without_padding() -> None:
    from persona_probe.activations.batches import end_to_end

    generator = random.Random(0)
    lengths = [generator.randint(1, 60) for _ in range(200)]
    batches = end_to_end(lengths, 256)
    assert sorted(i for batch in batches for i in batch) == list(range(200))
    filled = [sum(lengths[i] for i in batch) for batch in batches]
    assert all(tokens <= 256 for tokens in filled)
    # A batch is closed only when the next row, at most 60 tokens, does not fit.
    assert all(tokens > 256 - 60 for tokens in filled[:-1])
    assert end_to_end([], 10) == []
    assert end_to_end([3, 50, 4], budget=10) == [[1], [2, 0]]


def test_end_to_end_leaves_rows_beyond_a_length_alone() -> None:
    from persona_probe.activations.batches import end_to_end

    batches = end_to_end([9, 3, 8, 4, 2], budget=100, alone_above=7)
    assert batches == [[0], [2], [3, 1, 4]]
