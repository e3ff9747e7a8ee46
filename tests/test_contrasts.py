"""Differences between subgroups: published intervals, sums by hand, properties, coverage."""
import numpy as np
import pandas as pd
import pytest
from contrasts_helpers import coverage, study
from hypothesis import given, settings
from hypothesis import strategies as st
from prediction_helpers import measured, predictions, write
from sklearn.metrics import roc_auc_score

from evaluation import contrasts, metrics
from evaluation.contrasts import proportion_difference
from evaluation.metrics import COMPARED


def newcombe(a, m, b, n):
    return proportion_difference(np.arange(m) < a, np.arange(n) < b, np.arange(m), m + np.arange(n))


@pytest.mark.parametrize("counts, low, high", [
    ((56, 70, 48, 80), 0.0524, 0.3339), ((9, 10, 3, 10), 0.1705, 0.8090), ((6, 7, 2, 7), 0.0582, 0.8062),
    ((5, 56, 0, 29), -0.0381, 0.1926), ((0, 10, 0, 20), -0.1611, 0.2775), ((0, 10, 0, 10), -0.2775, 0.2775),
    ((10, 10, 0, 20), 0.6791, 1.0), ((10, 10, 0, 10), 0.6075, 1.0)])
def test_shares_as_published(counts, low, high):
    """Newcombe RG. Stat Med 1998;17:873-90, table II, method 10."""
    found = newcombe(*counts)
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((low, high), abs=5e-5)
    assert (found["p"] < 0.05) == (low > 0)


def test_shares_of_the_same_patients_by_the_formula():
    """Newcombe RG. Stat Med 1998;17:2635-50, method 8 (score, phi without correction), a = 36, b = 12, c = 2, d = 0."""
    a = np.repeat([True, True, False], (36, 12, 2))
    b = np.repeat([True, False, True], (36, 12, 2))
    found = proportion_difference(a, b, np.arange(50), np.arange(50))
    assert found["difference"] == pytest.approx(0.2)
    phi = (36 * 0 - 12 * 2) / np.sqrt(48 * 2 * 38 * 12)
    (l1, u1), (l2, u2) = metrics.wilson_interval(48, 50), metrics.wilson_interval(38, 50)
    down, up = (0.96 - l1, u2 - 0.76), (u1 - 0.96, 0.76 - l2)
    low, high = (np.sqrt(x**2 - 2 * phi * x * y + y**2) for x, y in (down, up))
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((0.2 - low, 0.2 + high))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1), st.integers(0, 12)), min_size=2, max_size=40),
       st.randoms(use_true_random=False))
def test_p_is_the_intervals_and_order_and_names_do_not_matter(rows, random):
    def of(rows):
        parts = [np.array([row for row in rows if row[1] == k], dtype=int).reshape(-1, 3) for k in (0, 1)]
        return [part[:, 0] == 1 for part in parts], [part[:, 2] for part in parts]

    (a, b), (of_a, of_b) = of(rows)
    found = proportion_difference(a, b, of_a, of_b)
    if not (len(a) and len(b)):
        assert found["difference"] is None and found["reason"]
        return
    assert found["ci_low"] <= found["difference"] <= found["ci_high"]
    assert (found["p"] < 0.05) == (not found["ci_low"] <= 0 <= found["ci_high"]) or found["p"] == pytest.approx(0.05)
    back = proportion_difference(b, a, of_b, of_a)
    assert (back["ci_low"], back["ci_high"], back["p"]) == pytest.approx(
        (-found["ci_high"], -found["ci_low"], found["p"]), abs=1e-9)
    shuffled = [(hit, group, 100 - patient) for hit, group, patient in rows]
    random.shuffle(shuffled)
    (a, b), (of_a, of_b) = of(shuffled)
    again = proportion_difference(a, b, of_a, of_b)
    assert list(again.values()) == pytest.approx(list(found.values()), abs=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_differences_are_those_of_the_groups(seed):
    p, y, group, ids = study(np.random.default_rng(seed), clustered=True)
    (found,) = contrasts.differences({"a": p[group], "b": p[~group]}, y, ids, 200, 0)
    aucs = [roc_auc_score(y[rows], p[rows]) for rows in (group, ~group)]
    assert found["auc"]["difference"] == pytest.approx(aucs[0] - aucs[1])
    for name, of_class in (("sensitivity", y == 1), ("specificity", y == 0)):
        right = (p >= 0.5) == (y == 1)
        shares = [right[of_class & rows].mean() for rows in (group, ~group)]
        assert found[name]["difference"] == pytest.approx(shares[0] - shares[1])
    monotone, order = p.map(lambda x: x if x >= 0.5 else x / 2), np.random.default_rng(1).permutation(len(p))
    (again,) = contrasts.differences({"a": monotone[group], "b": monotone[~group]}, y, ids, 200, 0)
    assert again == found
    (mixed,) = contrasts.differences({"a": p[group][::-1], "b": p[~group]}, y.iloc[order], ids.iloc[order], 200, 0)
    assert mixed["auc"] == pytest.approx(found["auc"]) and mixed["sensitivity"] == pytest.approx(found["sensitivity"])


def test_a_group_against_itself_differs_by_nothing():
    p, y, _, ids = study(np.random.default_rng(0))
    (found,) = contrasts.differences({"cor": p, "sag": p.copy()}, y, ids, 100, 0)
    assert all(found[name]["difference"] == 0 and found[name]["p"] == 1 for name in COMPARED)


def test_many_values_are_compared_with_the_largest_and_holm_is_over_all_columns():
    p, y, _, ids = study(np.random.default_rng(3), 120)
    parts = {f"v{k}": p.iloc[k * 20:(k + 1) * 20] for k in range(4)} | {"large": p.iloc[80:]}
    pairs = contrasts.differences(parts, y, ids, 100, 0)
    assert [(pair["a"], pair["b"]) for pair in pairs] == [(f"v{k}", "large") for k in range(4)]
    assert contrasts.differences({"one": p}, y, ids, 100, 0) == []
    found = contrasts.adjust({"ward": [{name: {"p": 0.01} for name in COMPARED}],
                              "sex": [{name: {"p": 0.04} for name in COMPARED}], "none": []})
    assert (found["ward"][0]["auc"]["p_holm"], found["sex"][0]["auc"]["p_holm"]) == (0.02, 0.04)


@pytest.mark.usefixtures("no_figure")
def test_scans_without_the_value_are_no_side_of_a_difference(tmp_path):
    """Of one comparison, F less M, Holm's p is p: the group (missing), though measured, is compared with none."""
    scans = pd.DataFrame({"scan_id": [f"s{k:02d}" for k in range(60)], "target": np.arange(60) % 2,
                          "sex": np.repeat(["F", "M", ""], (25, 25, 10))})
    write(tmp_path, predictions(0, scans))
    metrics = measured(tmp_path, "--by", "sex")
    assert list(metrics["subgroups"]["sex"]) == ["F", "M", "(missing)"]
    (pair,) = metrics["contrasts"]["sex"]
    assert (pair["a"], pair["b"]) == ("F", "M")
    assert all(pair[name]["p_holm"] == pair[name]["p"] for name in COMPARED)


@pytest.mark.usefixtures("no_figure")
def test_what_says_that_nothing_is_known_is_empty(tmp_path):
    """NA as R writes it, and others: no subgroup of that name, here as in Table 1, and ages stay numbers."""
    scans = pd.DataFrame({"scan_id": [f"s{k:02d}" for k in range(60)], "target": np.arange(60) % 2,
                          "sex": np.repeat(["F", "M", "NA", "nan", ""], (25, 25, 4, 4, 2)),
                          "age": [*range(20, 75), *["n/a", "NA", "", "NULL", "nan"]],
                          "time": [*range(1, 59), "NA", "NA"], "event": [0, 1] * 30})
    rows = predictions(0, scans)
    write(tmp_path, rows)
    rows.drop(columns=["probs", "set", "F1", "F2", "F512"]).assign(
        split0="test", matrix_size_1=9, matrix_size_2=9).to_csv(tmp_path / "data.csv", index=False)
    metrics = measured(tmp_path, "--by", "sex", "age", "--data", tmp_path / "data.csv", "--survival", "time", "event",
                       "months")
    sizes = {name: block["avg"]["n"] for name, block in metrics["subgroups"]["sex"].items()}
    assert sizes == {"F": 25, "M": 25, "(missing)": 10} and len(metrics["contrasts"]["sex"]) == 1
    ages = [block["avg"]["n"] for block in metrics["subgroups"]["age"].values()]
    assert list(metrics["subgroups"]["age"])[0] == "up to 38" and ages == [19, 18, 18, 5]
    table = pd.read_csv(tmp_path / "out" / "table1.csv", keep_default_na=False)
    assert (table["sex: (missing)"][0], table["age: (missing)"][0]) == ("10", "5") and "sex: NA" not in table
    assert metrics["prognosis"]["time"]["n_missing"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("clustered", [False, True])
def test_intervals_hold_the_truth(clustered):
    for name, held in coverage(200, clustered).items():
        assert 0.905 <= held <= 0.99, name  # 0.95 with three standard errors of 200
