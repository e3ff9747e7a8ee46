"""Non-inferiority and equivalence, and the sample size for an interval of a wanted width."""
import json

import margin_helpers
import numpy as np
import pandas as pd
import pytest
from conftest import call, error_line, run
from hypothesis import given
from hypothesis import strategies as st

import compare
from common.files import InputError
from evaluation import margins, metrics, planning

# ---------------------------------------------------------------- margins

@pytest.mark.parametrize("low, high, said", [
    (-0.04, 0.10, "non-inferior"), (-0.04, 0.03, "non-inferior and equivalent"),
    (0.01, 0.10, "non-inferior and superior"), (0.01, 0.04, "non-inferior and equivalent and superior"),
    (-0.10, 0.10, "not shown to be non-inferior"),
    (-0.10, -0.01, "not shown to be non-inferior"), (-0.10, -0.06, "inferior"),
    (-0.05, 0.02, "not shown to be non-inferior"), (-0.02, 0.05, "non-inferior")])
def test_verdicts_by_hand(low, high, said):
    assert margins.verdict(low, high, 0.05)["text"] == f"{said} at a margin of 0.05"


def test_without_an_interval_there_is_no_verdict():
    found = margins.verdict(None, None, 0.05)
    assert found["non_inferior"] is None and found["text"] == "not judged at a margin of 0.05: no interval"


limits = st.tuples(*[st.floats(-1, 1)] * 2).map(sorted)


@given(limits, st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_verdicts_mirror_and_grow_with_the_margin(interval, margin, more):
    low, high = interval
    found, mirrored = margins.verdict(low, high, margin), margins.verdict(-high, -low, margin)
    assert found["equivalent"] == mirrored["equivalent"]
    assert not (found["inferior"] and found["non_inferior"]) and found["equivalent"] <= found["non_inferior"]
    wider = margins.verdict(low, high, margin + more)
    assert found["equivalent"] <= wider["equivalent"] and found["non_inferior"] <= wider["non_inferior"]


def two_files(folder, n=200):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    shared = rng.normal(0.35 + 0.3 * y, 0.2)
    for name, spread in (("a", 0.02), ("b", 0.03)):
        table = pd.DataFrame({"scan_id": [f"s{k:03d}" for k in range(n)], "target": y, "patient_id": np.arange(n) // 2,
                              "ensemble_prob": np.clip(shared + rng.normal(0, spread, n), 0, 1)})
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder / "a.csv", folder / "b.csv"


def test_compare_names_the_primary_test_first(tmp_path, capsys):
    files = two_files(tmp_path)
    call(compare, *files, "--output", tmp_path, "--resamples", 199, "--primary", "sensitivity", "--margin", 0.2)
    result = json.loads((tmp_path / "compare.json").read_text())
    assert result["primary"] == {"metric": "sensitivity", "test": "sensitivity", "margin": 0.2}
    entry = result["pairs"][0]["sensitivity"]
    assert entry["verdict"] == margins.verdict(entry["ci_low"], entry["ci_high"], 0.2)
    assert entry["verdict"]["equivalent"]
    table = pd.read_csv(tmp_path / "compare.csv")
    assert table.loc[0, "test"] == "Sensitivity, bootstrap" and table["detail"].str.startswith("primary").sum() == 1
    assert set(table["test"]) >= {"Specificity, bootstrap", "Accuracy, bootstrap", "AUC, DeLong"}
    assert "primary: non-inferior and equivalent" in capsys.readouterr().out
    page = (tmp_path / "compare.html").read_text()
    assert "Sensitivity: a is non-inferior and equivalent" in page and page.count("non-inferior and equivalent at") == 1
    assert "every other test is exploratory" in (tmp_path / "compare.html").read_text()


def test_without_primary_all_tests_are_exploratory(tmp_path):
    call(compare, *two_files(tmp_path), "--output", tmp_path, "--resamples", 19)
    result = json.loads((tmp_path / "compare.json").read_text())
    page = (tmp_path / "compare.html").read_text()
    assert result["primary"] is None and "No primary test was declared (--primary): all are exploratory" in page
    assert pd.read_csv(tmp_path / "compare.csv").loc[0, "test"] == "AUC, DeLong"


def test_wrong_margins_are_one_line(tmp_path):
    files = two_files(tmp_path)
    assert "--primary" in error_line(run("compare.py", *files, "--margin", 0.05))
    for margin in (-0.05, 0, 1.5):
        with pytest.raises(InputError, match="largest difference that does not matter"):
            margins.check_primary("auc", margin)


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 3])
def test_coverage_and_false_claims(most):
    """200 studies: four standard errors (6.2 points of 95 %, 4.4 of 2.5 %); 1000 are on the reference page."""
    for name, (share, claimed) in margin_helpers.coverage(200, most).items():
        assert share >= 0.95 - 0.062 and claimed <= 0.025 + 0.044, name


# ---------------------------------------------------------------- planning

def test_patients_for_an_auc_equal_pmvalsampsizes():
    """Its criterion 3, Python package 0.2.1: 308 for prevalence 0.43, the example of its README."""
    assert planning.patients_needed("auc", 0.8, 0.1, 0.43) == 308
    assert planning.auc_width(0.8, 0.43, 308) / (2 * 1.96) == pytest.approx(0.0255007835, rel=2e-5)  # its z: 1.96


def test_width_of_a_sensitivity_equals_presizes():
    """prec_sens(sens = .75, prev = .15, ntot = 250, method = "wilson") in its vignette: 38 patients, 0.2663919."""
    assert planning.proportion_width(0.75, 38) == pytest.approx(0.2663919, abs=5e-8)
    assert planning.patients_needed("sensitivity", 0.75, 0.2663920, 0.15) == 254  # 38 / 0.15


def test_patients_for_a_sensitivity_are_near_buderers():
    """0.9 +- 0.1 at prevalence 0.2: 173 patients by Wald's interval (Acad Emerg Med 1996;3:895-900)."""
    assert np.ceil(metrics.Z**2 * 0.9 * 0.1 / 0.1**2 / 0.2) == 173
    assert 173 <= planning.patients_needed("sensitivity", 0.9, 0.2, 0.2) <= 1.1 * 173


@given(st.sampled_from(["sensitivity", "specificity"]), st.integers(1, 19), st.integers(2, 12), st.integers(1, 9))
def test_fewest_patients_of_a_proportion(metric, share, width, tenths):
    share, width, prevalence = share / 20, width / 20, tenths / 10
    n = planning.patients_needed(metric, share, width, prevalence)
    of_class = prevalence if metric == "sensitivity" else 1 - prevalence
    needed = int(np.floor(n * of_class + 1e-9))

    def wide(count):  # Wilson's limits p: (share - p)^2 = z^2 p (1 - p) / count
        z2 = metrics.Z**2 / count
        return np.ptp(np.roots([1 + z2, -2 * share - z2, share**2]).real)

    assert wide(needed) <= width + 1e-12 or wide(needed + 1) <= width + 1e-12
    assert needed <= 2 or wide(needed - 1) > width - 1e-12


@given(st.integers(51, 99), st.integers(2, 20), st.integers(1, 9))
def test_fewest_patients_of_an_auc(auc, width, tenths):
    auc, width, prevalence = auc / 100, width / 40, tenths / 10
    n = planning.patients_needed("auc", auc, width, prevalence)
    assert planning.auc_width(auc, prevalence, n) <= width
    assert n == 2 or planning.auc_width(auc, prevalence, n - 1) > width
    assert n == planning.patients_needed("auc", auc, width, 1 - prevalence)


def test_planned_auc_interval_is_as_wide_as_wanted():
    """Of simulated studies of the planned size; binormal scores vary less than Hanley and McNeil's model."""
    rng, n = np.random.default_rng(0), planning.patients_needed("auc", 0.85, 0.1, 0.3)
    y = np.arange(n) < round(0.3 * n)
    widths = [np.diff(metrics.auc_interval(y, rng.normal(1.4657 * y))[1:3])[0] for _ in range(200)]
    assert np.mean(widths) == pytest.approx(0.1, abs=0.012)


def test_plan_at_the_command_line(capsys):
    call(compare, "--plan", "auc", 0.8, 0.1, 0.43)
    assert "308 patients with one scan each, of whom 132 with target 1" in capsys.readouterr().out
    for given_, said in ((("auroc", 0.8, 0.1, 0.4), "give one of auc"), (("auc", 0.8, 10, 0.4), "width 10"),
                         (("auc", "x", 0.1, 0.4), "give numbers"), (("auc", 0.8, 1e-6, 0.4), "give a larger one")):
        assert said in error_line(run("compare.py", "--plan", *given_))
    assert "no files: give two or more to compare, or --plan" in error_line(run("compare.py"))
