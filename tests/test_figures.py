"""`tiebreak rank` and `tiebreak agreement` against published figures, and the one clear line for a file that cannot be used."""

import csv
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ft.errors import BadInput, NotFound
from review.commands.main import program
from review.services.figures import agreement_file, rank_file
from tests.conftest import shared


def run(*words: str) -> Any:
    result = CliRunner().invoke(program(lambda: None), list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) if "--json" in words else result.stdout


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def expected(key: str) -> Any:
    return json.loads(shared("expected.json").read_text())[key]


def golden(name: str, algorithm: str) -> dict[str, float]:
    with shared("llmfao", f"{name}-golden.csv").open() as file:
        return {row["item"]: float(row["score"]) for row in csv.DictReader(file) if row["algorithm"] == algorithm}


@pytest.mark.parametrize("name", ["simple", "food"])
def test_ranking_real_votes_gives_the_golden_bradley_terry_shares_and_mean_win_rates(name: str) -> None:
    found = run("rank", str(shared("llmfao", f"{name}.csv")), "--json")
    arms = {row["arm"]: row for row in found["arms"]}
    assert {arm: row["share"] for arm, row in arms.items()} == pytest.approx(golden(name, "bradley_terry"), abs=1e-4)
    logs = {arm: math.log(p) for arm, p in golden(name, "bradley_terry").items()}
    mean = sum(logs.values()) / len(logs)
    assert {arm: row["log_strength"] for arm, row in arms.items()} == pytest.approx({a: v - mean for a, v in logs.items()}, abs=1e-4)
    assert {arm: row["win_rate_by_opponent"] for arm, row in arms.items()} == pytest.approx(golden(name, "average_win_rate"), abs=1e-9)
    assert [row["arm"] for row in found["arms"]] == sorted(arms, key=lambda arm: -arms[arm]["log_strength"])
    assert all(row["low"] < row["log_strength"] < row["high"] and row["win_rate_low"] <= row["win_rate"] <= row["win_rate_high"]
               for row in arms.values())  # fmt: skip


def test_ties_count_half_and_both_bad_apart(tmp_path: Path) -> None:
    found = rank_file(table(tmp_path / "v.csv", "left,right,winner", "a,b,left", "b,a,tie", "a,b,both_bad", "a,b,right", "b,a,right"))
    a = found.arms[0]
    assert (a.arm, a.win_rate, a.votes, a.wins, a.losses, a.ties, a.both_bad) == ("a", 0.625, 5, 2, 1, 1, 1)
    assert sum(arm.log_strength or 0 for arm in found.arms) == pytest.approx(0)
    assert a.log_strength == pytest.approx(math.log(2.5 / 1.5) / 2)  # the other arm has the other half
    assert "ties:half" in found.signature


def test_reviewers_and_prompts_widen_the_interval(tmp_path: Path) -> None:
    """Twenty votes on two prompts by two people say less than twenty on twenty."""
    rows = [(n % 2, "left" if n % 2 else "right") for n in range(20)] + [(1, "left")] * 6
    apart = table(tmp_path / "apart.csv", "left,right,winner", *(f"a,b,{winner}" for _, winner in rows))
    together = table(tmp_path / "one.csv", "left,right,winner,reviewer,prompt", *(f"a,b,{winner},r{p},p{p}" for p, winner in rows))
    (one,), (other,) = ([a for a in rank_file(path).arms if a.arm == "a"] for path in (apart, together))
    assert one.win_rate == other.win_rate
    assert (other.win_rate_high - other.win_rate_low) > 1.5 * (one.win_rate_high - one.win_rate_low)


def test_a_header_in_another_order_a_byte_order_mark_and_line_breaks_in_cells_are_read(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_bytes('\ufeffwinner,right,left,prompt\r\nleft,b,a,"two\r\nlines"\r\n\r\nright,b,a,\u2028\r\n'.encode())
    found = rank_file(path)
    assert (found.votes, found.prompts, found.arms[0].wins) == (2, 2, 1)


def test_arms_that_never_met_have_win_rates_and_a_reason_instead_of_strengths(tmp_path: Path) -> None:
    found = rank_file(table(tmp_path / "v.csv", "left,right,winner", "a,b,left", "c,d,right"))
    assert "never compared" in found.note
    assert {arm.log_strength for arm in found.arms} == {None}
    assert {arm.arm: arm.win_rate for arm in found.arms} == {"a": 1.0, "b": 0.0, "c": 0.0, "d": 1.0}
    only_bad = rank_file(table(tmp_path / "v.csv", "left,right,winner", "a,b,both_bad"))
    assert (only_bad.both_bad, only_bad.arms[0].log_strength) == (1, None)


def test_what_a_header_lacks_and_has_instead_is_named_in_one_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"lacks winner; it has colour, model\. Its first line must name left, right, winner"):
        rank_file(table(tmp_path / "v.csv", "left,right,colour,model", "a,b,red,x"))
    with pytest.raises(BadInput, match="repeats left"):
        rank_file(table(tmp_path / "v.csv", "left,left,right,winner", "a,b,c,left"))


def test_bad_rows_are_named_by_line(tmp_path: Path) -> None:
    lines = ("left,right,winner", "a,b,left", "a,a,left", "a,b,lft", ",b,left")
    with pytest.raises(BadInput, match=r"line 3 \(a cannot meet itself\); line 4 \(winner is 'lft'.*; line 5 \(left and right"):
        rank_file(table(tmp_path / "v.csv", *lines))
    with pytest.raises(BadInput, match=r"Line 3 of v\.csv has 2 cells"):
        rank_file(table(tmp_path / "v.csv", "left,right,winner", "a,b,tie", "a,b"))
    with pytest.raises(BadInput, match=r"and 95 more"):
        rank_file(table(tmp_path / "v.csv", "left,right,winner", *["a,b,x"] * 100))


def test_a_file_that_is_missing_empty_or_no_text_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file"):
        rank_file(tmp_path / "none.csv")
    with pytest.raises(BadInput, match="lacks left, right, winner"):
        rank_file(table(tmp_path / "empty.csv"))
    with pytest.raises(BadInput, match="no votes"):
        rank_file(table(tmp_path / "v.csv", "left,right,winner"))
    (tmp_path / "binary.csv").write_bytes(b"left,right,winner\n\xff\xfe,b,left\n")
    with pytest.raises(BadInput, match="not UTF-8"):
        rank_file(tmp_path / "binary.csv")
    with pytest.raises(BadInput, match=r"Line 2 of v\.csv is not CSV"):
        rank_file(table(tmp_path / "v.csv", "left,right,winner", '"a"x,b,left'))


def ratings(path: Path, coders: list[list[Any]]) -> Path:
    lines = [f"u{unit},c{coder},{'' if value is None else value}" for coder, row in enumerate(coders) for unit, value in enumerate(row)]
    random.Random(3).shuffle(lines)
    return table(path, "unit,coder,value", *lines)


def test_agreement_gives_krippendorffs_published_alphas(tmp_path: Path) -> None:
    case = expected("krippendorff_wikipedia")
    found = run("agreement", str(ratings(tmp_path / "r.csv", case["coders_by_unit"])), "--json")
    assert found["alpha"]["nominal"] == pytest.approx(case["computed"]["nominal"], abs=1e-5)
    assert found["alpha"]["interval"] == pytest.approx(case["computed"]["interval"], abs=1e-5)
    with shared("agreement_bt", "codings.csv").open() as file:
        coders = [[value or None for value in row] for row in csv.reader(file)]
    found = run("agreement", str(ratings(tmp_path / "c.csv", coders)), "--json")
    assert found["alpha"]["nominal"] == pytest.approx(expected("krippendorff_2011_C")["computed"], abs=1e-5)
    assert found["alpha"]["ordinal"] == pytest.approx(0.815, abs=1e-3)  # Krippendorff (2011), section D
    assert found["alpha"]["interval"] == pytest.approx(0.849, abs=1e-3)
    assert (found["coders"], found["units"], found["units_compared"]) == (4, 12, 11)


def test_words_have_a_nominal_alpha_and_a_unit_rated_once_is_ignored(tmp_path: Path) -> None:
    case = expected("krippendorff_small")
    lines = [f"{unit},{coder},{value}" for coder, unit, value in case["triples"]]
    found = agreement_file(table(tmp_path / "r.csv", "unit,coder,value", *lines))
    assert found.alpha == {"nominal": pytest.approx(case["computed"], abs=1e-5), "ordinal": None, "interval": None}
    assert "not numbers" in found.note
    assert (found.units, found.units_compared) == (3, 2)


def test_numbers_are_the_same_however_they_are_written(tmp_path: Path) -> None:
    found = agreement_file(table(tmp_path / "r.csv", "unit,coder,value", "a,x,1", "a,y,1.0", "b,x,2", "b,y,02"))
    assert found.alpha == {"nominal": 1.0, "ordinal": 1.0, "interval": 1.0}


def test_pandalms_raters_have_the_published_kappas_and_alpha(tmp_path: Path) -> None:
    rows = json.loads(shared("pandalm", "testset-v1.json").read_text())
    lines = [f"{row['idx']},{rater},{row[f'annotator{rater}']}" for row in rows for rater in (1, 2, 3)]
    found = agreement_file(table(tmp_path / "r.csv", "unit,coder,value", *lines))
    assert found.kappa == pytest.approx(expected("pandalm")["cohen_kappa"], abs=1e-5)
    assert found.alpha["nominal"] == pytest.approx(expected("pandalm")["krippendorff_alpha_nominal"], abs=1e-5)


def test_alpha_without_overlap_or_variation_is_null_with_the_reason(tmp_path: Path) -> None:
    apart = agreement_file(table(tmp_path / "r.csv", "unit,coder,value", "a,x,1", "b,y,2"))
    assert (apart.alpha["nominal"], apart.kappa) == (None, {"x-y": None})
    assert "nothing can be compared" in apart.note
    same = agreement_file(table(tmp_path / "r.csv", "unit,coder,value", "a,x,1", "a,y,1"))
    assert same.alpha["nominal"] is None
    assert "undefined" in same.note


def test_a_rating_given_twice_is_named_by_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"line 4 \(x rated a on line 2 already\); line 5 \(unit and coder"):
        agreement_file(table(tmp_path / "r.csv", "unit,coder,value", "a,x,1", "b,x,1", "a,x,2", "a,,2"))


def test_people_read_a_table_and_the_signature(tmp_path: Path) -> None:
    votes = table(tmp_path / "v.csv", "left,right,winner", "a,b,left", "a,b,right")
    assert "log strength" in run("rank", str(votes))
    assert "ties:half" in run("rank", str(votes))
    assert "alpha, nominal" in run("agreement", str(table(tmp_path / "r.csv", "unit,coder,value", "a,x,1", "a,y,1", "b,x,2", "b,y,1")))


@pytest.mark.parametrize(
    "raw",
    [
        b"left,right,winner\na,b,left\na,b,tie\nb,a,both_bad\n",
        b"\xef\xbb\xbfwinner,right,left\r\nLEFT,b,a\r\nTie,b,a\r\nBoth Bad,a,b\r\n\r\n",
        b"id;left;right;Winner;comment\n1;a;b;Left;good\n2;a;b;TIE;\n3;b;a;tie (bothbad);\n",
        b"model_a\tmodel_b\twinner\tlang\na\tb\tmodel_a\ten\na\tb\ttie\ten\nb\ta\ttie (bothbad)\tde\n",
        b"left,right,winner,reviewer,prompt\na,b,a,,\na,b,draw,,\nb,a,neither,,\n",
        b'"left","right","winner",""\n" a ","b","left",""\n"a","b","tie"," "\n"b","a","both bad",\n,,,\n',
        "left,right,winner\na,b,left\na,b,Tie\nb,a,BOTH_BAD\n".encode("utf-16"),
    ],
)
def test_the_same_votes_in_odd_but_plain_spellings_are_the_same_figures(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "v.csv").write_bytes(raw)
    found = rank_file(tmp_path / "v.csv")
    assert [(arm.arm, arm.wins, arm.losses, arm.ties, arm.both_bad) for arm in found.arms] == [("a", 1, 0, 1, 1), ("b", 0, 1, 1, 1)]
    assert found.reviewers == 1


@pytest.mark.parametrize("winner", ["1", "0", "", "c", "left or right"])
def test_a_winner_that_may_mean_this_or_that_is_refused_with_its_line(tmp_path: Path, winner: str) -> None:
    with pytest.raises(BadInput, match=r"line 3 \(winner is"):
        rank_file(table(tmp_path / "v.csv", "left,right,winner", "a,b,left", f"a,b,{winner}"))


def test_an_arm_called_as_a_word_for_a_vote_is_that_arm(tmp_path: Path) -> None:
    found = rank_file(
        table(tmp_path / "v.csv", "left,right,winner", "none,both,none", "none,both,both", "none,both,none", "none,both,left")
    )
    assert [(arm.arm, arm.wins) for arm in found.arms] == [("none", 3), ("both", 1)]


def test_what_was_left_out_or_taken_together_is_said(tmp_path: Path) -> None:
    lines = ("left,right,winner,reviewer,prompt,mood", "a,b,left,Rita,p1,x", "a,b,right,,p2,x", "b,a,left,Rita,p1,x", "a,b,tie,Tom,,x")
    found = run("rank", str(table(tmp_path / "v.csv", *lines)), "--json")
    for words in (
        "Columns not used: mood",
        "1 votes name no reviewer",
        "1 votes name no prompt",
        "1 votes are by a reviewer who has judged",
    ):
        assert words in found["note"]
    assert (found["votes"], found["reviewers"], found["prompts"]) == (4, 3, 3)


def test_names_and_texts_of_any_script_are_taken_as_they_are(tmp_path: Path) -> None:
    found = rank_file(table(tmp_path / "v.csv", "left,right,winner", "שלום,<b>x</b>,left", "שלום,<b>x</b>,<b>x</b>", "=1+1,שלום,right"))
    assert {arm.arm for arm in found.arms} == {"שלום", "<b>x</b>", "=1+1"}


def test_ratings_in_other_columns_with_gaps_and_votes_as_values_are_understood(tmp_path: Path) -> None:
    plain = agreement_file(table(tmp_path / "p.csv", "unit,coder,value", "a,x,1", "a,y,2", "b,x,3", "b,y,3", "c,x,1"))
    odd = agreement_file(
        table(tmp_path / "o.csv", "Annotator;Item;Rating;time", "x;a;1;9", "y;a;2;9", "x;b;3;9", "y;b;3.0;9", "x;c;1;9", "y;c;NA;9")
    )
    assert (odd.alpha, odd.units, odd.units_compared) == (plain.alpha, plain.units, plain.units_compared)
    assert "1 values that say there is no rating" in odd.note
    assert "Columns not used: time" in odd.note
    votes = agreement_file(
        table(tmp_path / "v.csv", "unit,coder,value", "a,x,Left", "a,y,tie", "b,x,right", "b,y,RIGHT", "c,x,left", "c,y,left")
    )
    assert votes.alpha["ordinal"] is not None
    assert votes.alpha["interval"] is None
    assert "stand" in votes.note


def test_alpha_has_an_interval_and_fleiss_kappa_and_full_agreement_stand_beside_it(tmp_path: Path) -> None:
    rows = json.loads(shared("pandalm", "testset-v1.json").read_text())
    lines = [f"{row['idx']},{rater},{row[f'annotator{rater}']}" for row in rows for rater in (1, 2, 3)]
    found = run("agreement", str(table(tmp_path / "r.csv", "unit,coder,value", *lines)), "--json")
    figures = expected("pandalm")
    assert found["fleiss_kappa"] == pytest.approx(figures["fleiss_kappa"], abs=1e-5)
    assert found["full_agreement"] == pytest.approx(figures["full_agreement_share"], abs=1e-5)
    low, high = found["interval"]["nominal"]
    assert low < figures["krippendorff_alpha_nominal"] < high
    assert high - low < 0.06
