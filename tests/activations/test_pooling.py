import pytest


def test_spans_of_a_reply_and_of_none() -> None:
    from persona_probe.activations.pooling import POSITIONS
    from persona_probe.models.chat import Tokens

    answered = Tokens(list(range(9)), 5, slice(5, 8), (slice(5, 8),))
    spans = {name: position(answered) for name, position in POSITIONS.items()}
    assert spans == {
        "last_prompt_token": slice(4, 5),
        "response_mean": slice(5, 8),
        "prompt_mean": slice(0, 5),
    }


@pytest.mark.parametrize("position", ["last_prompt_token", "response_mean", "prompt_mean"])
def test_nothing_there_is_an_error_not_a_zero(position: str) -> None:
    from persona_probe.activations.pooling import span_of
    from persona_probe.errors import RequestError
    from persona_probe.models.chat import Tokens

    with pytest.raises(RequestError, match=f"c7 has no tokens at position '{position}'"):
        span_of(Tokens([], 0, None, ()), position, "c7")


def test_pooling_is_the_mean_over_the_span_in_float32() -> None:
    import torch

    from persona_probe.activations.pooling import pool, span_weights

    resid = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    spans = [[slice(2, 3), slice(0, 6)], [slice(5, 6), slice(1, 4)]]
    pooled = pool(resid, span_weights(spans, 6))
    assert pooled[0, 0].equal(resid[0, 2]), "a single token is taken over bit for bit"
    assert pooled[1, 0].equal(resid[1, 5])
    torch.testing.assert_close(pooled[0, 1], resid[0].mean(dim=0))
    torch.testing.assert_close(pooled[1, 1], resid[1, 1:4].mean(dim=0))


def test_bfloat16_residuals_are_averaged_in_float32() -> None:
    """64 equal values of 1.0039 round to a wrong mean when summed in bfloat16."""
    import torch

    from persona_probe.activations.pooling import pool, span_weights

    resid = torch.randn(1, 64, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    pooled = pool(resid, span_weights([[slice(0, 64)]], 64))
    exact = resid.double().mean(dim=1)
    assert pooled.dtype == torch.float32
    assert (pooled[:, 0] - exact).abs().max() < 1e-6
    assert (resid.mean(dim=1).double() - exact).abs().max() > 1e-4
