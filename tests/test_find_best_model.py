import json

import pandas as pd
import pytest
from conftest import call, error_line
from conftest import run as process
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import find_best_model
from common.files import InputError
from inference.prediction import best_runs


def write_run(folder, split, run, aucs, checkpoint=True):
    """A convergence file as train.py writes it: epochs from 1, training AUC better than any validation AUC."""
    lines = ["epoch,split,metric,value"]
    for epoch, auc in enumerate(aucs, start=1):
        for part, value in (("train", 1.0), ("validation", auc)):
            lines += [f"{epoch},{part},loss,{1 / epoch}", f"{epoch},{part},auc,{value}", f"{epoch},{part},ber,0.99",
                      f"{epoch},{part},fpr,0.99", f"{epoch},{part},fnr,0.99"]
    (folder / f"convergence_split{split}_run{run}.csv").write_text("\n".join(lines) + "\n")
    if checkpoint:
        (folder / f"checkpoint_split{split}_run{run}.pth").write_bytes(b"weights")


def run_main(folder):
    return call(find_best_model, "--dir", folder)


def best(folder):
    table = pd.read_csv(folder / "best_run.csv")
    assert list(table.columns) == ["split", "run", "epoch", "metric", "value", "rank"]
    return [tuple(row) for row in table.itertuples(index=False)]


def test_best_epoch_best_run_and_rank(tmp_path, capsys):
    write_run(tmp_path, 0, 1, [0.5, 0.8, 0.7])
    write_run(tmp_path, 0, 2, [0.6, 0.81, 0.81])
    write_run(tmp_path, 3, 1, [0.9, 0.6])
    write_run(tmp_path, 10, 7, [0.4, 0.45, 0.4])
    assert run_main(tmp_path) is None
    assert best(tmp_path) == [(3, 1, 1, "auc", 0.9, 1), (0, 2, 2, "auc", 0.81, 2), (10, 7, 2, "auc", 0.45, 3)]
    printed = capsys.readouterr().out
    assert "0.81" in printed and str(tmp_path / "best_run.csv") in printed


def test_runs_that_were_trained_since_are_named(tmp_path, capsys):
    write_run(tmp_path, 0, 1, [0.8])
    write_run(tmp_path, 1, 1, [0.8])
    run_main(tmp_path)
    write_run(tmp_path, 0, 2, [0.7])
    best_runs(tmp_path)
    assert "warning" not in capsys.readouterr().out
    write_run(tmp_path, 1, 2, [0.9])
    write_run(tmp_path, 2, 1, [0.5])
    write_run(tmp_path, 3, 1, [0.5], checkpoint=False)
    best_runs(tmp_path, [0, 1])
    said = capsys.readouterr().out
    assert "by the logs beside it split 1 run 2, split 2 run 1 would now be the best of a split; find_best_" in said
    run_main(tmp_path)
    assert [run["run"] for run in best_runs(tmp_path)[0]] == [1, 2, 1] and "warning" not in capsys.readouterr().out


def test_ties_go_to_the_first_epoch_the_lowest_run_and_the_lowest_split(tmp_path):
    for split, run in ((2, 10), (2, 9), (1, 4)):
        write_run(tmp_path, split, run, [0.5, 0.75, 0.75])
    run_main(tmp_path)
    assert best(tmp_path) == [(1, 4, 2, "auc", 0.75, 1), (2, 9, 2, "auc", 0.75, 2)]


def test_runs_of_one_split_on_different_data_are_warned_of(tmp_path, capsys):
    """Run 3 after new labels; run 4 of train_loca.py, whose labels_hash is always another; run 5 of an old version; of
    split 1 run 2 after new images."""
    for run in range(1, 6):
        write_run(tmp_path, 0, run, [0.5])
        write_run(tmp_path, 1, run, [0.5])
        model = {"sites": {"1": "cervical"}} if run == 4 else {}
        for split, digest in ((0, "b" if run == 3 else "a"), (1, "a")):
            content = {"model": model, "labels_hash": digest + "sites" * (run == 4)} if run < 5 else {}
            content |= {"images_hash": digest + "new" * (split == 1 and run == 2)} if run != 1 else {}
            (tmp_path / f"settings_split{split}_run{run}.json").write_text(json.dumps(content))
    run_main(tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert [line.partition(" were")[0] for line in said] == [
        "warning: split 0: 2 runs (1-2) and 1 run (3)", "warning: split 0: 2 runs (2, 5) and 1 run (3)",
        "warning: split 1: 1 run (2) and 2 runs (3, 5)"]


def test_nan_never_wins(tmp_path, capsys):
    write_run(tmp_path, 0, 1, ["nan", 0.3, ""])
    write_run(tmp_path, 0, 2, ["nan", "nan"])
    assert run_main(tmp_path) == 1
    assert best(tmp_path) == [(0, 1, 2, "auc", 0.3, 1)]
    assert "convergence_split0_run2.csv: no epoch has a validation AUC" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["nan", ""])
def test_a_run_whose_selected_is_nowhere_known_is_left_out(tmp_path, capsys, value):
    write_run(tmp_path, 0, 1, [0.3, 0.4])
    write_run(tmp_path, 0, 2, [0.5, 0.6])
    with open(tmp_path / "convergence_split0_run2.csv", "a") as file:
        file.writelines(f"{epoch},validation,selected,{value}\n" for epoch in (1, 2))
    assert run_main(tmp_path) == 1 and best(tmp_path) == [(0, 1, 2, "auc", 0.4, 1)]
    assert "run2.csv: no epoch has a validation AUC, or a value of selected" in capsys.readouterr().err


def test_run_without_checkpoint_is_named_and_left_out(tmp_path, capsys):
    write_run(tmp_path, 0, 1, [0.7])
    write_run(tmp_path, 0, 2, [0.9], checkpoint=False)
    assert run_main(tmp_path) == 1
    assert best(tmp_path) == [(0, 1, 1, "auc", 0.7, 1)]
    assert "convergence_split0_run2.csv: there is no checkpoint_split0_run2.pth" in capsys.readouterr().err


def test_nothing_usable(tmp_path):
    write_run(tmp_path, 0, 1, [0.7], checkpoint=False)
    with pytest.raises(InputError, match="none of its 1 run is"):
        run_main(tmp_path)
    assert not (tmp_path / "best_run.csv").exists()


@pytest.mark.parametrize("text, message", [
    ("", "cannot be read"),
    ("epoch,split,value\n1,validation,0.5\n", "no column metric"),
    ("epoch,split,metric,value\n1,validation,auc,high\n", "line 2: epoch '1', value 'high'"),
    ("epoch,split,metric,value\nx,validation,auc,0.5\n", "line 2: epoch 'x'"),
    ("epoch,split,metric,value\n1,validation,auc,1.5\n", "line 2: validation AUC 1.5"),
    ("epoch,split,metric,value\n1,validation,auc,inf\n", "line 2: validation AUC inf"),
    ("epoch,split,metric,value\n1,validation,auc,0.5\n\n1,validation,auc,0.6\n", "line 4: .* is in line 2"),
    ("epoch,split,metric,value\n1,validation,auc,0.5,7\n", "line 2: has more fields"),
    ("epoch,split,metric,value\n1,validation,auc,0.5\n2,a,b,c,d\n", "line 3: has more fields"),
])
def test_bad_file_is_one_line(tmp_path, text, message):
    write_run(tmp_path, 0, 1, [0.9])
    (tmp_path / "convergence_split1_run1.csv").write_text(text)
    (tmp_path / "checkpoint_split1_run1.pth").write_bytes(b"weights")
    with pytest.raises(InputError, match=f"convergence_split1_run1.csv.*{message}"):
        run_main(tmp_path)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.tuples(st.integers(0, 3), st.integers(1, 3)),
                       st.lists(st.sampled_from([0.4, 0.5, 0.6, 0.7]), min_size=1, max_size=4), min_size=1))
def test_against_pandas(tmp_path_factory, runs):
    folder = tmp_path_factory.mktemp("runs")
    for (split, run), aucs in runs.items():
        write_run(folder, split, run, aucs)
    run_main(folder)
    flat = pd.DataFrame([(split, run, epoch, auc) for (split, run), aucs in runs.items()
                         for epoch, auc in enumerate(aucs, 1)], columns=["split", "run", "epoch", "value"])
    flat = flat.sort_values(["value", "run", "epoch"], ascending=[False, True, True]).drop_duplicates("split")
    flat = flat.sort_values(["value", "split"], ascending=[False, True]).reset_index(drop=True)
    got = pd.read_csv(folder / "best_run.csv")
    pd.testing.assert_frame_equal(got[["split", "run", "epoch", "value"]], flat)
    assert list(got["rank"]) == list(range(1, len(flat) + 1))


def test_exit_codes_of_the_process(tmp_path):
    assert "no convergence_splitS_runR.csv" in error_line(process("find_best_model.py", "--dir", tmp_path))
    write_run(tmp_path, 0, 1, [0.7])
    process("find_best_model.py", "--dir", tmp_path, check=0)
    write_run(tmp_path, 1, 1, [0.7], checkpoint=False)
    process("find_best_model.py", "--dir", tmp_path, check=1)


def test_unfinished_run_is_named(tmp_path, capsys):
    write_run(tmp_path, 4, 2, [0.5, 0.6])
    (tmp_path / "last_split4_run2.pth").touch()
    assert run_main(tmp_path) is None
    assert best(tmp_path) == [(4, 2, 2, "auc", 0.6, 1)]
    assert "warning: split 4 run 2 is not finished; train.py --resume" in capsys.readouterr().err
