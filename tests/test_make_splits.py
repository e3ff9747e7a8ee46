import hashlib
import itertools

import numpy as np
import pandas as pd
import pytest
from conftest import call, error_line, run
from hypothesis import given, settings
from hypothesis import strategies as st

import make_splits
from common.files import InputError
from common.manifest import check_images, check_patients, compare_images
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
    """make_splits.py on a table -> what it wrote; what it wrote before is removed."""
    path, output = tmp_path / "data.csv", tmp_path / "data_resplit.csv"
    table.to_csv(path, index=False)
    output.unlink(missing_ok=True)
    call(make_splits, "--data", path, *options)
    return pd.read_csv(output, dtype=str, keep_default_na=False) if output.exists() else None


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
    assert printed.count("\n") == 1 + 1 + 1 + 40 + 1 and str(tmp_path / "data_resplit.csv") in printed


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
    floats = table.assign(held_out=(table["held_out"] == "True").astype(float))  # of pandas: 1.0 and 0.0
    assert run_main(floats, tmp_path, "--test_from", "held_out", "--n_splits", 3)["split0"].equals(result["split0"])
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
    run_main(cohort(), tmp_path, "--n_splits", 2, "--output", tmp_path / "new" / "mine.csv")
    run_main(cohort(), tmp_path, "--n_splits", 2, "--output", tmp_path / "folder")
    run_main(cohort(), tmp_path, "--n_splits", 2)
    expected = (tmp_path / "data_resplit.csv").read_bytes()
    assert (tmp_path / "new" / "mine.csv").read_bytes() == expected
    assert (tmp_path / "folder" / "data_resplit.csv").read_bytes() == expected
    assert f"--images {tmp_path}" in capsys.readouterr().out


def test_output_that_is_there_is_not_replaced_unasked(tmp_path):
    """Networks trained on the old splits would be tested on scans that they know."""
    cohort().to_csv(tmp_path / "data.csv", index=False)
    asked = ("--data", tmp_path / "data.csv", "--n_splits", 2)
    call(make_splits, *asked)
    before = (tmp_path / "data_resplit.csv").read_bytes()
    call(make_splits, *asked)  # the same again: nothing changes
    assert (tmp_path / "data_resplit.csv").read_bytes() == before
    with pytest.raises(InputError, match=r"data_resplit\.csv: is there, with other rows or splits.*--overwrite"):
        call(make_splits, *asked, "--seed", 1)
    assert (tmp_path / "data_resplit.csv").read_bytes() == before
    call(make_splits, *asked, "--seed", 1, "--overwrite")
    assert (tmp_path / "data_resplit.csv").read_bytes() != before


def test_check_patients():
    table = pd.DataFrame({"patient_id": ["a", "a", "b"], "scan_id": ["1", "2", "3"],
                          "split0": ["train", "train", "val"], "split1": ["train", "test", "val"]})
    assert check_patients(table, ["split0"]) is None
    with pytest.raises(InputError, match="patient_id a is in test and train of split1"):
        check_patients(table, ["split0", "split1"])
    check_patients(table.drop(columns="patient_id"), ["split0", "split1"])  # scan by scan nothing is split


def test_check_option(tmp_path, capsys):
    good = run_main(cohort(), tmp_path, "--n_splits", 2)
    (tmp_path / "data_resplit.csv").unlink()
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
    with pytest.raises(InputError, match="cal in some splits only"):
        run_main(good.assign(split1=good["split1"].replace("val", "cal")), tmp_path, "--check")
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
    assert "of 20 splits the same as an earlier one" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--test", "0.6", "--val", "0.4"], ["--val", "0"], ["--test", "1.5"],
                                     ["--n_splits", "0"], ["--data", "nowhere.csv"]])
def test_bad_arguments_end_the_process_with_2_and_one_line(tmp_path, options):
    cohort().to_csv(tmp_path / "data.csv", index=False)
    assert options[-1] in error_line(run("make_splits.py", "--data", "data.csv", *options, cwd=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


# ---------------------------------------------------------------- cross-validation, calibration set, held-out groups

def kinds(result, name):
    """Patients with and without a positive scan in the set `name` of each split: [(with, without), ...]."""
    ill = result.astype({"target": int}).groupby("patient_id")["target"].max()
    of_patient = result.groupby("patient_id")[split_columns(result)].first()
    return [(int(ill[of_patient[column] == name].sum()), int((1 - ill[of_patient[column] == name]).sum()))
            for column in split_columns(result)]


@settings(max_examples=12)
@given(st.integers(30, 60), st.integers(2, 5), st.sampled_from([0, 0.1, 0.2]), st.integers(0, 2**40))
def test_folds(tmp_path_factory, n_patients, k, calibration, seed):
    table = cohort(n_patients, seed % 1000, share=0.6)
    options = ("--cv", k, "--val", 0.15, "--seed", seed) + ("--calibration", calibration) * bool(calibration)
    result = run_main(table, tmp_path_factory.mktemp("cv"), *options)
    columns = split_columns(result)
    assert columns == [f"split{fold}" for fold in range(k)]
    assert (result.groupby("patient_id")[columns].nunique() == 1).all(axis=None)
    cal = (result[columns] == "cal").any(axis=1)
    assert ((result[columns] == "cal").all(axis=1) == cal).all(), "the same in every split"
    assert ((result[columns] == "test").sum(axis=1) == (~cal).astype(int)).all(), "each scan once in test"
    ill = table.groupby("patient_id")["target"].max()
    for kind in (0, 1):
        count = (ill == 1 - kind).sum()  # of either kind, sets are as even as whole patients allow
        tested, held = ([each[kind] for each in kinds(result, name)] for name in ("test", "val"))
        assert max(tested) - min(tested) <= 1 and set(held) == {max(1, round(0.15 * count))}
        drawn = max(1, round(calibration * count)) if calibration else 0
        assert {each[kind] for each in kinds(result, "cal")} == {drawn}
    sizes = [result.loc[result[column] == "test", "scan_id"].nunique() for column in columns]
    assert max(sizes) - min(sizes) <= 2 * 2 + 3, "one to three scans a patient, dealt in order of their number"


def test_calibration_set_leaves_the_test_set_as_it_is(tmp_path, capsys):
    table = cohort(100)
    plain = run_main(table, tmp_path, "--n_splits", 3)
    result = run_main(table, tmp_path, "--n_splits", 3, "--calibration", 0.1)
    columns, ill = split_columns(result), table.groupby("patient_id")["target"].max()
    assert (result[columns] == "test").equals(plain[columns] == "test")
    assert set(kinds(result, "cal")) == {(round(0.1 * (ill == 1).sum()), round(0.1 * (ill == 0).sum()))}
    assert (result[columns] == "cal").T.drop_duplicates().shape[0] == 1
    lines = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert lines.count(["all", "cal"]) == 1 and lines.count(["all", "test"]) == 2
    again = run_main(result, tmp_path, "--check")
    assert again is None and run_main(result, tmp_path, "--test_from", "split0", "--overwrite") is not None


def with_centres(table, *sizes):
    """A column centre: so many of the table's patients in A, B, ..."""
    names = np.repeat([chr(65 + k) for k in range(len(sizes))], sizes)
    return table.assign(centre=[names[int(patient)] for patient in table["patient_id"]])


def centres_of(result, name):
    return [sorted(set(result.loc[result[column] == name, "centre"])) for column in split_columns(result)]


def test_one_centre_is_left_out_at_a_time(tmp_path, capsys):
    result = run_main(with_centres(cohort(60), 10, 25, 5, 20), tmp_path, "--group", "centre", "--cv", 4)
    assert centres_of(result, "test") == [["A"], ["B"], ["C"], ["D"]]
    for test, train, val in zip(*(centres_of(result, name) for name in ("test", "train", "val")), strict=True):
        assert set(train) | set(val) == set("ABCD") - set(test)
    printed = capsys.readouterr().out
    assert "centre: A" in printed and "--pooled_folds" in printed


@settings(max_examples=10)
@given(st.lists(st.integers(4, 20), min_size=4, max_size=7), st.integers(2, 3), st.integers(0, 2**40))
def test_folds_of_whole_centres(tmp_path_factory, sizes, k, seed):
    table = with_centres(cohort(sum(sizes), seed % 1000, share=0.8), *sizes)
    result = run_main(table, tmp_path_factory.mktemp("groups"), "--group", "centre", "--cv", k, "--seed", seed)
    tested = centres_of(result, "test")
    assert sorted(sum(tested, [])) == sorted(set(table["centre"])), "each centre in one fold"
    assert not any(set(a) & set(b) for name in ("train", "val") for a, b in zip(tested, centres_of(result, name),
                                                                                strict=True))


@settings(max_examples=30)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=7), st.floats(0.05, 0.9), st.integers(0, 1000))
def test_drawn_centres_come_nearest_to_the_share(sizes, share, seed):
    groups = pd.Series(np.repeat([chr(65 + k) for k in range(len(sizes))], sizes))
    chosen = splits.held_out(groups, [], share, np.random.default_rng(seed))
    names = set(groups[chosen])
    assert set(groups.index[groups.isin(names)]) == set(chosen) and 0 < len(chosen) < len(groups)
    several = (each for count in range(1, len(sizes)) for each in itertools.combinations(sizes, count))
    assert abs(len(chosen) - share * len(groups)) == pytest.approx(min(abs(sum(each) - share * len(groups))
                                                                       for each in several))


def test_held_out_centres(tmp_path):
    table = with_centres(cohort(60), 12, 28, 20)
    result = run_main(table, tmp_path, "--group", "centre", "--n_splits", 3, "--calibration", 0.1)
    assert centres_of(result, "test") == [["A"]] * 3, "12 of 60 is 0.2"
    cal = [frozenset(result.loc[result[column] == "cal", "scan_id"]) for column in split_columns(result)]
    assert len(set(cal)) == 1 and set(centres_of(result, "cal")[0]) <= {"B", "C"}
    named = run_main(table, tmp_path, "--group", "centre", "C", "A", "--n_splits", 2)
    assert centres_of(named, "test") == [["A", "C"]] * 2 and centres_of(named, "train") == [["B"]] * 2


def test_a_centre_of_one_class_is_warned_of_as_a_fold_and_refused_as_the_test_set(tmp_path, capsys):
    table = with_centres(cohort(60, share=0.8), 6, 24, 30)
    table.loc[table["centre"] == "A", "target"] = 0
    run_main(table, tmp_path, "--group", "centre", "--cv", 3)
    assert "warning: split0: its test set" in capsys.readouterr().out
    with pytest.raises(InputError, match="split0: its test set of .* none with target 1"):
        run_main(table, tmp_path, "--group", "centre", "A")


@pytest.mark.parametrize("options", [("--cv", 4), ("--calibration", 0.2), ("--group", "centre"),
                                     ("--group", "centre", "--cv", 2), ("--cv", 3, "--calibration", 0.1)])
def test_same_seed_same_sets_whatever_the_row_order(tmp_path, options):
    table = with_centres(cohort(60, share=0.6), 10, 20, 16, 14)
    first = run_main(table, tmp_path, *options)
    second = run_main(table.sample(frac=1, random_state=1), tmp_path, *options)
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.parametrize("options, message", [
    (("--cv", 5, "--n_splits", 5), "--cv and --n_splits"), (("--cv", 5, "--test", 0.2), "--cv and --test"),
    (("--cv", 5, "--test_from", "centre"), "--cv and --test_from"), (("--cv", 1), "two folds or more"),
    (("--group", "centre", "--test_from", "centre"), "--group and"), (("--test_from", "g", "--test", 0.3), "_from and"),
    (("--group", "centre", "A", "--cv", 3), "names what is tested"),
    (("--group", "centre", "A", "--test", 0.3), "names what is tested"),
    (("--group", "centre", "--cv", 3, "--calibration", 0.1), "leave out one of the three"),
    (("--check", "--val", 0.5), "--check with --val: the splits are those that --data has"),
    (("--group", "centre", "--cv", 4), "3 groups, .* enough for 3 folds"),
    (("--cv", 61), r"60 patients, \d+ patients with and \d+ without"),
    (("--group", "nowhere"), "no such column"), (("--group", "centre", "Z"), "no group Z; the groups are A, B, C"),
    (("--group", "centre", "A", "B", "C"), "all groups there are"), (("--group", "note"), "holds 0.10 only"),
    (("--group", "target"), "patients in several groups"),
    (("--calibration", 1.2), "--calibration 1.2; it is a share"), (("--calibration", 0.7), "leave nothing to train on"),
    (("--cv", 2, "--val", 0.5), "--test 0.5 and --val 0.5 leave nothing"),
])
def test_options_that_contradict_each_other_or_the_table(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        run_main(with_centres(cohort(60), 10, 30, 20), tmp_path, *options)
    assert not (tmp_path / "data_resplit.csv").exists()


def test_two_patients_make_no_two_folds(tmp_path):
    table = cohort(60)
    two = [table.loc[table["target"] == target, "patient_id"].iloc[0] for target in (0, 1)]
    with pytest.raises(InputError, match="1 patient with and 1 without a positive scan, are too few for two"):
        run_main(table[table["patient_id"].isin(two)], tmp_path, "--cv", 2)


def test_a_scan_without_centre_is_refused(tmp_path):
    table = with_centres(cohort(60), 10, 30, 20)
    for empty in (" ", "NA", "NaN"):
        table.loc[table["patient_id"] == "007", "centre"] = empty
        with pytest.raises(InputError, match="--group centre: is empty or NA for scan P007-0"):
            run_main(table, tmp_path, "--group", "centre")


@pytest.mark.parametrize("empty", ["", "NA", "nan", "#N/A"])
def test_a_scan_without_patient_is_refused(tmp_path, empty):
    """As a name, NA would be one patient of all such scans."""
    table = cohort(30)
    table.loc[table["patient_id"].isin(["007", "011"]), "patient_id"] = empty
    with pytest.raises(InputError, match="patient_id is empty or NA; fill it in"):
        run_main(table, tmp_path)


@pytest.mark.parametrize(("name", "other"), [("A", "a"), ("A 1", "A 01")])
def test_a_centre_under_two_spellings_is_refused(tmp_path, name, other):
    """Else one of its patients might be trained on, and another tested as of a centre unknown to it."""
    table = with_centres(cohort(60), 10, 30, 20).replace({"centre": {"A": name}})
    table.loc[table["patient_id"] == "007", "centre"] = other
    with pytest.raises(InputError, match=f"--group centre: '{name}' and '{other}': if this is one group, write it in"):
        run_main(table, tmp_path, "--group", "centre")


# ---------------------------------------------------------------- image_sha256

def write_images(table, folder, content):
    for name in table["filename"]:
        (folder / name).write_bytes(content(name))


def test_digests_are_those_of_the_images(tmp_path, capsys):
    table = cohort(20)
    write_images(table, tmp_path, lambda name: b"abc" if name == "P000-0_cor.bin" else name.encode())
    result = run_main(table, tmp_path, "--n_splits", 2)
    digests = result.set_index("filename")["image_sha256"]
    assert digests["P000-0_cor.bin"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    assert all(digests[name] == hashlib.sha256(name.encode()).hexdigest() for name in digests.index[1:])
    assert list(result.columns[-3:]) == ["image_sha256", "split0", "split1"]
    some = table.assign(image_sha256=["given", "", "other"] + [""] * (len(table) - 3))
    assert "warning" not in capsys.readouterr().out
    for name in table["filename"][:2]:
        (tmp_path / name).unlink()
    partly = run_main(some, tmp_path, "--n_splits", 2).set_index("filename")["image_sha256"]
    assert list(partly.iloc[:2]) == ["given", ""] and partly.iloc[2:].equals(digests.iloc[2:])
    out = capsys.readouterr().out
    assert f"warning: not in {tmp_path}: 1 of {len(table)} images ({table['filename'][1]})" in out
    assert f"1 of {len(table)} images in {tmp_path} are not those that the manifest was written for " \
        f"({table['filename'][2]})" in out
    (tmp_path / "elsewhere").mkdir()
    moved = run_main(table, tmp_path, "--n_splits", 2, "--images", tmp_path / "elsewhere")
    assert (moved["image_sha256"] == "").all() and moved.drop(columns="image_sha256").equals(
        result.drop(columns="image_sha256")), "a manifest without its images is split all the same"
    assert f"give --images {tmp_path / 'elsewhere'} with it" in capsys.readouterr().out


def test_one_image_under_two_names(tmp_path, capsys):
    table = cohort(40)
    good = run_main(table, tmp_path, "--n_splits", 2)
    first = {name: good.loc[good["split0"] == name, "filename"].iloc[0] for name in ("train", "test")}
    write_images(table, tmp_path, lambda name: b"one" if name in first.values() else name.encode())
    with pytest.raises(InputError, match=r"scans P\S+ \(\w+\) and P\S+ \(\w+\) of split0 have the same image, P"):
        run_main(table, tmp_path, "--n_splits", 2)
    with pytest.raises(InputError, match="have the same image"):
        run_main(good, tmp_path, "--check")
    copies = ("P000-0_cor.bin", "P000-0_sag.bin")
    write_images(table, tmp_path, lambda name: b"one" if name in copies else name.encode())
    run_main(table, tmp_path, "--n_splits", 2)
    assert "warning: under another name, too, and so counted twice: 1 image: P000-0_sag" in capsys.readouterr().out
    compare_images(table, tmp_path, "data.csv", [])  # of train.py, predict.py and the like
    assert "warning: under another name, too, and so counted twice: 1 image: P000-0_sag" in capsys.readouterr().out


def test_one_image_in_two_sets_of_a_manifest_that_is_older_than_its_images(tmp_path):
    table = pd.DataFrame({"scan_id": ["a", "b"], "filename": ["a_cor.bin", "b_cor.bin"], "image_sha256": ["1f", "2f"],
                          "split0": ["train", "val"]})
    write_images(table, tmp_path, lambda name: b"one")
    check_images(table, ["split0"])  # by what it says they are two
    with pytest.raises(InputError, match=r"scans a \(train\) and b \(val\) of split0 have the same image"):
        compare_images(table, tmp_path, "data.csv", [0])


def test_manifest_with_one_image_in_two_sets_is_refused_by_whoever_reads_it():
    table = pd.DataFrame({"scan_id": list("abc"), "filename": ["a_cor.bin", "b_cor.bin", "c_cor.bin"],
                          "image_sha256": ["1f", "1f", ""], "split0": ["train", "train", "val"],
                          "split1": ["train", "cal", "val"]})
    assert check_images(table, ["split0"]) is None
    with pytest.raises(InputError, match=r"scans a \(train\) and b \(cal\) of split1 have the same image, a_cor.bin"):
        check_images(table, ["split0", "split1"])
    check_images(table.assign(image_sha256=""), ["split1"])
    check_images(table.drop(columns="image_sha256"), ["split1"])
