from typing import Any


def rows(resid: Any, groups: list[Any], starts: list[int]) -> Any:
    from persona_probe.activations.pooling import Pooling

    return Pooling.of(groups, starts)(resid)


def test_rows_are_means_over_their_groups_in_a_packed_or_padded_batch() -> None:
    import torch

    resid = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    groups = [(slice(2, 3),), (slice(0, 6),), (slice(1, 2), slice(3, 5)), (slice(0, 1),)]
    pooled = rows(resid, groups, [0, 0, 6, 9])
    assert pooled[0].equal(resid[0, 2]), "a single token is taken over bit for bit"
    assert pooled[3].equal(resid[1, 3])
    torch.testing.assert_close(pooled[1], resid[0].mean(dim=0))
    torch.testing.assert_close(pooled[2], resid[1, [1, 3, 4]].mean(dim=0))


def test_bfloat16_residuals_are_averaged_in_float32() -> None:
    """64 values whose sum bfloat16 cannot hold have a wrong mean when summed in it."""
    import torch

    resid = torch.randn(1, 64, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    pooled = rows(resid, [(slice(0, 64),)], [0])
    exact = resid.double().mean(dim=1)
    assert pooled.dtype == torch.float32
    assert (pooled - exact).abs().max() < 1e-6
    assert (resid.mean(dim=1).double() - exact).abs().max() > 1e-4
