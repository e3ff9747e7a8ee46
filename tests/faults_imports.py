"""What every script imports, before the first one runs: see faults_helpers.py."""
import os

os.environ["OMP_NUM_THREADS"] = "1"
import encodings.cp1252
import encodings.unicode_escape
import encodings.utf_8_sig
import encodings.utf_16  # noqa: F401
import multiprocessing.popen_fork  # noqa: F401

import matplotlib.figure  # noqa: F401
import optuna  # noqa: F401
import torch

import aggregate  # noqa: F401
import explain  # noqa: F401
import find_best_model  # noqa: F401
import make_splits  # noqa: F401
import optun  # noqa: F401
import predict  # noqa: F401
import prepro_script  # noqa: F401
import score  # noqa: F401
import train  # noqa: F401
import train_loca  # noqa: F401
from evaluation import (  # noqa: F401
    aggregation,
    calibration_curve,
    centres,
    checklists,
    cohorts,
    decision_curve,
    ensemble,
    failures,
    figures,
    flow_diagram,
    operating_points,
    outputs,
    overlap,
    predictive_values,
    primary,
    prognosis,
    provenance,
    readers,
    report,
    selection,
    site_ensemble,
    survival_figures,
)
from inference import heat_maps, overlays, pointing_game, prediction  # noqa: F401
from preprocessing import tables  # noqa: F401
from search import space, worker  # noqa: F401
from training import runs  # noqa: F401

torch.set_num_threads(1)
