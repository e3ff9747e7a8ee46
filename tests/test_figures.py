"""The figures as they are drawn: nothing beyond the page or over another, axes that fit the data, one style."""
import itertools

import matplotlib
import numpy as np
import pytest
from conftest import ROOT
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.markers import MarkerStyle

from evaluation import calibration_curve, figure_style, figures
from evaluation.estimates import estimate, no_estimate


def drawn(make, *arguments, **options):
    with matplotlib.rc_context(figure_style.RC):
        figure = make(*arguments, **options)
        FigureCanvasAgg(figure).draw()
    return figure


def block(auc, n=100, share=0.4):
    entry = estimate(auc, max(0, auc - 0.04), min(1, auc + 0.03), "x")
    return {"n": n, "n_positive": int(n * share), "auc": entry, "sensitivity": entry, "specificity": entry}


def boxes(axes):
    return [text.get_window_extent() for text in axes.texts if text.get_text()]


ROWS = [("all scans", block(0.9, 1234)), ("scanner", None), ("GE MEDICAL SYSTEMS Discovery 710", block(0.93, 1100)),
        ("Philips Medical Systems Gemini TF", block(0.78)), ("none", block(0.9) | {"auc": no_estimate("one class")})]


def test_forest_has_its_numbers_on_axes_that_fit():
    figure = drawn(figures.forest, ROWS)
    about, *cells = figure.axes
    shown = [[text.get_text() for text in axes.texts] for axes in (about, cells[1])]
    assert "GE MEDICA…iscovery 710" in shown[0] and "1234 (493)" in shown[0]
    assert shown[1] == ["0.90 (0.86–0.93)", "0.93 (0.89–0.96)", "0.78 (0.74–0.81)", "none"]
    for axes in cells[::2]:
        assert axes.get_xlim() == pytest.approx((0.7, 1.0))
    for one, other in itertools.combinations(boxes(about) + boxes(cells[1]) + boxes(cells[3]) + boxes(cells[5]), 2):
        assert not one.overlaps(other)
    page = figure.bbox
    for axes in figure.axes:
        for box in boxes(axes):
            assert box.x0 >= page.x0 - 1 and box.x1 <= page.x1 + 1


def test_all_subgroups_stand_in_one_forest_unless_they_are_many():
    groups = {"sex": {"F": {"avg": block(0.9)}, "M": {"avg": block(0.8)}}, "ward": {"A": {"avg": block(0.7)}}}
    whole = block(0.85)
    (name, rows), = figures.forests(whole, groups).items()
    assert name == "forest" and [label for label, _ in rows] == ["all scans", "sex", "F", "M", "ward", "A"]
    groups["ward/2"] = {str(k): {"avg": block(0.9)} for k in range(figures.MOST_ROWS)}
    assert list(figures.forests(whole, groups)) == ["forest_sex", "forest_ward", "forest_ward_2"]
    assert figures.forests(whole, {}) == {}


def test_the_histogram_stands_under_its_panel():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 90)
    p = np.clip(0.5 * y + rng.random(90) * 0.5, 0.01, 0.99)
    states = {"as predicted": (p, {"calibration_curve": calibration_curve.measure(y, p, None, 0)})}
    figure = drawn(figures.reliability, {"LARS-avg": states, "LARS-max": states})
    for upper, lower in zip(figure.axes[:2], figure.axes[2:], strict=True):
        assert (upper.get_position().x0, upper.get_position().x1) == pytest.approx(
            (lower.get_position().x0, lower.get_position().x1), abs=1e-6)
        assert upper.get_xlim() == lower.get_xlim() == (0, 1)


def test_one_style_for_all():
    """No figure of the evaluation sets its own size of text, colours or file formats."""
    for path in (ROOT / "evaluation").glob("*.py"):
        text = path.read_text()
        if path.name != "figure_style.py":
            assert "savefig" not in text and "#0072B2" not in text, path.name
            assert "fontsize=" not in text.replace("fontsize=figure_style.TEXT", ""), path.name


def test_a_dollar_in_a_name_is_drawn_as_it_stands():
    rows = [("all scans", block(0.9)), ("ward", None), ("$\\frac", block(0.8)), ("a $x^2$ $", block(0.7))]
    figure = drawn(figures.forest, rows)
    assert {"$\\frac", "a $x^2$ $"} <= {text.get_text() for text in figure.axes[0].texts}
    assert not any(text.get_parse_math() for axes in figure.axes for text in axes.texts)


@pytest.mark.parametrize(("n", "fewest"), [(3, 1), (9, 4), (12, 6), (40, 10)])
def test_the_referral_of_few_scans_is_a_line(n, fewest):
    figure = drawn(figures.selective, np.arange(n) % 3 > 0, {"doubt": np.arange(n)})
    x = figure.axes[0].lines[0].get_xdata()
    assert len(x) > 1 and x[-1] == pytest.approx(100 * (n - fewest) / n)


def test_the_legend_of_the_referral_lies_on_no_curve():
    """Errors that the networks agree on: the accuracy of the rest falls, to the place of the lower right."""
    figure = drawn(figures.selective, np.arange(50) > 15, {"a": np.arange(50), "b": np.arange(50) // 2})
    box = figure.axes[0].get_legend().get_window_extent()
    for line in figure.axes[0].lines:
        assert not box.count_contains(line.get_transform().transform(line.get_xydata()))


def roc_with_readers(points):
    curves = {"LARS-avg": (np.array([0, 1] * 8), np.arange(16) / 16)}
    whole = block(0.6) | {"operating_points": {}, "threshold": 0.5, "tn": 4, "fp": 4, "fn": 4, "tp": 4}
    return drawn(figures.roc, curves, {"LARS-avg": whole}, None, points=points)


def test_readers_are_marked_by_numbers_alone():
    figure = roc_with_readers({"Ann": (0.1, 0.8), "$Bo": (0.2, 0.9)})
    with matplotlib.rc_context(figure_style.RC):
        marks = [MarkerStyle(line.get_marker()).get_path() for line in figure.axes[0].lines
                 if list(line.get_xdata()) in ([0.1], [0.2])]
    assert [(mark.codes == mark.MOVETO).sum() for mark in marks] == [1, 1]  # one outline each: no dollars beside it


@pytest.mark.parametrize("name", ["Dr. {}", "Professor reader {} of the university hospital of a town on a river"])
def test_names_of_readers_leave_the_curve_its_place(name):
    figure = roc_with_readers({name.format(k): (0.1, 0.8) for k in range(9)} | {"consensus": (0.2, 0.9)})
    axes, page = figure.axes[0], figure.bbox
    inside = axes.get_window_extent()
    assert min(inside.width, inside.height) > 0.75 * page.width
    below = axes.get_legend().get_window_extent()
    assert below.y1 < axes.xaxis.get_label().get_window_extent().y0 and below.y0 >= page.y0
    assert page.x0 <= below.x0 and below.x1 <= page.x1
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts[-1] == "consensus" and len(set(texts)) == 10


def test_columns_whose_names_have_other_signs_have_figures_of_their_own():
    rows = {str(k): {"avg": block(0.9)} for k in range(figures.MOST_ROWS)}
    assert list(figures.forests(block(0.85), {"a b": rows, "a_b": rows, "A-b": rows})) == [
        "forest_a_b", "forest_a_b_", "forest_A_b__"]
