from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence

import pandas as pd
import pytest
from rich.console import Console
from tables import described

from atmc_search.report import front_records, front_table
from atmc_search.results import front_of


def rendered(front: pd.DataFrame, objectives: Mapping[str, str], params: Sequence[str]) -> str:
    console = Console(record=True, width=140, file=io.StringIO())
    console.print(front_table(front, objectives, params))
    return console.export_text()


def words(text: str) -> list[str]:
    return text.split()


ROWS = described(
    pd.DataFrame(
        {
            "trial": [7, 12],
            "size_bytes": [12_345, 1_000_000],
            "clean_accuracy": [0.8634, 0.9],
            "clean_accuracy_low": [0.85, 0.89],
            "clean_accuracy_high": [0.87, 0.91],
            "robust_accuracy": [0.5, float("nan")],
            "dense_size_bytes": [1_722_000, 1_722_000],
            "trial.train.lr": [0.0123456, 0.0000123],
            "trial.compress.bits": pd.array([4, None], dtype="Int64"),
            "trial.compress.factors": ["uvc", "uvc"],
            "trial.data.name": ["[red]odd", "plain"],
        }
    )
)
PARAMS = ["trial.train.lr", "trial.compress.bits", "trial.compress.factors", "trial.data.name", "trial.lost"]


def test_sizes_have_thousands_and_shares_are_percentages_with_half_their_interval(objectives: dict[str, str]) -> None:
    text = rendered(ROWS, objectives, [])
    assert "12,345" in text
    assert "86.3 % ± 1.0" in text
    assert "50.0 % " in text


def test_arrows_say_the_direction(objectives: dict[str, str]) -> None:
    assert words(rendered(ROWS, objectives, [])).count("↑") == 2
    assert words(rendered(ROWS, {"size_bytes": "max"}, [])).count("↓") == 0


def test_the_ratio_to_the_dense_model_is_shown_where_it_is_known(objectives: dict[str, str]) -> None:
    assert {"139×", "1.72×"} <= set(words(rendered(ROWS, objectives, [])))
    assert "smaller" not in rendered(ROWS.drop(columns="dense_size_bytes"), objectives, [])


def test_parameters_that_do_not_vary_are_left_out(objectives: dict[str, str]) -> None:
    text = rendered(ROWS, objectives, PARAMS)
    assert "uvc" not in text
    assert {"0.0123", "1.23e-05"} <= set(words(text))
    assert {"lr", "bits"} <= set(words(text))
    assert "trial." not in text


def test_a_single_row_shows_all_its_parameters(objectives: dict[str, str]) -> None:
    assert {"uvc", "4", "0.0123"} <= set(words(rendered(ROWS.head(1), objectives, PARAMS)))


def test_missing_values_are_dashes_and_brackets_are_text(objectives: dict[str, str]) -> None:
    text = rendered(ROWS, objectives, PARAMS)
    assert words(text).count("–") == 2
    assert "[red]odd" in text


def test_every_row_of_a_real_front_is_there_in_order(
    trials: pd.DataFrame, objectives: dict[str, str], params: list[str]
) -> None:
    front = front_of(trials, objectives)
    lines = [line.split() for line in rendered(front, objectives, params).splitlines() if line.strip()]
    assert [int(line[0]) for line in lines[3:]] == front["trial"].tolist()


def test_an_empty_front_is_a_table_without_rows(trials: pd.DataFrame, objectives: dict[str, str]) -> None:
    assert front_table(trials.head(0), objectives, []).row_count == 0
    assert front_table(pd.DataFrame(), objectives, []).row_count == 0


def test_records_survive_json(trials: pd.DataFrame) -> None:
    records = json.loads(json.dumps(front_records(trials), allow_nan=False))
    assert len(records) == 40
    assert set(records[0]) == set(trials.columns)
    assert records[0]["size_bytes"] == trials["size_bytes"][0]
    assert records[0]["started_at"] == "2026-01-05T12:00:00+00:00"
    assert records[5]["size_bytes"] is None
    assert records[5]["clean_accuracy"] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, pd.NA, pd.NaT])
def test_what_json_has_no_word_for_is_null(value: object) -> None:
    assert front_records(pd.DataFrame({"a": pd.Series([value], dtype=object)})) == [{"a": None}]


def test_parameters_whose_paths_end_alike_are_told_apart(objectives: dict[str, str]) -> None:
    both = ROWS.assign(**{"trial.dense.lr": [0.1, 0.2]})
    assert {"dense.", "train."} <= set(words(rendered(both, objectives, ["trial.dense.lr", "trial.train.lr"])))


def test_trials_that_fail_masking_checks_are_marked(objectives: dict[str, str]) -> None:
    assert "masking" not in rendered(ROWS.assign(masking_flags=["", None]), objectives, [])
    text = rendered(ROWS.assign(masking_flags=["", "steps,transfer"]), objectives, [])
    assert "masking checks" in text
    assert "steps,transfer" in next(line for line in text.splitlines() if line.startswith(" 12") or " 12 " in line)
