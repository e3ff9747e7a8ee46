"""Whether prediction files belong together: ids written in two ways, folds, other cohorts."""

import numpy as np
import pandas as pd
import pytest
from conftest import call
from hypothesis import given
from hypothesis import strategies as st
from prediction_helpers import SCANS, measured, predictions, splits, write

import compare
from common.files import InputError
from common.manifest import canonical

pytestmark = pytest.mark.usefixtures("no_figure")  # they take most of the time

WRITTEN_ALIKE = [("007", "7"), ("P1", "p1"), ("P 1", "P1"), ("1.0", "1"), ("1e3", "1000"),
                 ("1E+03", "1000.0"), ("0", "000"), ("10", "1e1"), ("Ｐ１", "p1"), ("e\u0301a", "éa")]


# ---------------------------------------------------------------- ids

@pytest.mark.parametrize(("one", "other"), WRITTEN_ALIKE)
def test_ids_written_alike(one, other):
    assert canonical(one) == canonical(other)
    assert canonical("1e" + "9" * 5000).startswith("1e9")  # no number that Python would refuse to read


def test_ids_that_differ():
    texts = ["7", "70", "0.7", "s7", "s07", "7a", "-7", "1e400", "2e400", "12e4567", "13e4567", "1.2.840.1",
             "1.2.840.10", "nan", "", "1.2", "1.20", "12.1", "12.10"]
    assert len({canonical(text) for text in texts}) == len(texts)


@given(st.integers(0, 10**12), st.integers(0, 4), st.integers(0, 4))
def test_zeros_around_a_number_do_not_matter(number, before, after):
    assert canonical(f"{'0' * before}{number}.{'0' * after}") == canonical(str(number)) == canonical(f"{number}0e-1")


@pytest.mark.parametrize("column", ["scan_id", "patient_id"])
@pytest.mark.parametrize(("one", "other"), WRITTEN_ALIKE[:6])
def test_near_matches_between_files_are_named_and_refused(tmp_path, column, one, other):
    tables = [predictions(k, SCANS.assign(patient_id=SCANS["scan_id"] + "p")) for k in range(2)]
    for table, text in zip(tables, (one, other), strict=True):
        table[column] = table[column].replace(table[column].iloc[0], text)
    if column == "patient_id":  # of another scan: no conflict within one
        tables[0], tables[1] = tables[0].iloc[:8], tables[1].iloc[[0, 1, *range(8, 16)]].replace("s0", "s9")
    write(tmp_path, *tables)
    message = f"{column} ['\"].*in pred_split. ?.*one id, written in two ways"
    with pytest.raises(InputError, match=message) as raised:
        measured(tmp_path)
    assert repr(one) in str(raised.value) and repr(other) in str(raised.value)
    for name, table in zip("ab", tables, strict=True):
        table.groupby("scan_id", as_index=False).first().rename(columns={"probs": "ensemble_prob"}).to_csv(
            tmp_path / f"{name}.csv", index=False)
    with pytest.raises(InputError, match=f"{column} .* in [ab] and .* in [ab]: one id, written in two ways"):
        call(compare, tmp_path / "a.csv", tmp_path / "b.csv", "--output", tmp_path / "out")


def test_near_matches_of_validation_and_test_are_refused(tmp_path):
    table = predictions(0).replace({"s0": "007"})
    write(tmp_path, table, pd.concat([predictions(1).iloc[2:], table.iloc[:2].assign(scan_id="7", set="val")]))
    with pytest.raises(InputError, match="scan_id '007' in pred_split0_run1.csv and '7' in pred_split1_run1.csv"):
        measured(tmp_path)


def test_ids_that_one_file_tells_apart_are_two(tmp_path):
    tables = [predictions(k).replace({"s0": "7", "s1": "007"}) for k in range(2)]
    write(tmp_path, tables[0], tables[1][tables[1]["scan_id"] != "7"])
    metrics = measured(tmp_path)
    assert metrics["n_scans"] == 8
    assert "scan_id '007' and '7' differ only in how they are written; they count as two" in metrics["warnings"]


# ---------------------------------------------------------------- cohorts

def named(table, letter):
    return table.assign(scan_id=letter + table["scan_id"])


def test_two_cohorts_of_one_split_are_refused(tmp_path):
    write(tmp_path, predictions(0))
    write(tmp_path, named(predictions(1), "b"), run=2)
    for options in ([], ["--pooled_folds"]):
        with pytest.raises(InputError, match="pred_split0_run1.csv and pred_split0_run2.csv are of different cohorts "
                                             "or manifests: the first lacks bs0, bs1, bs2 and 5 more, the second s0"):
            measured(tmp_path, *options)


def test_two_cohorts_that_overlap_are_refused(tmp_path):
    one, two = predictions(0), predictions(1)
    mixed = pd.concat([two.iloc[:4], named(two.iloc[4:], "b")])
    write(tmp_path, one)
    write(tmp_path, mixed, run=2)
    with pytest.raises(InputError, match="the first lacks bs2, .* the second s2, s3"):
        measured(tmp_path)
    (tmp_path / "pred_split0_run2.csv").unlink()
    write(tmp_path, *(table.assign(set="all") for table in (one, mixed)))
    with pytest.raises(InputError, match="pred_split0_run1.csv and pred_split1_run1.csv are of different cohorts"):
        measured(tmp_path)
    write(tmp_path, *(table.assign(split0="test", split1="test") for table in (one, mixed)))
    with pytest.raises(InputError, match="the first lacks bs2, .* the second s2, s3"):
        measured(tmp_path)
    write(tmp_path, one, mixed)  # nothing says that both splits have the same test set
    assert measured(tmp_path)["avg"]["n"] == 14


def test_models_of_other_views_may_have_other_scans(tmp_path):
    table = predictions(0)
    write(tmp_path, table[(table["view"] == "cor") & (table["scan_id"] != "s0")])
    write(tmp_path, table[(table["view"] == "sag") & (table["scan_id"] != "s1")], run=2)
    assert measured(tmp_path)["avg"]["n"] == 8


def test_pooled_folds_do_not_pass_two_cohorts(tmp_path):
    tables = [predictions(0), named(predictions(1), "b")]
    write(tmp_path, *(table.assign(split0="test", split1="test") for table in tables))  # LARS: one test set for all
    with pytest.raises(InputError, match="are of different cohorts or manifests: the first lacks bs0"):
        measured(tmp_path, "--pooled_folds")
    write(tmp_path, *tables, named(predictions(2), "b"))
    with pytest.raises(InputError, match="no scan of pred_split0_run1.csv is in pred_split1_run1.csv, pred_split2"):
        measured(tmp_path)


def test_a_patient_in_two_folds_is_refused(tmp_path):
    tables = [predictions(0, patient_id="p0"), named(predictions(1), "b").assign(patient_id="p1")]
    tables[1].loc[:1, "patient_id"] = "p0"
    write(tmp_path, *tables)
    with pytest.raises(InputError, match="patient p0 is in the sets of splits 0, 1, so that each was trained on"):
        measured(tmp_path, "--pooled_folds")


def test_test_sets_of_their_own_are_averaged_over_what_they_share(tmp_path):
    """Random test sets, a split each, whose columns say so: no cohorts, though each lacks scans of the others."""
    tables = [predictions(k) for k in range(3)]
    for k in range(3):
        held = np.random.default_rng(k).random(8).repeat(2) < 0.6
        tables = [table.assign(**{f"split{k}": np.where(held, "test", "train")}) for table in tables]
    tables = [table[table[f"split{k}"] == "test"] for k, table in enumerate(tables)]
    write(tmp_path, *tables)
    assert measured(tmp_path)["avg"]["n"] == pd.concat(tables)["scan_id"].nunique()


# ---------------------------------------------------------------- patients, subgroups

def test_patients_are_those_of_measured_scans(tmp_path):
    tables = [table.astype({"target": object}) for table in splits(2)]
    for table in tables:
        table.loc[table["patient_id"] == "p025", "target"] = ""
    write(tmp_path, *tables)
    metrics = measured(tmp_path)
    assert (metrics["n_scans"], metrics["avg"]["n"]) == (24, 22)
    assert metrics["n_patients"] == metrics["avg"]["n_groups"] == 11
    page = " ".join((tmp_path / "out" / "report.html").read_text().split())
    assert "<b>22 scans</b> (13 with Deauville 4–5) of 11 patients" in page


def test_na_is_an_empty_field_and_no_patient_or_group(tmp_path):
    """R writes it so: 12 scans of unknown patients would else be one patient, and NA a subgroup that is compared."""
    table = predictions(scans=pd.DataFrame({"scan_id": [f"s{k:02d}" for k in range(36)], "target": [0, 1] * 18}))
    found = []
    for empty in ("", "NA"):
        names = [empty if k < 24 else f"p{k // 4}" for k in range(72)]
        write(tmp_path, table.assign(patient_id=names, sex=["F", "F", "M", "M", empty, empty] * 12))
        found.append(measured(tmp_path, "--by", "sex"))
    assert found[0]["n_patients"] == 12 + 12 and list(found[0]["subgroups"]["sex"]) == ["F", "M", "(missing)"]
    assert found[1]["warnings"] == found[0]["warnings"] and found[1]["subgroups"] == found[0]["subgroups"]
    assert found[1]["avg"] == found[0]["avg"]


def test_an_image_under_two_names_in_one_set_is_warned_of_once(tmp_path):
    table = predictions(scans=SCANS)
    table["image_sha256"] = table["filename"].replace({"s7_sag.bin": "s4_sag.bin"}).replace({"s0_cor.bin": ""})
    write(tmp_path, table, table.assign(image_sha256=table["image_sha256"].replace({"s1_cor.bin": ""})))
    said = [line for line in measured(tmp_path)["warnings"] if "image" in line]
    assert said == ["2 of 8 scans have an image that another has, too, and so count twice; keep one of each: s4, s7"]


def test_numbers_are_cut_at_the_tertiles_of_the_labelled_scans(tmp_path):
    """Ages 1 to 9, and 20 to 39 of scans without a target, which are not measured. A blank is no 31st value."""
    age = np.array([*range(1, 10), *range(20, 40)])
    table = predictions(scans=pd.DataFrame({"scan_id": [f"s{k:02d}" for k in age], "age": age, "target": age % 2}))
    write(tmp_path, table.assign(target=table["target"].where(table["age"] < 10)))
    found = measured(tmp_path, "--by", "age")["subgroups"]["age"]
    assert {name: block["avg"]["n"] for name, block in found.items()} == {
        "up to 3": 3, "above 3, up to 6": 3, "above 6": 3}
    scans = pd.DataFrame({"scan_id": [f"s{k:02d}" for k in range(32)], "target": [0, 1] * 16,
                          "scanner": [f"m{k:02d}" for k in range(30)] + ["", ""]})
    write(tmp_path, predictions(scans=scans))
    assert len(measured(tmp_path, "--by", "scanner")["subgroups"]["scanner"]) == 31
    write(tmp_path, predictions(scans=scans.assign(scanner=scans["scan_id"])))
    with pytest.raises(InputError, match="--by scanner: has 32 different values; give a column of groups"):
        measured(tmp_path, "--by", "scanner")


def test_one_centre_under_two_spellings_is_warned_of(tmp_path):
    table = predictions(scans=SCANS.assign(centre=["Lyon", "lyon ", "Nice", "Nice"] * (len(SCANS) // 4)))
    write(tmp_path, table)
    found = measured(tmp_path, "--by", "centre")
    assert list(found["subgroups"]["centre"]) == ["Lyon", "Nice", "lyon"]
    assert [line for line in found["warnings"] if "--by" in line] == [
        "--by centre: 'Lyon' and 'lyon' are a subgroup each; if they are one, write it in one way in the manifest, and "
        "predict again"]


def test_a_blank_in_one_view_does_not_switch_off_calibration_in_subgroups(tmp_path):
    tables = splits(3, n_val=80)
    for k, table in enumerate(tables):
        table["sex"] = np.where(table["scan_id"].str[1:].astype(int) % 4 < 2, "F", "M")
        table["dose"] = table["scan_id"].str[1:]
        if k < 2:
            table.loc[table["view"] == "sag", ["sex", "dose"]] = ""
    write(tmp_path, *tables)
    blanks = measured(tmp_path, "--by", "sex", "dose", "--recalibrate", "platt")
    write(tmp_path, *(table.assign(sex=tables[2]["sex"], dose=tables[2]["dose"]) for table in tables))
    assert blanks["subgroups"] == measured(tmp_path, "--by", "sex", "dose", "--recalibrate", "platt")["subgroups"]
    assert list(blanks["subgroups"]["sex"]) == ["F", "M"]
    points = blanks["subgroups"]["sex"]["F"]["avg"]["operating_points"]
    assert points["youden"]["threshold"] == blanks["avg"]["operating_points"]["youden"]["threshold"]
