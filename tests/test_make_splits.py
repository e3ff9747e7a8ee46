import numpy as np
import pandas as pd
import pytest
from conftest import call, error_line, run
from hypothesis import given, settings
from hypothesis import strategies as st

import make_splits
from common.files import InputError
from common.manifest import check_patients
from preprocessing import splits


def cohort(n_patients=60, seed=0, share=0.4):
    """A manifest of text: one to three scans a patient, two views a scan; patients' own columns are carried along."""
    rng, rows = np.random.default_rng(seed), []
    for patient in range(n_patients):
        ill = rng.random() < share
        for scan in range(rng.integers(1, 4)):
            name, target = f"P{patient:03d}-{scan}", int(ill and rng.random() < 0.7)
            rows += [(name, f"{name}_{view}.bin", target, f"{patient:03d}", "0.10") for view in ("cor", "sag")]
    return pd.DataFrame(rows, columns=["scan_id", "filename", "target", "patient_id", "note"])


def run_main(table, tmp_path, *options):
    path = tmp_path / "data.csv"
    if table is not None:
        table.to_csv(path, index=False)
    call(make_splits, "--data", path, *options)
    return pd.read_csv(tmp_path / "data_resplit.csv", dtype=str, keep_default_na=False)


def split_columns(table):
    return [name for name in table if name.startswith("split")]


def test_patients_sets_and_shares(tmp_path, capsys):
    table = cohort(100)
    result = run_main(table, tmp_path)
    columns = split_columns(result)
    assert columns == [f"split{k}" for k in range(20)]
    scans = result.drop_duplicates("scan_id").astype({"target": int})
    ill = scans.groupby("patient_id")["target"].max()
    for column in columns:
        assert (result.groupby("patient_id")[column].nunique() == 1).all()
        sets = scans.groupby("patient_id")[column].first()
        for name, share in (("test", 0.2), ("val", 0.2)):  # of either kind of patient, to the nearest patient
            assert (ill[sets == name] == 1).sum() == round(share * (ill == 1).sum())
            assert (ill[sets == name] == 0).sum() == round(share * (ill == 0).sum())
        positive = scans.groupby(column)["target"].mean()
        assert positive.max() - positive.min() < 0.08
        n_scans = scans.groupby(column).size() / len(scans)
        assert n_scans["test"] == pytest.approx(0.2, abs=0.02) and n_scans["val"] == pytest.approx(0.2, abs=0.02)
    tests = result[columns] == "test"
    assert tests.eq(tests["split0"], axis=0).all(axis=None), "one fixed test set"
    validation = [frozenset(result.index[result[column] == "val"]) for column in columns]
    assert len(set(validation)) == 20
    in_validation = (result[columns] == "val").groupby(result["patient_id"]).first().sum(axis=1)
    in_validation = in_validation[~tests["split0"].groupby(result["patient_id"]).first()]
    assert in_validation.mean() == 5 and in_validation.std() == pytest.approx((20 * 0.25 * 0.75) ** 0.5, abs=0.5)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 + 1 + 40 + 1 and str(tmp_path / "data_resplit.csv") in printed


def test_printed_numbers(tmp_path, capsys):
    result = run_main(cohort(40), tmp_path, "--n_splits", 1)
    lines = {tuple(line.split()[:2]): line.split()[2:5] for line in capsys.readouterr().out.splitlines()}
    for name, label in (("train", "split0"), ("val", "split0"), ("test", "all")):
        rows = result[result["split0"] == name]
        positive = rows.loc[rows["target"] == "1", "scan_id"].nunique()
        assert lines[label, name] == [str(rows["patient_id"].nunique()), str(rows["scan_id"].nunique()), str(positive)]


def test_other_columns_are_carried_as_they_stand(tmp_path):
    table = cohort(30)
    result = run_main(table, tmp_path, "--n_splits", 2)
    merged = table.astype(str).merge(result, on=list(table.columns))
    assert len(merged) == len(table) == len(result)
    assert result["note"].eq("0.10").all() and result["patient_id"].str.len().eq(3).all()


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, 10))
def test_row_order_is_irrelevant_and_patients_stay_together(tmp_path_factory, order, seed):
    table, first, second = cohort(30, seed), tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
    result = run_main(table, first, "--seed", seed, "--n_splits", 3)
    run_main(table.sample(frac=1, random_state=order), second, "--seed", seed, "--n_splits", 3)
    assert (first / "data_resplit.csv").read_bytes() == (second / "data_resplit.csv").read_bytes()
    for column in split_columns(result):
        assert (result.groupby("patient_id")[column].nunique() == 1).all()
        assert (result.groupby(column)["target"].nunique() == 2).all() and result[column].nunique() == 3


def test_seed_matters_and_more_splits_change_no_earlier_one(tmp_path):
    few = run_main(cohort(), tmp_path, "--n_splits", 2)
    many = run_main(cohort(), tmp_path, "--n_splits", 5)
    other = run_main(cohort(), tmp_path, "--n_splits", 2, "--seed", 1)
    pd.testing.assert_frame_equal(few, many[few.columns])
    assert not few["split0"].equals(other["split0"]) and not (few["split0"] == "test").equals(other["split0"] == "test")


def test_every_patient_is_as_likely_to_be_tested():
    patients = pd.DataFrame({"n_positive": [0] * 7 + [1, 1, 2, 3, 1], "n_scans": [1, 1, 2, 3, 2, 1, 1, 1, 2, 2, 3, 3]})
    rng, drawn = np.random.default_rng(0), np.zeros(12)
    counts = pd.Series({False: 7, True: 5})
    for _ in range(300):
        drawn[splits.draw(patients, 0.3, counts, rng)] += 1
    assert drawn[:7] / 300 == pytest.approx([2 / 7] * 7, abs=0.08)  # round(0.3 * 7) of 7, round(0.3 * 5) of 5
    assert drawn[7:] / 300 == pytest.approx([2 / 5] * 5, abs=0.08)


def test_without_patient_id_scans_stay_together_and_it_says_so(tmp_path, capsys):
    result = run_main(cohort(30).drop(columns="patient_id"), tmp_path, "--n_splits", 2)
    assert (result.groupby("scan_id")["split0"].nunique() == 1).all()
    assert "no column patient_id" in capsys.readouterr().out


def test_given_test_set_is_kept(tmp_path):
    table = cohort(40)
    table["held_out"] = np.where(table["patient_id"].astype(int) % 4 == 0, "True", "")
    result = run_main(table, tmp_path, "--test_from", "held_out", "--n_splits", 3)
    for column in split_columns(result):
        assert ((result[column] == "test") == (result["held_out"] == "True")).all()
    again = run_main(result, tmp_path, "--test_from", "split0", "--n_splits", 2, "--overwrite", "--seed", 9)
    assert ((again["split1"] == "test") == (again["held_out"] == "True")).all()
    assert split_columns(again) == ["split0", "split1"]
    table.loc[table["scan_id"] == table["scan_id"][0], "held_out"] = "True"
    table.loc[0, "held_out"] = ""
    with pytest.raises(InputError, match="patient_id 000 has rows inside and outside"):
        run_main(table, tmp_path, "--test_from", "held_out")
    table.loc[0, "held_out"] = "yes"
    with pytest.raises(InputError, match="'yes'"):
        run_main(table, tmp_path, "--test_from", "held_out")
    with pytest.raises(InputError, match="no such column"):
        run_main(table, tmp_path, "--test_from", "elsewhere")


def test_existing_splits_are_refused_unless_overwritten(tmp_path):
    result = run_main(cohort(), tmp_path, "--n_splits", 4)
    with pytest.raises(InputError, match="split0 already; give --overwrite"):
        run_main(result, tmp_path, "--n_splits", 2)
    assert split_columns(run_main(result, tmp_path, "--n_splits", 2, "--overwrite")) == ["split0", "split1"]


def test_output_is_a_file_or_a_folder(tmp_path, capsys):
    run_main(cohort(), tmp_path, "--n_splits", 2)
    run_main(cohort(), tmp_path, "--n_splits", 2, "--output", tmp_path / "new" / "mine.csv")
    run_main(cohort(), tmp_path, "--n_splits", 2, "--output", tmp_path / "folder")
    expected = (tmp_path / "data_resplit.csv").read_bytes()
    assert (tmp_path / "new" / "mine.csv").read_bytes() == expected
    assert (tmp_path / "folder" / "data_resplit.csv").read_bytes() == expected
    assert f"--images {tmp_path}" in capsys.readouterr().out


def test_check_patients():
    table = pd.DataFrame({"patient_id": ["a", "a", "b"], "scan_id": ["1", "2", "3"],
                          "split0": ["train", "train", "val"], "split1": ["train", "test", "val"]})
    assert check_patients(table, ["split0"]) is None
    with pytest.raises(InputError, match="patient_id a is in test and train of split1"):
        check_patients(table, ["split0", "split1"])
    check_patients(table.drop(columns="patient_id"), ["split0", "split1"])  # scan by scan nothing is split


def test_check_option(tmp_path, capsys):
    good = run_main(cohort(), tmp_path, "--n_splits", 2)
    before = sorted(tmp_path.iterdir())
    run_main(good, tmp_path, "--check")
    assert "nothing was written" in capsys.readouterr().out and sorted(tmp_path.iterdir()) == before
    moved = good.copy()
    patient = moved.groupby("patient_id")["scan_id"].nunique().idxmax()
    first_scan = moved.loc[moved["patient_id"] == patient, "scan_id"].iloc[0]
    old = moved.loc[moved["scan_id"] == first_scan, "split1"].iloc[0]
    moved.loc[moved["scan_id"] == first_scan, "split1"] = "val" if old != "val" else "train"
    with pytest.raises(InputError, match=f"patient_id {patient} is in .* of split1"):
        run_main(moved, tmp_path, "--check")
    with pytest.raises(InputError, match="'training'"):
        run_main(good.replace({"split0": {"train": "training"}}), tmp_path, "--check")
    with pytest.raises(InputError, match="no column split0"):
        run_main(cohort(), tmp_path, "--check")
    swapped = good.copy()
    swapped["split1"] = swapped["split1"].map({"test": "val", "val": "test", "train": "train"})
    run_main(swapped, tmp_path, "--check")
    assert "warning: the test set differs" in capsys.readouterr().out


def broken(change):
    table = cohort(20).astype(str)
    change(table)
    return table


@pytest.mark.parametrize("change, message", [
    (lambda t: t.__setitem__("target", ["2"] + list(t["target"])[1:]), r"row 2 .*target = '2' is not 0"),
    (lambda t: t.__setitem__("target", list(t["target"])[:-1] + [""]), "target = '' is not 0"),
    (lambda t: t.__setitem__("target", ["1" if t["target"][0] == "0" else "0"] + list(t["target"])[1:]),
     r"scan P000-0\): target = '.' differs between the rows"),
    (lambda t: t.__setitem__("patient_id", ["x"] + list(t["patient_id"])[1:]),
     r"scan P000-0\): patient_id = .* differs"),
    (lambda t: t.__setitem__("patient_id", [""] + list(t["patient_id"])[1:]), "patient_id"),
    (lambda t: t.__setitem__("filename", [t["filename"][1]] + list(t["filename"])[1:]),
     "row 3 .*filename = .* is there twice"),
    (lambda t: t.__delitem__("target"), "no column target"),
    (lambda t: t.__setitem__("target", "0"), "holds none with target 1"),
])
def test_bad_manifest(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        run_main(broken(change), tmp_path)
    assert not (tmp_path / "data_resplit.csv").exists()


def test_too_few_positive_patients_are_refused(tmp_path):
    table = cohort(20, share=0.0).astype({"target": int})
    table.loc[table["patient_id"].isin(["003", "004"]), "target"] = 1
    with pytest.raises(InputError, match="train set .* none with target 1"):
        run_main(table, tmp_path)
    table.loc[table["patient_id"] == "005", "target"] = 1
    result = run_main(table, tmp_path)  # three: one for each set, however small the shares
    assert (result.groupby("split0")["target"].nunique() == 2).all()


def test_repeated_splits_are_reported(tmp_path, capsys):
    table = cohort(6, share=0.0)
    table.loc[table["patient_id"].isin(["000", "001", "002"]), "target"] = 1
    run_main(table, tmp_path)
    assert "of the 20 splits repeat an earlier one" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--test", "0.6", "--val", "0.4"], ["--val", "0"], ["--test", "1.5"],
                                     ["--n_splits", "0"], ["--data", "nowhere.csv"]])
def test_bad_arguments_end_the_process_with_2_and_one_line(tmp_path, options):
    cohort().to_csv(tmp_path / "data.csv", index=False)
    assert options[-1] in error_line(run("make_splits.py", "--data", "data.csv", *options, cwd=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]
