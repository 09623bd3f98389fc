"""Named statements: found by name, documented, and given to each engine in its own form."""

from __future__ import annotations

import pytest

from billing.store.statements import load, parameters, parse, statement, to_psycopg

HEAD = "-- name: one\n-- Says what.\n"


def test_the_two_forms() -> None:
    one = parse("file", HEAD + "SELECT a FROM t WHERE b = :b AND c = :b;\n")["file.one"]
    assert one.purpose == "Says what."
    assert one.sqlite == "SELECT a FROM t WHERE b = :b AND c = :b"
    assert one.postgresql == "SELECT a FROM t WHERE b = %(b)s AND c = %(b)s"
    assert one.params == {"b"}


@pytest.mark.parametrize(
    ("sql", "form"),
    [
        ("SELECT ':no' || :yes", "SELECT ':no' || %(yes)s"),
        ("SELECT 'it''s :no', :yes", "SELECT 'it''s :no', %(yes)s"),
        ('SELECT ":no", :yes', 'SELECT ":no", %(yes)s'),
        ("SELECT :yes::text", "SELECT %(yes)s::text"),
        ("SELECT x::bigint, :yes", "SELECT x::bigint, %(yes)s"),
        ("SELECT :yes -- and :no\n", "SELECT %(yes)s -- and :no\n"),
        ("SELECT /* :no */ :yes", "SELECT /* :no */ %(yes)s"),
        ("SELECT 5 % 3, 'a%', :yes", "SELECT 5 %% 3, 'a%%', %(yes)s"),
        ("SELECT :yes -- 5%\n", "SELECT %(yes)s -- 5%%\n"),
    ],
)
def test_only_parameters_are_parameters(sql: str, form: str) -> None:
    assert to_psycopg(sql) == form
    assert parameters(sql) == {"yes"}


def test_one_engine_may_need_words_of_its_own() -> None:
    text = (
        HEAD
        + "SELECT a FROM t WHERE b = :b\n"
        + "-- name: one [postgresql]\n-- Locks too.\nSELECT a FROM t WHERE b = :b FOR UPDATE\n"
    )
    one = parse("file", text)["file.one"]
    assert one.sqlite.endswith(":b")
    assert one.postgresql.endswith("%(b)s FOR UPDATE")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("SELECT 1\n", "no header"),
        ("-- name: One\n-- x\nSELECT 1", "header is"),
        ("-- name: one\nSELECT 1", "what it is for"),
        (HEAD, "no statement"),
        (HEAD + "SELECT 1; SELECT 2", "more than one"),
        (HEAD + "SELECT 1;\n" + HEAD + "SELECT 1;\n", "twice"),
        ("-- name: one [sqlite]\n-- x\nSELECT 1", "common form"),
        (HEAD + "SELECT :a\n-- name: one [sqlite]\n-- x\nSELECT :b", "different parameters"),
    ],
)
def test_a_malformed_file_says_where(text: str, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        parse("file", text)


def test_a_semicolon_in_a_literal_ends_nothing() -> None:
    assert parse("file", HEAD + "SELECT ';'")["file.one"].sqlite == "SELECT ';'"


def test_the_shipped_statements_load_and_an_unknown_one_is_a_bug() -> None:
    assert statement("ingest.insert_event").params >= {"event_id", "payload"}
    assert len(load()) > 2
    with pytest.raises(AssertionError, match=r"'ingest\.nothing'"):
        statement("ingest.nothing")
