from __future__ import annotations

import logging
import unicodedata

import pytest

from mlops_llm import console


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, "0.1235"), (1.0, "1"), (1e-5, "1e-05"), (2e-3, "0.002"), (-0.5, "-0.5"), (123.456, "123.5"),
        (12345.6, "12,346"), (-1234567.0, "-1,234,567"), (float("nan"), "nan"), (float("inf"), "inf"), (7, "7"),
        (123456, "123456"), (None, "-"), ("中文 0.123456", "中文 0.123456"), (True, "True"), ([0.5, [1, None]], "0.5, 1, -"),
        ((), ""), (0.0, "0"),
    ],
)  # fmt: skip
def test_number(value, shown):
    assert console.number(value) == shown


def test_a_number_just_below_ten_thousand():
    assert console.number(9999.9) == "10,000"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1500, "2 kB"), (999_000, "999 kB"), (1_000_000, "1.0 MB"),
        (2_104_496, "2.1 MB"), (540e6, "540.0 MB"), (1.5e9, "1.5 GB"),
        (2.5e12, "2.5 TB"), (3e15, "3000.0 TB"), (-5e6, "-5.0 MB"),
    ],
)  # fmt: skip
def test_size(count, shown):
    assert console.size(count) == shown


def width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def test_columns_stand_under_each_other_with_chinese(capsys):
    rows = [["价格", 0.123456, "a"], ["x", None, "很长的一句话，不该断开"], ["[bold]y[/bold]", [1, 2], "🎉"]]
    console.grid("结果 [x]", ["名字", "loss", "备注"], rows)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "结果 [x]"
    table = {line.split()[0]: line for line in lines if line.strip() and "─" not in line}
    starts = [
        width(table[first].partition(cell)[0])
        for first, cell in (("名字", "loss"), ("价格", "0.1235"), ("x", "-"), ("[bold]y[/bold]", "1, 2"))
    ]
    assert len(set(starts)) == 1
    ends = [
        width(table[first].partition(cell)[0])
        for first, cell in (("名字", "备注"), ("价格", "a"), ("x", "很长"), ("[bold]y[/bold]", "🎉"))
    ]
    assert len(set(ends)) == 1
    assert "很长的一句话，不该断开" in table["x"]


def test_a_long_cell_is_folded_and_not_cut(capsys):
    text = "数据" * 200
    console.grid("t", ["a", "b"], [[text, "stage:a: [b]"]])
    out = capsys.readouterr().out
    assert out.count("数") == 200
    assert "stage:a: [b]" in out, "neither a picture nor markup"
    assert "…" not in out
    assert max(width(line) for line in out.splitlines()) <= 160


def test_show_has_no_heads(capsys):
    console.show("标题", {"步数": 400, "loss": 1.23456})
    out = capsys.readouterr().out
    assert out.split() == ["标题", "步数", "400", "loss", "1.235"]


def test_lines_go_to_the_right_stream_and_into_the_log(capsys, tmp_path):
    handler = console.log_to(tmp_path / "train.log")
    try:
        console.say("说")
        console.warn("小心")
        console.fail("错了")
        console.grid("表", ["甲"], [["乙"]])
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    out, err = capsys.readouterr()
    assert out.startswith("说\n")
    assert err == "warning: 小心\nerror: 错了\n"
    log = (tmp_path / "train.log").read_text("utf-8")
    for part in ("INFO mlops_llm: 说", "WARNING mlops_llm: 小心", "ERROR mlops_llm: 错了", "乙"):
        assert part in log


def test_progress_prints_plain_lines_where_there_is_no_terminal(capsys):
    progress = console.Progress("training", total=10, start=4, every=3600)
    for done in range(5, 11):
        progress.at(done, note="loss 1.5")
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("training 10/10 ")
    assert lines[0].endswith("loss 1.5")


def test_reading_says_share_rows_rate_and_time_left(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    reading = console.Reading("checking rows.jsonl", every=10)
    for clock[0], share, rows in ((0.5, 0.1, 1000), (5.0, 0.2, 2000), (20.0, 0.25, 4000), (24.0, 0.3, 5000)):
        reading.share(share)
        reading.rows(rows)
    reading.close()
    assert capsys.readouterr().out == "checking rows.jsonl: 25%  4,000 rows  200 rows/s  60 s left\n"


def test_a_title_stands_on_one_line_above_a_narrower_table(capsys):
    console.grid("what stays whatever the budget is", ["a"], [["b"]])
    console.show("晋升：版本 3 成为冠军", {"版本": 3})
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert "what stays whatever the budget is" in lines and "晋升：版本 3 成为冠军" in lines
