"""The page of a fused model."""

from advanchor.report.fused import spread


def test_the_overview_has_concepts_of_every_kind() -> None:
    kinds = ["style"] * 3 + ["object"] * 4 + ["explicit"] + ["identity"] * 9
    rows = [{"name": str(number), "kind": kind} for number, kind in enumerate(kinds)]
    assert [row["name"] for row in spread(rows, 6)] == ["0", "1", "3", "4", "7", "8"]
    assert spread(rows, 99) == rows and spread([], 6) == []
