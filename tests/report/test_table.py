import csv
import io

from advanchor.report.table import COLUMNS, rows, summary, to_csv

RESULT = {
    "task": "aaa",
    "concept": {"name": "striped", "kind": "style"},
    "scores": {"ua": 0.9, "ira": 0.8, "cra": 0.7, "degradation": 0.1, "base": {"ua": 0.1, "ira": 1.0, "cra": 0.9}},
    "facts": {"e_adv_relative_norm": 0.5},
    "seconds": {"erasing": 40.0, "evaluating": 10.0},
}


def entry(task: str, name: str, status: str = "done", reason: str = "", attempts: int = 1) -> dict:
    return {"id": task, "name": name, "kind": "style", "status": status, "reason": reason, "attempts": attempts}


def result(task: str, name: str, **changes: object) -> dict:
    return RESULT | {"task": task, "concept": {"name": name, "kind": "style"}} | changes


def test_a_row_has_the_columns_and_is_flat() -> None:
    (row,) = rows([RESULT], None)
    assert tuple(row) == COLUMNS
    assert row["ua"] == 0.9 and row["base_ira"] == 1.0 and row["e_adv_relative_norm"] == 0.5
    assert row["cra_with"] is None and row["attempts"] is None  # never a number that nobody measured
    assert row["status"] == "done" and row["erasing_s"] == 40.0


def test_rows_follow_the_batch_and_include_what_failed() -> None:
    status = {"tasks": [entry("bbb", "dotted", "failed", "out of memory", 3), entry("aaa", "striped")]}
    dotted, striped = rows([RESULT], status)
    assert (dotted["name"], dotted["status"], dotted["reason"]) == ("dotted", "failed", "out of memory")
    assert dotted["ua"] is None and dotted["attempts"] == 3
    assert (striped["status"], striped["attempts"]) == ("done", 1)


def test_a_result_means_done_even_if_the_status_is_stale() -> None:
    (row,) = rows([RESULT], {"tasks": [entry("aaa", "striped", "running", attempts=0)]})
    assert row["status"] == "done"


def test_results_of_an_earlier_batch_come_last_and_count_in_no_mean() -> None:
    earlier = result("old", "striped", scores={"ua": 0.0})
    table = rows([earlier, RESULT], {"tasks": [entry("aaa", "striped")]})
    assert [row["status"] for row in table] == ["done", "earlier"]
    assert summary(table)["means"]["ua"] == 0.9


def test_null_scores_are_no_numbers_and_count_in_no_mean() -> None:
    table = rows([RESULT, result("bbb", "AC/DC", scores=None)], None)
    assert table[1]["ua"] is None
    means = summary(table)["means"]
    assert means["ua"] == 0.9 and means["base_cra"] == 0.9 and means["hinted"] is None


def test_summary_of_nothing() -> None:
    found = summary([])
    assert found["counts"] == {} and set(found["means"].values()) == {None}


def test_no_cell_of_the_csv_is_a_formula() -> None:
    formulas = [
        "=cmd()",
        "+1",
        "-rf",
        "@sum",
        "\ttab",
        "\n=cmd()",
        "\uff1dcmd()",
        "\uff0b1",
        "\uff0d1",
        "\uff20sum",
        " =cmd()",
    ]
    names = [*formulas, 'quo"te, comma\nline', "plain = fine"]
    table = rows([result(str(i), name) for i, name in enumerate(names)], None)
    read = list(csv.DictReader(io.StringIO(to_csv(table), newline="")))
    assert [row["name"] for row in read] == [f"'{name}" for name in formulas] + names[len(formulas) :]


def test_numbers_of_the_csv_stay_numbers() -> None:
    (row,) = csv.DictReader(io.StringIO(to_csv(rows([result("x", "a", scores={"ua": -0.5})], None))))
    assert row["ua"] == "-0.5" and row["ira"] == ""
    assert to_csv([]) == ",".join(COLUMNS) + "\n"


def test_what_is_done_and_below_the_bar_is_counted() -> None:
    weak, at_the_bar, unscored, earlier = (
        result("aaa", "striped", scores={"ua": 0.89}),
        result("bbb", "dotted", scores={"ua": 0.9}),
        result("ccc", "gradient", scores=None),
        result("ddd", "solid", scores={"ua": 0.0}),
    )
    status = {"tasks": [entry("aaa", "striped"), entry("bbb", "dotted"), entry("ccc", "gradient")]}
    assert summary(rows([weak, at_the_bar, unscored, earlier], status))["weak"] == 1
