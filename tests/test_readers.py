"""Reader study: agreement against irrCAC and scikit-learn, the CSV of calls, and aggregate.py --readers."""
import json

import numpy as np
import pandas as pd
import pytest
import readers_helpers
from hypothesis import given
from hypothesis import strategies as st
from page_helpers import Page
from prediction_helpers import predictions, write
from sklearn.metrics import cohen_kappa_score

import aggregate
from common.files import InputError
from evaluation import agreement, bootstrap, paired_tests, readers

NO = np.nan


def expanded(table):
    """Ratings of two raters from their contingency table."""
    return np.array([(i, j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)], dtype=float)


def index(ratings, name, categories=2):
    features, of_sums = agreement.indices(ratings, categories)
    return float(of_sums(features.sum(axis=0)[None])[name][0])


# Data and values of irrCAC: seven digits from its R vignette "overview" (cran.r-project.org/web/packages/irrCAC), three
# from the tests of its Python port (github.com/afergadis/irrCAC), the several raters with missing ratings included.
ABSTRACTORS = [[13, 0, 0], [0, 20, 7], [0, 4, 56]]
DIAGNOSIS = [[40, 4, 4, 17], [6, 25, 2, 13], [4, 1, 21, 12], [15, 5, 9, 45]]
RATERS4 = np.array([[1, 2, 3, 3, 2, 1, 4, 1, 2, NO, NO, NO], [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NO, NO],
                    [NO, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 3], [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NO]]).T - 1
OBSERVERS5 = np.array([[1, 1, 2, NO, 0, 0, 1, 1, 2, 2, NO, 0, 1, 3, 1], [1, 1, 3, 0, 0, 0, 0, NO, 2, 1, 1, 0, 2, 3, 1],
                       [2, 0, 3, 0, 0, 0, 2, 2, 2, 1, 0, 0, 2, 2, 1],
                       [NO, 1, 3, NO, NO, NO, NO, 0, NO, 1, 0, 0, 2, 2, NO],
                       [2, NO, NO, 0, 0, 0, 1, NO, 2, NO, NO, NO, NO, 3, 1]]).T


@pytest.mark.parametrize("ratings, categories, name, value", [
    (expanded(ABSTRACTORS), 3, "kappa", 0.7964094), (expanded(ABSTRACTORS), 3, "ac1", 0.849),
    (expanded(ABSTRACTORS), 3, "fleiss_kappa", 0.7962397),  # of two raters this is Scott's pi
    (expanded(DIAGNOSIS), 4, "kappa", 0.432), (expanded(DIAGNOSIS), 4, "ac1", 0.456),
    (RATERS4, 5, "agreement", 0.818), (RATERS4, 5, "ac1", 0.775), (RATERS4, 5, "fleiss_kappa", 0.761),
    (OBSERVERS5, 4, "agreement", 0.616), (OBSERVERS5, 4, "ac1", 0.497), (OBSERVERS5, 4, "fleiss_kappa", 0.458)])
def test_agreement_as_irrcac_prints_it(ratings, categories, name, value):
    digits = 5e-8 if value in (0.7964094, 0.7962397) else 6e-4  # 0.432 is 0.4315 rounded twice there
    assert index(ratings, name, categories) == pytest.approx(value, abs=digits)


@st.composite
def calls(draw, readers_=2):
    n = draw(st.integers(2, 20))
    column = st.lists(st.sampled_from([0.0, 1.0, 1.0]), min_size=n, max_size=n)
    return np.array([draw(column) for _ in range(readers_)]).T


@given(calls())
def test_kappa_equals_sklearns(ratings):
    kappa = index(ratings, "kappa")
    expected = cohen_kappa_score(*ratings.T) if len(np.unique(ratings)) > 1 else np.nan
    assert kappa == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(calls(3), st.randoms())
def test_order_of_scans_and_readers_and_swapped_classes_change_nothing(ratings, random):
    rows, columns = list(range(len(ratings))), list(range(3))
    random.shuffle(rows)
    random.shuffle(columns)
    for name in agreement.MANY:
        expected = index(ratings, name)
        for other in (ratings[rows], ratings[:, columns], 1 - ratings):
            assert index(other, name) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(calls())
def test_weights_repeat_scans(ratings):
    weights = np.concatenate(list(bootstrap.resample_weights(None, len(ratings), 5, 1))).astype(int)
    features, of_sums = agreement.indices(ratings)
    drawn = of_sums(weights @ features)
    for k, times in enumerate(weights):
        for name in agreement.TWO:
            expected = index(np.repeat(ratings, times, axis=0), name)
            assert drawn[name][k] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_kappa_without_chance_has_a_reason():
    found = agreement.estimates(np.ones((20, 2)), None, 50, 0)
    assert found["kappa"]["reason"] == "all calls are the same" and found["ac1"]["value"] == 1
    assert found["ac1"]["ci_low"] is None and found["ac1"]["reason"]
    alone = agreement.estimates(np.array([[1, NO], [NO, 0]]), None, 50, 0)
    assert alone["kappa"]["reason"] == "no scan was read by two"


def test_differences_of_sensitivity_and_specificity():
    target, model, calls_, _ = readers_helpers.reading(np.random.default_rng(0))
    a, b = model, calls_[:, 0]
    found = paired_tests.bootstrap_prediction_differences(target, a, b, resamples=200)
    assert found["sensitivity"]["difference"] == pytest.approx(a[target].mean() - b[target].mean())
    assert found["specificity"]["difference"] == pytest.approx(b[~target].mean() - a[~target].mean())
    assert found["nri"]["difference"] == pytest.approx(sum(found[name]["difference"] for name in readers.CLASSES))


@pytest.mark.slow
@pytest.mark.parametrize("most", [1, 3])
def test_coverage_of_the_reader_study(most):
    """200 studies: of so many intervals, four standard errors of 95 % (6.2 points); 1000 are on the reference page."""
    for name, share in readers_helpers.coverage(200, most).items():
        assert share >= 0.95 - 0.062, name


# ---------------------------------------------------------------- the CSV

SCANS = pd.DataFrame({"target": [0, 0, 1, 1, 1, 0]}, index=pd.Index([f"s{k}" for k in range(6)], name="scan_id"))


def read(folder, text, scans=SCANS):
    path, warnings = folder / "readers.csv", []
    path.write_text(text)
    return readers.read_calls([path], scans, warnings), warnings


def test_both_scales_are_understood_and_named(tmp_path):
    found, warnings = read(tmp_path, "scan_id,AM,BK\ns0,1,3\ns1,2,4\ns2,5,4\ns3,4,\ns4,,5.0\nother,1,2\n")
    assert "Deauville scores 1 to 5" in found.about["scale"] and found.about["names"] == ["AM", "BK"]
    assert found.calls["AM"].tolist()[:4] == [0, 0, 1, 1] and found.calls["BK"].tolist()[:3] == [0, 1, 1]
    assert np.isnan(found.calls.loc["s4", "AM"]) and found.about["n_unknown"] == 1
    assert any("other" in line for line in warnings) and any("s5" in line for line in warnings)
    found, _ = read(tmp_path, "scan_id,AM,BK\ns0,DS 1,\ns1,DS1,1\n")  # which 1 and 1 alone do not tell from calls
    assert "Deauville" in found.about["scale"] and found.calls["AM"].tolist()[:2] == [0, 0]
    found, _ = read(tmp_path, "scan_id,AM,BK\ns0,1,3\ns1,NA,4\n")
    assert found.calls["AM"].isna().tolist()[:2] == [False, True]
    found, _ = read(tmp_path, "scan_id;reader1\ns0; 0\ns1;1 \n")
    assert found.about["scale"] == "calls 0 and 1" and found.calls["reader1"].tolist()[:2] == [0, 1]


@pytest.mark.parametrize("text, message", [
    ("scan_id\ns0\n", "no reader's column"), ("scan_id,r,target\ns0,1,1\n", "column target is no reader"),
    ("scan_id,r\ns0,1\n \ns0,0\n", "line 4: scan_id 's0' is empty or there twice"),
    ("scan_id,r\ns0,0\ns1,4\n", "line 2 .scan s0.: r '0'; the file was read as Deauville"),
    ("scan_id,r\n\ns0,0\ns1,-1\n", "line 4 .scan s1.: r '-1'; the file was read as calls"),
    ("scan_id,r,note\ns0,0,unclear\n", "note 'unclear'.*leave out columns that are no reader's"),
    ("scan_id,r\ns0,6\ns1,2\n", "r '6'"), ("scan_id,r\ns0,1\ns1,1\n", "Deauville 1 or a positive call"),
    ("scan_id,r\nx,1\ny,0\n", "holds none of the scans"),
    ("scan_id,r\ns0,1\nS1,0\n", "'S1' in readers.csv and 's1' in the prediction files: one id, written in two ways")])
def test_what_is_no_call_is_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


def test_majority_names_ties_and_leaves_lone_readers_out():
    table = pd.DataFrame([[1, 1, 0], [1, 0, NO], [1, NO, NO], [0, 0, NO], [NO, NO, NO]], dtype=float)
    assert readers.majority(table).fillna(-1).tolist() == [1, -1, -1, 0, -1]


# ---------------------------------------------------------------- aggregate.py --readers

@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readers") / "results"
    rng, n = np.random.default_rng(2), 60
    scans = pd.DataFrame({"scan_id": [f"s{k:03d}" for k in range(n)], "target": rng.integers(0, 2, n),
                          "patient_id": [f"p{k // 2:03d}" for k in range(n)]})
    write(folder, predictions(0, scans), predictions(1, scans))
    study = scans[["scan_id"]].copy()
    for name, right in (("reader1", 0.9), ("reader2", 0.8)):
        study[name] = np.where(rng.random(n) < right, scans["target"], 1 - scans["target"]) * 3 + 1
    study.sample(frac=1, random_state=0).to_csv(folder / "study.csv", index=False)
    return folder, scans, study, run(folder, "--readers", str(folder / "study.csv"))


def run(folder, *arguments):
    args = ["--dir", str(folder), "--output", str(folder), "--resamples", "200", *arguments]
    aggregate.main(aggregate.get_args_parser().parse_args(args))
    return json.loads((folder / "metrics.json").read_text())


def test_the_numbers_of_a_study(done):
    folder, scans, study, metrics = done
    found = metrics["readers"]
    y, first, second = scans["target"] == 1, study["reader1"] == 4, study["reader2"] == 4
    model = pd.read_csv(folder / "ensemble_avg.csv")["pred_label"] == 1
    entry = found["readers"]["reader1"]
    assert entry["reader"]["sensitivity"]["value"] == pytest.approx(first[y].mean())
    assert entry["model"]["specificity"]["value"] == pytest.approx(1 - model[~y].mean())
    assert entry["differences"]["sensitivity"]["difference"] == pytest.approx(model[y].mean() - first[y].mean())
    assert entry["with_model"]["kappa"]["value"] == pytest.approx(cohen_kappa_score(model, first))
    assert found["pairs"][0]["kappa"]["value"] == pytest.approx(cohen_kappa_score(first, second))
    assert found["ties"] == study.loc[first != second, "scan_id"].tolist() and found["all"] is None
    assert found["readers"][readers.CONSENSUS]["n"] == (first == second).sum()
    assert any("no consensus" in line for line in metrics["warnings"])
    rarer = min(scans.loc[y == value, "patient_id"].nunique() for value in (True, False))
    assert entry["n_groups_rarer"] == rarer
    assert any("20 patients of a class were read" in line for line in metrics["warnings"])  # at least by the consensus
    table = pd.read_csv(folder / "reader_study.csv")
    row = table[(table["against"] == "reader1") & (table["statistic"] == "kappa")]
    assert row["value"].item() == pytest.approx(entry["with_model"]["kappa"]["value"])
    assert row["n"].item() == 60
    for statistic, n in (("sensitivity", y.sum()), ("specificity", (~y).sum())):  # of its class alone
        assert set(table.loc[table["who"].eq("reader1") & table["statistic"].eq(statistic), "n"]) == {n}
        of_reader = table["against"].eq("reader1") & table["statistic"].eq(f"{statistic}_difference")
        assert table.loc[of_reader, "n"].tolist() == [n]
    _, rows = readers.report_tables(found)["reader_accuracy"]
    assert {row[0]: int(row[1]) for row in rows if row[0].startswith("reader1")} == {
        "reader1: sensitivity": y.sum(), "reader1: specificity": (~y).sum()}


@pytest.mark.usefixtures("no_figure")
def test_the_page_of_a_study(done):
    folder, _, _, metrics = done
    page = Page((folder / "report.html").read_text())
    words = " ".join(page.words)
    assert not page.open and "readers" in page.ids
    for text in ("Deauville scores 1 to 5, of which 4 and 5 are positive", "reader2: specificity", "Gwet's AC1",
                 "with a tie", "model, consensus"):
        assert text in words, text
    assert set(readers.points(metrics["readers"])) == {"reader1", "reader2", "consensus"}
    mine = [folder / name for name in ("readers.csv", "forest_of_mine.png", "table1.csv", "flow.pdf")]
    for path in mine:
        path.write_text("mine")
    assert "reader_study.csv" in metrics["files"] and "roc.pdf" in metrics["files"]
    assert "readers" not in run(folder) and not (folder / "reader_study.csv").exists()
    assert {path.read_text() for path in mine} == {"mine"}
    for files in (["../other.txt", 1, "", "folder"], "abc"):  # a metrics.json that is no one's
        (folder.parent / "other.txt").write_text("mine")
        (folder / "folder").mkdir(exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps({"files": files}))
        run(folder)
        assert (folder.parent / "other.txt").exists() and (folder / "folder").exists()


@pytest.mark.usefixtures("no_figure")
def test_a_call_after_one_that_was_cut_removes_its_files_alone(done, tmp_path, monkeypatch):
    def cut(*arguments):
        raise KeyboardInterrupt

    _, scans, study, _ = done
    write(tmp_path, predictions(0, scans), predictions(1, scans))
    study.to_csv(tmp_path / "readers.csv", index=False)
    mine = (tmp_path / "readers.csv").read_text()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("evaluation.checklists.write_checklists", cut)
        run(tmp_path, "--readers", str(tmp_path / "readers.csv"))
    assert (tmp_path / "reader_study.csv").exists()
    run(tmp_path)
    assert (tmp_path / "readers.csv").read_text() == mine and not (tmp_path / "reader_study.csv").exists()


@pytest.mark.usefixtures("no_figure")
def test_order_and_names_of_scans_change_nothing(done, tmp_path):
    folder, scans, study, metrics = done
    renamed = dict(zip(scans["scan_id"], [f"n{k * 7 % 60:03d}" for k in range(60)], strict=True))
    tables = [predictions(k, scans) for k in range(2)]
    write(tmp_path, *(table.assign(scan_id=table["scan_id"].map(renamed)) for table in tables[::-1]))
    study.assign(scan_id=study["scan_id"].map(renamed)).to_csv(tmp_path / "study.csv", index=False)
    other = run(tmp_path, "--readers", str(tmp_path / "study.csv"))["readers"]
    for name, entry in metrics["readers"]["readers"].items():
        again = other["readers"][name]
        assert again["reader"] == entry["reader"] and again["model"] == entry["model"]
        for index_ in agreement.TWO:
            assert again["with_model"][index_]["value"] == pytest.approx(entry["with_model"][index_]["value"])
