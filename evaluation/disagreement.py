"""Where the models of an ensemble disagree, and what that is good for: size of the ensemble, referral to a human.

scores is (n, K) float: each model's score of each scan, NaN where a model lacks it.
"""
import itertools
import math

import numpy as np
import pandas as pd
from numpy import ndarray

SUBSETS = 200  # of each size; all where there are no more
REFERRED = (0.0, 0.1, 0.2, 0.3, 0.5)  # shares of scans that metrics.json lists


def per_scan(scores: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """How far the models agree on each scan.

    Returns
    -------
    DataFrame
        By scan_id: sd (of the models' scores, n - 1; NaN of one model), vote_share (of models at or above the
        threshold), consistency (share that votes with the majority), n_models.
    """
    count = scores.notna().sum(axis=1)
    votes = (scores >= threshold).sum(axis=1) / count
    return pd.DataFrame({"sd": scores.std(axis=1), "vote_share": votes, "consistency": np.maximum(votes, 1 - votes),
                         "n_models": count})


def disagreement_list(scans: pd.DataFrame, scores: pd.DataFrame, prob: pd.Series, threshold: float) -> pd.DataFrame:
    """The table of disagreement.csv: every scan, those first where the models disagree most."""
    about = pd.DataFrame({"target": scans["target"].astype("Int64"), "ensemble_prob": prob})
    table = about.join(per_scan(scores, threshold)).reset_index(names="scan_id")
    return table.sort_values(["sd", "scan_id"], ascending=[False, True], kind="stable", ignore_index=True)


def subsets_of(models: int, size: int, seed: int) -> ndarray:
    """All subsets of `size` of so many models, or 200 different random ones: (m, size) int array."""
    if math.comb(models, size) <= SUBSETS:
        return np.array(list(itertools.combinations(range(models), size)))
    rng = np.random.default_rng((seed, size))
    found: set[tuple[int, ...]] = set()
    while len(found) < SUBSETS:
        found.add(tuple(sorted(rng.choice(models, size, replace=False).tolist())))
    return np.array(sorted(found))


def auc_by_size(scores: pd.DataFrame, y_true: ndarray, how: str = "mean", seed: int = 0) -> list[dict]:
    """AUC against the number of models, over the scans that every model has: all subsets are measured on the same.

    Returns
    -------
    list of dict
        size, n_subsets, n_scans, mean, low, high (2.5 and 97.5 %), min, max. The spread is over the choice of models,
        not over patients. Empty where those scans are not of both classes.
    """
    values, y = np.asarray(scores, dtype=float), np.asarray(y_true, dtype=bool)
    whole = ~np.isnan(values).any(axis=1)
    values, y, combined = values[whole], y[whole], getattr(np, how)
    curve: list[dict] = []
    for size in range(1, values.shape[1] + 1) if y.any() and not y.all() else ():
        subsets = subsets_of(values.shape[1], size, seed)
        aucs = np.array([_auc(y, combined(values[:, members], axis=1)) for members in subsets])
        low, high = np.quantile(aucs, [0.025, 0.975]).tolist()
        curve.append({"size": size, "n_subsets": len(aucs), "n_scans": len(y), "mean": float(aucs.mean()),
                      "low": low, "high": high, "min": float(aucs.min()), "max": float(aucs.max())})
    return curve


def _auc(y, score):
    negative, positive = np.sort(score[~y]), np.sort(score[y])
    wins = sum(np.searchsorted(negative, positive, side).sum() for side in ("left", "right"))  # ties count half
    return wins / (2 * len(positive) * len(negative))


def doubts(scores: pd.DataFrame, probability: ndarray, threshold: float) -> dict[str, ndarray]:
    """{label: (n,) float}: what sends a scan to a human first, the largest first."""
    found, sd = {"probability nearest 0.5": -abs(probability - threshold)}, per_scan(scores, threshold)["sd"]
    if sd.notna().any():
        found["largest SD between models"] = sd.fillna(0).to_numpy()
    return found


def selective_accuracy(correct: ndarray, doubt: ndarray) -> tuple[ndarray, ndarray]:
    """Accuracy of the scans that are kept when the most doubtful go to a human.

    El-Yaniv R, Wiener Y. J Mach Learn Res 2010;11:1605-41; Geifman Y, El-Yaniv R. NeurIPS 2017.

    Parameters
    ----------
    correct : (n,) bool array
    doubt : (n,) float array
        The larger, the sooner referred. Scans of equal doubt share their accuracy, so that the result does not depend
        on the order of rows.

    Returns
    -------
    (n,) array
        Shares referred: 0, 1/n, ..., (n - 1)/n.
    (n,) array
        Accuracies of the others.
    """
    _, level = np.unique(doubt, return_inverse=True)
    share = np.bincount(level, weights=np.asarray(correct, dtype=float)) / np.bincount(level)
    places = np.arange(len(doubt))
    return places / len(doubt), (np.cumsum(share[np.sort(level)]) / (places + 1))[::-1]


def selective_summary(correct: ndarray, doubt: ndarray) -> list[dict]:
    """`selective_accuracy` at the largest share that does not exceed each of REFERRED: referred, n_kept, accuracy."""
    referred, accuracy = selective_accuracy(correct, doubt)
    n, rows = len(referred), dict.fromkeys(int(np.floor(share * len(referred) + 1e-9)) for share in REFERRED)
    return [{"referred": float(referred[k]), "n_kept": n - k, "accuracy": float(accuracy[k])} for k in rows]
