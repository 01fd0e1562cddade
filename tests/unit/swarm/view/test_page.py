"""A page escapes whatever a template prints, and a template cannot forget a name."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from swarm.view.page import render


def body(folder: Path, text: str, **data: object) -> str:
    template = folder / "some.html"
    start = '{% extends "page.html" %}{% import "parts.html" as parts %}{% block title %}t{% endblock %}'
    template.write_text(f"{start}{{% block body %}}{text}{{% endblock %}}")
    return render(template, data).split("</p>", 1)[1].split("</body>")[0].strip()


def test_text_is_escaped_and_control_characters_become_middle_dots(tmp_path: Path) -> None:
    assert body(tmp_path, "{{ said }}", said="<b>\x1b[2J\u202e\ud800 a\nb") == "&lt;b&gt;·[2J·· a\nb"


def test_text_in_attributes_and_tables_is_escaped_too(tmp_path: Path) -> None:
    page = body(tmp_path, "{{ parts.picture(png, said) }}{{ parts.table([said], [[said]]) }}", png=b"x", said='"><i>')
    assert "<i>" not in page
    assert 'alt="&#34;&gt;&lt;i&gt;" src="data:image/png;base64,eA=="' in page


def test_rows_may_be_mappings_and_the_strong_one_stands_out(tmp_path: Path) -> None:
    rows = [{"arm": "solo", "n": 2}, {"arm": "swarm", "n": 3}]
    page = body(tmp_path, '{{ parts.table(["arm", "n"], rows, strong=["swarm"]) }}', rows=rows)
    assert "<tr><td>solo</td><td>2</td></tr>" in page
    assert '<tr class="strong"><td>swarm</td><td>3</td></tr>' in page


def test_a_name_that_the_data_lacks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="'solve_rtae' is undefined"):
        body(tmp_path, "{{ solve_rtae }}")
