"""A user's own texts: formats, what is dropped and why, warnings, errors."""

import json

import pytest

from syn2real_utils.errors import UserError
from syn2real_utils.guess import guess_language
from syn2real_utils.texts import AGAIN, CONTROL, EMPTY, LONG, SILENT, TAGS, UNSAID, read_texts

SPANISH = ["el perro de la casa", "los gatos y las vacas", "un pez en el agua del mar", "quiero que me lo digas ahora"]
ENGLISH = ["the dog of the house", "what would you like to do with this", "they are not what he was looking for"]


def written(folder, name: str, content: str | bytes):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_every_reason_is_told_with_its_line_and_text(tmp_path):
    lines = [
        "el perro",
        "",
        "El  perro.",
        "<b>el gato</b>",
        "¡…!",
        "la\x07vaca",
        "palabra " * 70,
        "5 peces",
        "el\tpato ",
    ]
    found = read_texts(written(tmp_path, "t.txt", "\n".join(lines) + "\n"), "es")
    assert found.kept == ((1, "el perro"), (8, "5 peces"), (9, "el pato"))
    assert [(line, reason) for line, reason, _ in found.dropped] == [
        (2, EMPTY), (3, AGAIN), (4, TAGS), (5, SILENT), (6, CONTROL), (7, LONG),
    ]  # fmt: skip
    assert found.counts() == dict.fromkeys([EMPTY, AGAIN, TAGS, SILENT, CONTROL, LONG], 1)
    report = found.report().splitlines()
    assert report[0] == "line,reason,text" and "6,control characters,la\\x07vaca" in report and len(report) == 7


def test_what_no_tts_says_is_dropped_and_a_broken_letter_can_be_told(tmp_path):
    lines = ["собака", "日本酒 con hielo", "helado 🍦", "5 µg", "el 9º, a 20 °C y 2 €", "Æsir & Łódź", "¿qué?"]
    lines += ["- una pizza", "**dos** pizzas", "# Menú", "pulse # o *"]
    found = read_texts(written(tmp_path, "t.txt", "\n".join(lines)), "es")
    assert [line for line, _ in found.kept] == [5, 6, 7, 11]
    assert [reason for _, reason, _ in found.dropped] == [UNSAID] * 4 + [TAGS] * 3
    assert [line for line, _ in read_texts(written(tmp_path, "t.txt", "собака\nкот\n犬\n"), "ru").kept] == [1, 2, 3]
    broken = read_texts(written(tmp_path, "t.jsonl", '{"text":"a"}\n{"text":"b"}\n{"text":"\\ud800"}\n'), "es")
    assert broken.report().splitlines()[-1] == f"3,{CONTROL},\\ud800"


def test_units_and_abbreviations_are_told_with_what_is_said(tmp_path):
    lines = [
        "600 mg c/8 h y ya está",
        "receta nº 12",
        "a 20 km",
        "tres por 4",
        "6x7=42",
        "el 1er piso",
        "3 y 4",
        "1ª planta",
    ]
    (warning,) = read_texts(written(tmp_path, "t.txt", "\n".join(lines)), "es").warnings
    assert warning.startswith("2 texts have units or abbreviations") and "('a 20 km' as 'a veinte km')" in warning
    assert not read_texts(written(tmp_path, "e.txt", "the 2nd street\nthe 4th of July\n"), "en").warnings


def test_numbers_said_alike_are_duplicates(tmp_path):
    found = read_texts(written(tmp_path, "t.txt", "5 perros\ncinco perros\nseis perros"), "es")
    assert [text for _, text in found.kept] == ["5 perros", "seis perros"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.txt", "\ufeffel perro, grande\r\nel gato\r\n"),
        ("t.csv", 'id,text\n1,"el perro, grande"\n2,el gato\n'),
        ("t.csv", 'transcription,file_name\n"el perro, grande",a.wav\nel gato,b.wav\n'),
        ("t.csv", 'phrase\n"el perro, grande"\nel gato\n'),
        ("t.jsonl", '{"text": "el perro, grande", "id": 1}\n\n{"text": "el gato"}\n'),
        ("t.jsonl", '{"transcription": "el perro, grande"}\n{"said": "el gato"}\n'),
    ],
)
def test_formats(tmp_path, name, content):
    found = read_texts(written(tmp_path, name, content), "es")
    assert [text for _, text in found.kept] == ["el perro, grande", "el gato"] and not found.dropped
    assert bool(found.warnings) == content.startswith("phrase"), "a first line that may be a text is told"


def test_rows_are_those_that_a_tts_takes(tmp_path):
    rows = read_texts(written(tmp_path, "t.txt", "el perro\nel gato\n"), "es").rows("animales")
    assert list(rows.columns) == ["text_id", "transcription", "domain", "split", "fold"]
    assert rows.text_id.nunique() == 2 and set(rows.domain) == {"animales"} and set(rows.fold) == {-1}


ERRORS = {
    "missing": ("nope.txt", None, "no file .*nope.txt: expected the texts"),
    "a folder": ("d.txt", None, "d.txt is a folder: expected a file"),
    "another script": ("t.txt", "собака\nкот\n", r"0 usable texts of 2 \(dropped: 2 letters or signs .*right\?"),
    "another kind": ("t.docx", "x", "no list of texts by its name: expected .txt, .csv, .jsonl"),
    "empty": ("t.txt", " \n\n", "t.txt is empty"),
    "not UTF-8": ("t.txt", "el niño".encode("latin-1"), r"t.txt is not UTF-8 \(byte 5\): save it as UTF-8"),
    "UTF-16": ("t.txt", "el perro\nel gato".encode("utf-16-le"), r"t.txt is not UTF-8 \(it holds zero bytes"),
    "one text": (
        "t.txt",
        "el perro\nEl perro!\n\n",
        r"has 1 usable text of 3 \(dropped: 1 duplicate .*, 1 empty\): at least 2",
    ),
    "unknown column": ("t.csv", "id,phrase\n1,x\n", "has no column 'text' or 'transcription' .found id, phrase"),
    "semicolons": ("t.csv", "id;text\n1;x\n", "is not separated by commas"),
    "open quote": ("t.csv", 'text\n"el perro\n', "is no CSV"),
    "too many cells": ("t.csv", "id,text\n1,el perro, grande\n", "row 2 has more cells than the header"),
    "a column twice": ("t.csv", "text,text\nuno,a\n", "names the column text twice in its header"),
    "deep JSON": ("t.jsonl", '{"text": ' + 100_000 * "[", "line 1 is no JSON"),
    "no JSON": ("t.jsonl", '{"text": "x"}\nel gato\n', "line 2 is no JSON"),
    "no object": ("t.jsonl", '["x"]\n', "line 1 is no JSON object"),
    "unknown key": ("t.jsonl", '{"id": 1, "said": "x"}\n', "line 1 has no key 'text' or 'transcription'"),
    "no text": ("t.jsonl", '{"text": 5}\n', "line 1: 'text' must be a text in quotes, found 5"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_bad_files_are_one_line(tmp_path, case):
    name, content, message = ERRORS[case]
    file = tmp_path / name if content is None else written(tmp_path, name, content)
    if case == "a folder":
        file.mkdir()
    with pytest.raises(UserError, match=message) as raised:
        read_texts(file, "es")
    assert len(str(raised.value).splitlines()) == 1


def test_places_that_a_program_fills_in_are_not_spoken(tmp_path):
    texts = ["Hello {name}", "You have %s messages", "Call %(who)s", "Sure, 100 % of it", "Two (or three)"]
    found = read_texts(written(tmp_path, "t.txt", "\n".join(texts)), "en")
    assert [text for _, text in found.kept] == texts[3:] and {reason for _, reason, _ in found.dropped} == {TAGS}


def test_another_language_is_warned_of_only_when_it_is_sure(tmp_path):
    assert guess_language(SPANISH * 2, "en") == "es" and guess_language(SPANISH * 2, "it") == "es"
    assert guess_language(ENGLISH, "es") == "en" and guess_language(ENGLISH, "de") == "en"
    assert guess_language(SPANISH * 2, "es") is None and guess_language(ENGLISH, "en") is None
    assert guess_language(["doner kebab", "pizza margherita", "the end"], "de") is None, "product names"
    assert guess_language(ENGLISH, "ca") is None, "no list of that language"
    lines = "\n".join(json.dumps({"text": text}) for text in ENGLISH)
    (warning,) = read_texts(written(tmp_path, "t.jsonl", lines), "es").warnings
    assert warning == "the texts look like 'en', not 'es': is --language right?"
