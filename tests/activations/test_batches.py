import random


def test_every_row_is_in_one_batch_within_the_budget() -> None:
    from persona_probe.activations.batches import by_length

    rng = random.Random(0)
    for _ in range(50):
        lengths = [rng.randint(1, 60) for _ in range(rng.randint(1, 40))]
        budget = rng.randint(1, 300)
        batches = by_length(lengths, budget)
        assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
        for batch in batches:
            longest = max(lengths[i] for i in batch)
            assert len(batch) == 1 or len(batch) * longest <= budget


def test_neighbours_in_length_share_a_batch_longest_first() -> None:
    from persona_probe.activations.batches import by_length

    assert by_length([3, 50, 4, 49, 2], budget=100) == [[1, 3], [2, 0, 4]]
    assert by_length([], budget=10) == []
