"""What every page shares: escaping, the policy against loading and scripts, tables."""
import jinja2
import pytest
from markupsafe import Markup
from page_helpers import Page

from common import html

PAGE = """{% extends "page.html" %}{% import "parts.html" as parts %}
{% block title %}A & B{% endblock %}
{% block main %}{{ parts.section("TRIPOD+AI") }}{{ parts.notices(lines) }}{{ parts.warnings(lines) }}
{{ parts.table(["", "Value"], rows) }}{{ parts.research_use() }}{% endblock %}"""


@pytest.fixture
def page(monkeypatch):
    """The page of a template given as text."""
    loader = jinja2.ChoiceLoader([jinja2.DictLoader({"test.html": PAGE}), html._TEMPLATES.loader])
    monkeypatch.setattr(html._TEMPLATES, "loader", loader)
    return html.render("test.html", lines=["<b>1</b>", ""], rows=[["a<b", Markup("<i>raw</i>"), "0.5 (0.4 to 0.6)"]])


def test_a_page_escapes_texts_and_loads_nothing(page):
    assert Page(page).open == [] and Page(page).ids == ["tripod-ai"]
    assert "&lt;b&gt;1&lt;/b&gt;" in page and "a&lt;b" in page and "<td><i>raw</i></td>" in page
    assert "<td>0.5 <span>(0.4 to 0.6)</span></td>" in page and page.count("notice loud") == 1
    assert ("content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
            "form-action 'none'\"") in page


def test_a_value_that_is_not_given_is_refused(page):
    with pytest.raises(jinja2.UndefinedError, match="lines"):
        html.render("test.html")
