"""ZeRO on several real ranks (gloo): the same delta on any number of them, with everything really partitioned."""

import json
import socket
from pathlib import Path

import forked
import pytest
import torch
import zero_ranks
from safetensors.torch import load_file
from torch import Tensor

CASES = ["1-fp32-none", "2-fp32-none", "3-fp32-none", "1-bf16-none", "3-bf16-cpu"]  # stage, precision, offload
FP32 = [case for case in CASES if "fp32" in case]
STAGE_3 = [case for case in CASES if case.startswith("3")]
SHARING = [[case for case in CASES if case not in STAGE_3], *([case] for case in STAGE_3)]  # cases of one process
# A random UNet hardly listens to prompts, so that rounding decides the signs of many of Adam's first steps.
CLOSE, CLOSE_FOR_A_RANDOM_MODEL = 1e-3, 1e-2

Deltas = dict[str, dict[str, Tensor]]


def ranks(
    base: str, count: int, work: Path, cases: list[str], tasks: str = "first", method: str = "adv_anchor"
) -> tuple[Deltas, dict[str, dict[str, float]]]:
    """What `count` processes find together, and how much of everything rank 0 held."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (str(count), str(port), str(work), tasks, *cases)
    forked.wait_for([forked.start(zero_ranks.main, base, method, str(rank), *arguments) for rank in range(count)])
    facts = json.loads((work / "facts.json").read_text())
    return {path.name: load_file(path) for path in work.iterdir() if path.suffix != ".json"}, facts


@pytest.fixture(scope="module")
def two(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Deltas, dict[str, dict[str, float]]]:
    deltas: Deltas = {}
    facts: dict[str, dict[str, float]] = {}
    for cases in SHARING:
        found, held = ranks(str(tiny_base), 2, tmp_path_factory.mktemp("two"), cases, tasks="first between again")
        deltas, facts = deltas | found, facts | held
    return deltas, facts


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """|| a - b || / || b ||, Frobenius, over all tensors together."""
    assert a.keys() == b.keys()
    return float(
        (sum((a[name] - b[name]).square().sum() for name in b) / sum(t.square().sum() for t in b.values())) ** 0.5
    )


@pytest.mark.parametrize("case", FP32)
def test_two_ranks_find_the_delta_of_one(two: tuple, case: str) -> None:
    deltas, _ = two
    assert difference(deltas[f"{case}-first"], deltas["plain"]) < CLOSE_FOR_A_RANDOM_MODEL


@pytest.mark.parametrize(("case", "method"), [("1-fp32-none", "adv_anchor"), ("3-fp32-none", "hardened_anchor")])
def test_two_ranks_find_the_delta_of_one_on_the_gallery(tmp_path: Path, case: str, method: str) -> None:
    deltas, _ = ranks("pocket", 2, tmp_path, [case], method=method)
    assert difference(deltas[f"{case}-first"], deltas["plain"]) < CLOSE


@pytest.mark.parametrize("case", CASES)
def test_a_task_gives_the_same_bytes_after_another(two: tuple, case: str) -> None:
    deltas, _ = two
    first, between, again = (deltas[f"{case}-{name}"] for name in ("first", "between", "again"))
    assert all(torch.equal(again[name], first[name]) for name in first)
    assert not all(torch.equal(between[name], first[name]) for name in first)
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in first.values())


@pytest.mark.parametrize("case", CASES)
def test_each_of_two_ranks_holds_half(two: tuple, case: str) -> None:
    """Of the masters and moments at every stage, of all weights, the frozen ones too, at stage 3."""
    _, facts = two
    assert facts[case]["masters"] == pytest.approx(0.5, abs=0.02)
    assert facts[case]["weights"] == pytest.approx(0.5 if case.startswith("3") else 1.0, abs=0.02)


def test_four_ranks_find_the_delta_of_one(tiny_base: Path, tmp_path: Path) -> None:
    deltas, facts = ranks(str(tiny_base), 4, tmp_path, ["2-fp32-none"])
    assert difference(deltas["2-fp32-none-first"], deltas["plain"]) < CLOSE_FOR_A_RANDOM_MODEL
    assert facts["2-fp32-none"]["masters"] == pytest.approx(0.25, abs=0.02)
