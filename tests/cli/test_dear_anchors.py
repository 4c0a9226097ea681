"""What `advanchor results` says of anchors that the trained weights can hardly represent."""

from typing import Any

from advanchor.cli.results import dear_anchors


def result(name: str, **facts: Any) -> dict[str, Any]:
    return {"concept": {"name": name}, "facts": facts}


def test_results_name_them() -> None:
    found = dear_anchors(
        [
            result("star", anchor_map_norm=15.0, anchor_unreached=0.004),
            result("cat", anchor_map_norm=130.0, anchor_unreached=0.5),
            result("dog"),
            {"concept": {"name": "fox"}},
            result("owl", anchor_map_norm="much", anchor_unreached=None),
        ]
    )
    assert len(found) == 1 and found[0].startswith("'cat': an anchor is dear")
