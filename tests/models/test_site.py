import pytest


def layers(text: str, n_layers: int = 10) -> list[int]:
    from persona_probe.models.site import parse_sites

    return [site.layer for site in parse_sites(text, n_layers)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", list(range(10))),
        ("7", [7]),
        ("0", [0]),
        ("4, 8,2,4", [2, 4, 8]),
        ("4-6", [4, 5, 6]),
        ("0.2-0.8", [1, 2, 3, 4, 5, 6, 7]),
        (".95-1.0", [9]),
        ("0.0-1.0", list(range(10))),
    ],
)
def test_every_form_selects_its_layers(text: str, expected: list[int]) -> None:
    assert layers(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10", "layers 0 to 9"),
        ("3,12", "layer 12"),
        ("last", "write 'all'"),
        ("-1", "write 'all'"),
        ("", "write 'all'"),
        ("0.91-0.95", "select none"),
        ("6-4", "select none"),
    ],
)
def test_a_wrong_choice_is_one_sentence(text: str, said: str) -> None:
    from persona_probe.errors import RequestError

    with pytest.raises(RequestError, match=said):
        layers(text)


def test_a_share_of_the_depth_means_the_same_in_models_of_any_depth() -> None:
    assert [layers("0.5-0.75", n) for n in (4, 8, 12)] == [[1, 2], [3, 4, 5], [5, 6, 7, 8]]


def test_sites_sort_by_depth_and_name_their_hook() -> None:
    from persona_probe.models.site import Site

    assert sorted([Site(10), Site(2)]) == [Site(2), Site(10)]
    assert Site(2).hook_name == "blocks.2.hook_out"
