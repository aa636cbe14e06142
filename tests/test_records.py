"""Files by others are read row by row: every row is a Record or a Reject with its line, and nothing a file holds is an exception."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ft import fields, rows
from ft.errors import BadInput, NotFound, UserError
from ft.records import MAX_ROW_BYTES, RAW_KEPT, Record, Reject, read
from tests.conftest import ROOT, shared

REAL = {
    "rasbt_instructions/instruction-data.json": ("JSON", 1100, {"instruction": "instruction", "input": "input", "output": "output"}),
    "personality_chat/Queries_Responses_Friendly_QnAMaker.tsv": ("TSV", 165, {"instruction": "Question", "output": "Answer"}),
    "personality_chat/Queries_Responses_Humorous_QnAMaker.tsv": ("TSV", 165, {"instruction": "Question", "output": "Answer"}),
    "personality_chat/Queries_Responses_Professional_QnAMaker.tsv": ("TSV", 165, {"instruction": "Question", "output": "Answer"}),
    "bitext_qa_subset/qa_train_tune.jsonl": ("JSON Lines", 300, {"instruction": "input_text", "output": "output_text"}),
    "legal_plain/tldrlegal_v1.json": ("JSON", 85, {"instruction": "original_text", "output": "reference_summary"}),
    "covid_faq/faq_covidbert.csv": ("CSV", 213, {"instruction": "question", "output": "answer", "category": "category"}),
    "banking77/train.csv": ("CSV", 10003, {"instruction": "text", "category": "category"}),
    "vicuna80/question.jsonl": ("JSON Lines", 80, {"instruction": "text", "category": "category"}),
}


def file(tmp_path: Path, content: bytes | str, name: str = "rows.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def split(path: Path, fields: dict[str, str] | None = None) -> tuple[list[Record], list[Reject]]:
    items = list(read(path, fields))
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Reject)]


@pytest.mark.parametrize("name", REAL)
def test_a_file_by_others_is_read_whole(name: str) -> None:
    form, count, fields = REAL[name]
    reading = read(shared(*name.split("/")))
    items = list(reading)
    assert (reading.format, len(items)) == (form, count)
    assert not [item for item in items if isinstance(item, Reject)]
    assert fields.items() <= reading.fields.items()
    assert reading.share == 1.0


def test_values_of_the_real_files_arrive_unchanged() -> None:
    ours, _ = split(shared("rasbt_instructions", "instruction-data.json"))
    theirs = json.loads(shared("rasbt_instructions", "instruction-data.json").read_text())
    assert [(r.instruction, r.input, r.output) for r in ours] == [(r["instruction"], r["input"], r["output"]) for r in theirs]
    legal, _ = split(shared("legal_plain", "tldrlegal_v1.json"))
    assert [r.output for r in legal] == [
        v["reference_summary"] for v in json.loads(shared("legal_plain", "tldrlegal_v1.json").read_text()).values()
    ]
    chat, _ = split(shared("personality_chat", "Queries_Responses_Friendly_QnAMaker.tsv"))
    assert (chat[1].instruction, chat[1].output, chat[1].category) == ("You are stupid", "Let's move on.", "Criticism_Abusive")


BAD_ROWS = {
    "broken JSON": (b'{"instruction": "a", ', "not valid JSON"),
    "not an object": (b'["a", "b"]', "a list, not an object"),
    "a number": (b"17", "a number, not an object"),
    "null": (b"null", "null, not an object"),
    "no instruction": (b'{"colour": "red"}', "no instruction"),
    "empty instruction": (b'{"instruction": " \\n "}', "empty instruction"),
    "invisible instruction": (b'{"instruction": "\\u200b\\u2060\\ufeff"}', "empty instruction"),
    "null instruction": (b'{"instruction": null, "output": "x"}', "empty instruction"),
    "NaN": (b'{"instruction": "a", "score": NaN}', "NaN"),
    "Infinity": (b'{"instruction": "a", "score": -Infinity}', "Infinity"),
    "too large a float": (b'{"instruction": "a", "score": 1e999}', "out of range"),
    "too large an integer": (b'{"instruction": "a", "id": 99999999999999999999999}', "out of range"),
    "integer of 5000 digits": (b'{"instruction": "a", "id": ' + b"9" * 5000 + b"}", "out of range"),
    "lone surrogate": (b'{"instruction": "a \\ud800 b"}', "surrogate"),
    "lone surrogate in the answer": (b'{"instruction": "a", "output": "\\udfff"}', "surrogate"),
    "NUL": (b'{"instruction": "a\\u0000b"}', "NUL"),
    "raw NUL": (b'{"instruction": "a\0b"}', "not valid JSON"),
    "duplicate keys": (b'{"instruction": "a", "instruction": "b"}', "'instruction' twice"),
    "nested duplicate keys": (b'{"instruction": "a", "x": {"k": 1, "k": 2}}', "'k' twice"),
    "deep nesting": (b'{"instruction": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "unclosed deep nesting": (b"[" * 100_000, "nested too deeply"),
    "not UTF-8": (b'{"instruction": "caf\xe9"}', "not UTF-8 text (byte 21)"),
    "too long": (b'{"instruction": "' + b"x" * MAX_ROW_BYTES + b'"}', "longer than 1 MB"),
    "instruction is a number": (b'{"instruction": 5}', "a number in 'instruction'"),
    "answer is a list": (b'{"instruction": "a", "output": ["b"]}', "a list in 'output'"),
    "answer is an object": (b'{"instruction": "a", "output": {"b": 1}}', "an object in 'output'"),
    "tags are a number": (b'{"instruction": "a", "tags": 5}', "no list of texts in 'tags'"),
    "unknown split": (b'{"instruction": "a", "split": "holdout"}', "'holdout' in 'split'"),
    "endless category": (b'{"instruction": "a", "category": "' + b"c" * 201 + b'"}', "more than 200 characters"),
    "unknown role": (b'{"messages": [{"role": "tool", "content": "x"}]}', "unknown role 'tool'"),
    "no user turn": (b'{"messages": [{"role": "system", "content": "x"}]}', "no user message"),
    "messages of text": (b'{"messages": "hello"}', "no list of messages"),
    "message of text": (b'{"messages": ["hello"]}', "not an object"),
}


@pytest.mark.hostile
@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_is_one_reject_with_its_line_and_its_neighbours_survive(kind: str, tmp_path: Path) -> None:
    bad, reason = BAD_ROWS[kind]
    good = [b'{"instruction": "one", "output": "1"}', b"", b'{"instruction": "two", "output": "2"}']
    records, rejects = split(file(tmp_path, b"\n".join([*good, bad, good[0]])))
    assert [(r.line, r.instruction) for r in records] == [(1, "one"), (3, "two"), (5, "one")]
    assert [r.line for r in rejects] == [4]
    assert reason in rejects[0].reason
    assert rejects[0].raw[:8].encode() == bad[:8]
    assert len(rejects[0].raw) <= RAW_KEPT
    rejects[0].raw.encode()
    assert "\0" not in rejects[0].raw


@pytest.mark.hostile
@pytest.mark.parametrize("kind", [k for k in BAD_ROWS if "unclosed" not in k and k != "broken JSON"])
def test_the_same_bad_row_inside_a_json_list_spares_its_neighbours(kind: str, tmp_path: Path) -> None:
    bad, reason = BAD_ROWS[kind]
    records, rejects = split(file(tmp_path, b'[\n{"instruction": "one"},\n' + bad + b',\n{"instruction": "two"}\n]', "rows.json"))
    assert [(r.line, r.instruction) for r in records] == [(2, "one"), (4, "two")]
    assert [r.line for r in rejects] == [3]
    assert reason in rejects[0].reason


def test_line_separators_inside_a_text_do_not_split_the_row(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\u0085d\x0be\x0cf"
    records, rejects = split(file(tmp_path, json.dumps({"instruction": text}, ensure_ascii=False) + "\n"))
    assert not rejects
    assert records[0].instruction == text


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_rows(tmp_path: Path) -> None:
    for name, body in (
        ("a.jsonl", b'{"instruction": "x"}\r\n'),
        ("a.json", b'[{"instruction": "x"}]\r\n'),
        ("a.csv", b"instruction\r\nx\r\n"),
    ):
        records, rejects = split(file(tmp_path, b"\xef\xbb\xbf" + body, name))
        assert ([r.instruction for r in records], rejects) == (["x"], [])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.jsonl", b"", "is empty"),
        ("blank.csv", b" \r\n\n", "is empty"),
        ("bom.json", b"\xef\xbb\xbf", "is empty"),
        ("wide.jsonl", '{"instruction": "x"}'.encode("utf-16"), "UTF-8"),
        ("wide.csv", "instruction\nx\n".encode("utf-16-be"), "UTF-8"),
        ("latin.csv", "Frage für uns,instruction\nx,y\n".encode("latin-1"), "Save the file as UTF-8"),
        ("book.xlsx", b"PK\x03\x04rest", "Excel"),
        ("rows.parquet", b"PAR1rest", "Parquet"),
        ("rows.jsonl.gz", b"\x1f\x8b\x08rest", "gzip"),
        ("letter.txt", b"Dear all\nhow are you\n", "no format"),
        ("odd.json", b"hello", "no format"),
        ("odd.csv", b"colour,size\nred,5\n", "no column that is known to hold the instruction; it has colour, size"),
        ("odd.tsv", b"colour\tsize\nred\t5\n", "Say which column is the instruction"),
        ("twice.csv", b"prompt,prompt\na,b\n", "names a column twice"),
        ("blank.csv", b"prompt,\na,b\n", "an empty name"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence_that_says_what_to_do(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as error:
        list(read(file(tmp_path, content, name)))
    assert words in str(error.value)
    assert str(error.value).endswith(".")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nothing\.jsonl"):
        read(tmp_path / "nothing.jsonl")
    with pytest.raises(BadInput, match="is a folder"):
        read(tmp_path)


def test_names_are_found_whatever_their_case_and_spacing(tmp_path: Path) -> None:
    records, _ = split(file(tmp_path, "Ideal Answer,USER,Reference\nyes,why?,no\n", "a.csv"))
    assert (records[0].instruction, records[0].output) == ("why?", "no")
    records, _ = split(file(tmp_path, '{"input": "2+2", "output": "4"}\n{"instruction": "add", "input": "2+2", "output": "4"}'))
    assert [(r.instruction, r.input) for r in records] == [("2+2", ""), ("add", "2+2")]


def test_a_column_of_user_names_or_ticket_numbers_is_not_taken_for_the_question(tmp_path: Path) -> None:
    records, _ = split(file(tmp_path, "ticket,user,message,reply\n17,rita,It is broken,Restart it\n", "a.csv"))
    assert (records[0].instruction, records[0].output) == ("It is broken", "Restart it")


def test_the_documented_names_are_those_in_the_code() -> None:
    told = (ROOT / "docs" / "data.md").read_text()
    for field, names in fields.ALIASES.items():
        [line] = [line for line in told.splitlines() if line.startswith(f"| {field} ")]
        assert [word for word in re.findall(r"`([^`]+)`", line) if word in names] == list(names), field


def test_an_explicit_mapping_wins_and_may_hold_a_fixed_text(tmp_path: Path) -> None:
    path = file(tmp_path, "question,clause,plain\nq1,c1,p1\n", "a.csv")
    records, _ = split(path, {"instruction": "=Say it in plain words:", "input": "clause", "output": "plain"})
    assert (records[0].instruction, records[0].input, records[0].output) == ("Say it in plain words:", "c1", "p1")
    with pytest.raises(BadInput, match="no column 'nothing'"):
        list(read(path, {"instruction": "nothing"}))
    with pytest.raises(BadInput, match="Unknown field"):
        read(path, {"instuction": "question"})


def test_a_mapped_field_that_a_json_row_lacks_is_a_reject(tmp_path: Path) -> None:
    records, rejects = split(file(tmp_path, '{"a": "x", "b": "y"}\n{"b": "y"}\n'), {"instruction": "a", "output": "b"})
    assert [(r.instruction, r.output) for r in records] == [("x", "y")]
    assert rejects[0].reason == "has no 'a'"


def test_a_chat_becomes_its_last_question_with_the_turns_before_it(tmp_path: Path) -> None:
    turns = [("system", "Be kind"), ("user", "Hi"), ("assistant", "Hello"), ("user", "Why?"), ("assistant", "Because.")]
    rows_ = [
        {"messages": [{"role": role, "content": content} for role, content in turns]},
        {"conversations": [{"from": "human", "value": "Only?"}]},
    ]
    records, rejects = split(file(tmp_path, "\n".join(map(json.dumps, rows_))))
    assert not rejects
    assert (records[0].instruction, records[0].input, records[0].output) == ("Why?", "Customer: Hi\nAgent: Hello", "Because.")
    assert (records[1].instruction, records[1].output) == ("Only?", "")


def test_tags_category_and_split_are_read(tmp_path: Path) -> None:
    rows_ = [
        '{"instruction": "a", "tags": ["x", " y "], "intent": "billing", "split": "Dev"}',
        '{"instruction": "b", "tags": "x; y", "label": 3}',
    ]
    records, _ = split(file(tmp_path, "\n".join(rows_)))
    assert [(r.tags, r.category, r.split) for r in records] == [(("x", "y"), "billing", "validation"), (("x", "y"), "3", None)]


def test_json_is_recognised_by_what_it_holds_not_by_its_name(tmp_path: Path) -> None:
    one, two = '{"instruction": "a"}', '{"instruction": "b"}'
    for name, content, count in [
        ("a.json", f"{one}\n{two}\n", 2),
        ("b.json", one, 1),
        ("c.json", f"[{one}, {two}]", 2),
        ("d.json", '{"k1": {"instruction": "a"}, "k2": {"instruction": "b"}}', 2),
        ("e.txt", f"{one}\n{two}\n", 2),
        ("f.txt", "prompt\tanswer\nx\ty\n", 1),
    ]:
        records, rejects = split(file(tmp_path, content, name))
        assert (len(records), rejects) == (count, []), name


def test_a_list_that_ends_too_early_or_goes_on_says_so(tmp_path: Path) -> None:
    records, rejects = split(file(tmp_path, '[{"instruction": "a"},\n{"instruction": "b"', "a.json"))
    assert ([r.instruction for r in records], rejects[0].line) == (["a"], 2)
    assert "file ends inside it" in rejects[0].reason
    records, rejects = split(file(tmp_path, '[{"instruction": "a"}]\n{"instruction": "b"}', "a.json"))
    assert (len(records), rejects[0].line) == (1, 2)
    assert "after the end" in rejects[0].reason


def test_table_rows_that_do_not_fit_are_rejected_one_by_one(tmp_path: Path) -> None:
    body = 'prompt,answer\n"a, b",1\nonly one\nx,y,z\n"open,2\nlast,3\n'
    records, rejects = split(file(tmp_path, body, "a.csv"))
    assert [(r.line, r.instruction) for r in records] == [(2, "a, b"), (6, "last")]
    assert [r.line for r in rejects] == [3, 4, 5]
    assert "1 cells where the header has 2" in rejects[0].reason
    assert "never closed" in rejects[2].reason


def test_a_quoted_cell_may_span_lines(tmp_path: Path) -> None:
    records, rejects = split(file(tmp_path, 'prompt,answer\n"one\ntwo ""quoted""",x\nnext,y\n', "a.csv"))
    assert not rejects
    assert [(r.line, r.instruction) for r in records] == [(2, 'one\ntwo "quoted"'), (4, "next")]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_a_json_list_is_cut_as_the_json_module_reads_it(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_CHUNK", chunk)
    draw = random.Random(chunk)
    alphabet = 'ab"\\{}[],:\n\u2028é😀 '
    values = [{"instruction": "".join(draw.choices(alphabet, k=draw.randrange(12))) + "!", "x": [{"y": "]}"}]} for _ in range(60)]
    for content in (json.dumps(values, indent=draw.choice([None, 2])), json.dumps({f"k{i}": v for i, v in enumerate(values)}, indent=1)):
        records, rejects = split(file(tmp_path, content, "a.json"))
        assert not rejects
        assert [r.instruction for r in records] == [v["instruction"] for v in values]
        first = content.split("\n")
        assert all('"instruction"' in "\n".join(first[r.line - 1 : r.line + 2]) for r in records[:5])


@pytest.mark.hostile
def test_mutilated_files_lose_no_line_and_raise_nothing(tmp_path: Path) -> None:
    draw = random.Random(50)
    lines = [
        json.dumps({"instruction": f"question {i} é", "output": "a" * draw.randrange(40)}, ensure_ascii=False).encode() for i in range(40)
    ]
    for round_ in range(150):
        body = bytearray(b"\n".join(lines))
        for _ in range(draw.randrange(1, 20)):
            at = draw.randrange(len(body))
            body[at : at + draw.randrange(3)] = bytes(draw.choices(range(256), k=draw.randrange(3)))
        for name in ("a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt"):
            path = file(tmp_path, bytes(body), name)
            try:
                items = list(read(path))
            except UserError:
                assert name != "a.jsonl", round_
                continue
            assert all(1 <= item.line <= body.count(b"\n") + 1 for item in items)
            if name == "a.jsonl":
                bare = bytes(body).split(b"\n")
                assert [item.line for item in items] == [n for n, line in enumerate(bare, 1) if line.strip()]


@pytest.mark.hostile
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
@pytest.mark.parametrize(
    ("name", "start"), [("a.jsonl", b'{"instruction": "x'), ("a.json", b'[{"instruction": "x'), ("a.csv", b'prompt\n"x')]
)
def test_a_row_of_a_gigabyte_is_one_reject_within_300_mb(name: str, start: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    with path.open("wb") as out:
        out.write(start + b"y" * 200_000)
        out.truncate(2**30)
        out.seek(2**30)
        out.write(
            b'"}\n{"instruction": "after"}\n'
            if name == "a.jsonl"
            else b'"},\n{"instruction": "after"}]'
            if name == "a.json"
            else b'"\nafter\n'
        )
    code = (
        "import re; from pathlib import Path; from ft.records import read\n"
        f"items = list(read({str(path)!r}))\n"
        "for i in items: print(i.line, type(i).__name__, getattr(i, 'reason', '') or i.instruction)\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"  # ru_maxrss would count what pytest weighed
    )
    out_text = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout
    *items, peak = out_text.splitlines()
    assert "Reject" in items[0]
    assert "longer than 1 MB" in items[0]
    assert items[-1].endswith("Record after")
    assert int(peak) < 300_000


def test_reading_imports_no_heavy_library() -> None:
    heavy = ("torch", "nltk", "sacrebleu", "datasets", "pandas")
    code = f"import sys, ft.records, ft.curate, ft.metrics; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "[]"
