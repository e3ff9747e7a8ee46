"""What a search prunes, refuses, or says of the runs that it starts from."""
import pandas as pd
import pytest
from conftest import call
from training_helpers import SMALL

import optun

pytestmark = pytest.mark.usefixtures("shallow")


def find(folder, *words):
    return call(optun, "--data", folder / "data.csv", "--output", folder / "results", "--splits", 0, 0, "--nepochs", 1,
                *SMALL, *words)


def test_warm_up_that_one_cycle_cannot_take_prunes(cohort):
    (cohort / "space.json").write_text('{"warmup_epochs": [0, 2]}')
    find(cohort, "--trials", 4, "--sampler", "random", "--lr_schedule", "onecycle", "--nepochs", 2,
         "--space", cohort / "space.json")
    found = pd.read_csv(cohort / "results" / "optuna_results_split0.csv")
    assert set(found["params_warmup_epochs"]) == {0, 2}
    assert ((found["state"] == "PRUNED") == (found["params_warmup_epochs"] == 2)).all()
    assert found["user_attrs_reason"].dropna().str.contains("--warmup_epochs 2: onecycle").all()
