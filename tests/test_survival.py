"""Survival statistics against R's printed values, SciPy, scikit-learn, brute force, and by their properties."""
import numpy as np
import prognosis_helpers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import chi2, somersd
from sklearn.metrics import roc_auc_score

from evaluation import survival

# Remission in weeks of 42 children, Freireich et al., Blood 1963;21:699-716, as in R's MASS::gehan
MP6 = (np.array([10, 7, 32, 23, 22, 6, 16, 34, 32, 25, 11, 20, 19, 6, 17, 35, 6, 13, 9, 6, 10]),
       np.array([1, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0]))
PLACEBO = np.array([1, 22, 3, 12, 8, 17, 2, 11, 8, 12, 2, 5, 4, 15, 8, 23, 5, 11, 4, 1, 8])
GEHAN = (np.append(MP6[0], PLACEBO), np.append(MP6[1], np.ones(21, int)), np.repeat([0, 1], 21))

# R's survival::lung, its last 114 patients: days, death, age in years
LUNG_TIME = np.array("""524 13 212 524 288 363 442 199 550 54 558 207 92 60 551 543 293 202 353 511 267 511 371 387 457
337 201 404 222 62 458 356 353 163 31 340 229 444 315 182 156 329 364 291 179 376 384 268 292 142 413 266 194 320 181
285 301 348 197 382 303 296 180 186 145 269 300 284 350 272 292 332 285 259 110 286 270 81 131 225 269 225 243 279 276
135 79 59 240 202 235 105 224 239 237 173 252 221 185 92 13 222 192 183 211 175 197 203 116 188 191 105 174
177""".split(), int)
LUNG_EVENT = np.array(list(map(int, "1111111111111100111010111110110011111001110110010100111101100011100010001011111"
                                    "01000011100010100000010010000100000")))
LUNG_AGE = np.array("""54 76 49 68 66 80 75 60 69 72 70 66 50 64 77 48 59 53 47 55 67 74 58 56 54 56 73 74 76 65 57
53 71 54 82 59 70 60 62 53 55 69 68 62 63 56 62 44 69 63 64 57 60 46 61 65 61 58 56 43 53 59 56 55 53 74 60 39 66
65 51 45 72 58 64 53 72 52 50 64 71 70 63 64 52 60 64 73 63 50 63 62 55 50 69 59 60 67 69 64 65 65 41 76 70 57 67
71 76 77 39 75 66 58""".split(), int)
# AUC of age and its standard error: Score of R's riskRegression at times of deaths, timeROC (marginal, iid) between
# them, as in tests/benchmark_data/benchmark_auc.json of github.com/Novartis/torchsurv (commit 2c2f301), made by
# tests/benchmark_script/test_auc.R there. timeROC's later errors are left out: they come from a patched function, and
# differ from those of riskRegression beside them.
RISK_REGRESSION = """13 .7969 .1127  31 .8694 .0927  54 .8716 .0697  62 .8091 .0618  92 .6485 .0975  110 .6382 .0838
116 .6681 .0813  145 .5819 .0772  181 .5228 .0671  202 .4927 .0633  222 .5186 .0630  270 .5478 .0635  293 .5500 .0653
340 .4848 .0723  371 .4980 .0815  442 .5035 .0984  524 .3604 .1766  550 .1201 .0713""".split()
TIME_ROC = "119 .6681 .0813  161.6 .5615 .0757  184.2 .5285 .0670  255.8 .5228 -  286.4 .5455 -  335.4 .5045 -".split()


def studies(rng, n=40):
    """(time, event, x, group) with ties."""
    return (rng.integers(1, 15, n).astype(float), rng.integers(0, 2, n), rng.integers(0, 8, n) / 8,
            rng.integers(0, 2, n))


@st.composite
def cohorts(draw):
    """(time, event, x), with ties, at least one event."""
    n = draw(st.integers(3, 14))
    lists = [draw(st.lists(st.integers(low, high), min_size=n, max_size=n)) for low, high in ((0, 9), (0, 1), (0, 5))]
    time, event, x = (np.array(values) for values in lists)
    event[0] = 1
    return time.astype(float), event, x / 5


# ---------------------------------------------------------------- Kaplan-Meier, log-rank, Cox

def test_kaplan_meier_as_r_prints_it():
    """summary(survfit(Surv(time, cens) ~ treat, gehan, conf.type = "log-log")) of MASS: 6-MP."""
    curve = survival.kaplan_meier(*MP6)
    assert curve.time.tolist() == [6, 7, 10, 13, 16, 22, 23] and curve.at_risk.tolist() == [21, 17, 15, 12, 11, 7, 6]
    assert curve.survival == pytest.approx([.857, .807, .753, .690, .627, .538, .448], abs=5e-4)
    assert curve.low == pytest.approx([.620, .563, .503, .432, .368, .268, .188], abs=5e-4)
    assert curve.high == pytest.approx([.952, .923, .889, .849, .805, .747, .680], abs=5e-4)
    assert survival.median_time(curve)["value"] == 23
    entry = survival.survival_at(curve, 12, 35)
    assert entry["value"] == pytest.approx(.753, abs=5e-4) and entry["ci_low"] == pytest.approx(.503, abs=5e-4)
    assert survival.survival_at(curve, 36, 35)["value"] is None and survival.survival_at(curve, 5, 35)["value"] == 1
    placebo = survival.kaplan_meier(PLACEBO, np.ones(21))
    assert survival.median_time(placebo)["value"] == 8
    for time in (23, 52):  # summary(extend = TRUE): 0
        entry = survival.survival_at(placebo, time, 23)
        assert entry["value"] == 0 and entry["reason"] == "no patient is left at risk"


def test_log_rank_and_cox_as_r_prints_them():
    """survdiff: chisq 16.8; coxph (Efron): coef 1.5721, se 0.4124, exp(coef) 4.817 (2.147 to 10.81)."""
    test, ratio = survival.log_rank(*GEHAN), survival.cox(*GEHAN)
    assert test["chi2"] == pytest.approx(16.79, abs=5e-3) and test["expected"] == pytest.approx(10.75, abs=5e-3)
    assert [ratio[key] for key in ("log_hazard", "se")] == pytest.approx([1.5721, 0.4124], abs=5e-5)
    assert [ratio[key] for key in ("value", "ci_low", "ci_high")] == pytest.approx([4.817, 2.147, 10.81], abs=5e-3)


def test_cox_is_the_maximum_of_the_partial_likelihood():
    rng = np.random.default_rng(0)
    x, time, event = rng.normal(size=60), rng.exponential(size=60), rng.random(60) < 0.7
    time = time * np.exp(-x)

    def loss(beta):
        return -sum(beta * x[k] - np.log(np.exp(beta * x[time >= time[k]]).sum()) for k in np.flatnonzero(event))

    best = minimize_scalar(loss, (0, 1)).x
    ratio = survival.cox(time, event, x)
    assert ratio["log_hazard"] == pytest.approx(best, abs=1e-6)
    curvature = (loss(best + 1e-3) - 2 * loss(best) + loss(best - 1e-3)) / 1e-6
    assert ratio["se"] == pytest.approx(1 / np.sqrt(curvature), rel=1e-4)


def test_log_rank_is_the_score_test_of_cox():
    rng = np.random.default_rng(1)
    time, event, group = rng.exponential(size=50), rng.random(50) < 0.6, rng.integers(0, 2, 50)
    shares = np.array([group[time >= time[k]].mean() for k in np.flatnonzero(event)])
    score, information = (group[event.astype(bool)] - shares).sum(), (shares * (1 - shares)).sum()
    assert survival.log_rank(time, event, group)["chi2"] == pytest.approx(score**2 / information)


def test_proportional_hazards_are_told_from_others():
    rng = np.random.default_rng(2)
    kept = [survival.cox(*prognosis_helpers.proportional(rng))["p_proportional"] for _ in range(200)]
    assert 0.02 <= np.mean(np.array(kept) < 0.05) <= 0.09
    group = np.repeat([0, 1], 200)
    time = np.where(group, rng.uniform(4, 5, 400), rng.exponential(6, 400))
    assert survival.cox(time, np.ones(400), group)["p_proportional"] < 0.001


@pytest.mark.parametrize("time, event, group, reason", [
    ([1, 2, 3, 4], [0, 0, 0, 0], [0, 1, 0, 1], "no event"), ([1, 2, 3], [1, 1, 0], [1, 1, 1], "one group"),
    ([1, 2, 8, 9], [1, 1, 1, 1], [1, 1, 0, 0], "no finite"), ([1, 2, 3, 4], [1, 1, 0, 0], [1, 1, 0, 0], "no finite")])
def test_no_hazard_ratio_has_a_reason(time, event, group, reason):
    ratio = survival.cox(time, event, np.array(group))
    assert ratio["value"] is None and reason in ratio["reason"]


def test_median_follow_up_is_that_of_the_censorings():
    """Events at 1 and 4, censored at 2 and 3: 1, then 2/3 at 2 (three at risk) and 1/3 at 3."""
    curve = survival.kaplan_meier(np.array([1.0, 2, 3, 4]), np.array([False, True, True, False]))
    assert survival.median_time(curve)["value"] == 3


def test_limits_of_a_median_beside_the_step_to_0():
    """Events at 1 and 2: at 1 a half is left, within 0.5^exp(1.96 sqrt(0.5) / log 2) = 0.006 and 0.5^exp(-2) = 0.911.

    Of the step to 0 no upper limit is known: R's is NA.
    """
    def limits(time, event):
        entry = survival.median_time(survival.kaplan_meier(np.array(time, float), np.array(event)))
        return entry["value"], entry["ci_low"], entry["ci_high"]

    assert limits([1, 2], [True, True]) == (1, 1, None) and limits([3], [True]) == (3, 3, None)
    assert limits([1, 2, 3], ~np.array([True, False, False])) == (2, 2, None)  # follow-up: censored at 2 and 3
    late = np.isin(range(15), (3, 14))  # 11/12 are left at 12, within 0.539 and 0.988, and none at 33
    assert limits([7, 9, 11, 12, 14, 15, 16, 18, 20, 22, 24, 26, 28, 30, 33], late) == (33, 33, None)


# ---------------------------------------------------------------- C-index

@pytest.mark.parametrize("time, event, x, concordant, discordant, tied", [
    ([1, 2, 2, 2, 3, 4, 4, 4, 5, 2], [1, 0, 1, 0, 1, 0, 1, 1, 0, 1], [5, 5, 4, 4, 3, 3, 7, 6, 5, 4], 13, 13, 5),
    ([9, 13, 13, 18, 23, 28, 31, 34, 45, 48, 161], [1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 0],
     [1, 6, 2, 7, 3, 7, 3, 8, 4, 4, 5], 14, 24, 2)])
def test_concordance_counts_of_rs_survival(time, event, x, concordant, discordant, tied):
    """The pairs that tests/concordance.R of R's survival holds (lots of ties; aml, maintained)."""
    c, _ = survival.concordance(time, event, x)
    assert c == pytest.approx((concordant + tied / 2) / (concordant + discordant + tied))


def test_concordance_without_censoring_is_somers_d():
    rng = np.random.default_rng(3)
    time, x = rng.permutation(50) + 1.0, rng.integers(0, 9, 50)
    c, _ = survival.concordance(time, np.ones(50), x)
    assert c == pytest.approx((1 - somersd(time, x).statistic) / 2)


def weighted_concordance(time, event, x, w):
    pairs = [(i, j) for i in np.flatnonzero(event) for j in range(len(time))
             if time[i] < time[j] or (time[i] == time[j] and not event[j])]
    total = sum(w[i] * w[j] for i, j in pairs)
    return sum(w[i] * w[j] * ((x[i] > x[j]) + (x[i] == x[j]) / 2) for i, j in pairs) / total


def weighted_auc(time, event, x, w, t):
    """The estimator as Uno writes it, each patient with a weight: sums over all pairs."""
    def free(u):  # probability of no censoring before u
        share = 1.0
        for at in np.unique(time[event == 0]):
            if at < u:
                risk = w[(time > at) | ((time == at) & (event == 0))].sum()
                share *= 1 - w[(time == at) & (event == 0)].sum() / risk
        return share

    cases, controls = np.flatnonzero((time <= t) & (event == 1)), np.flatnonzero(time > t)
    weight = {i: w[i] / free(time[i]) for i in cases}
    won = sum(weight[i] * w[j] * ((x[i] > x[j]) + (x[i] == x[j]) / 2) for i in cases for j in controls)
    return won / (sum(weight.values()) * w[controls].sum())


def jackknife_error(statistic, n):
    """The infinitesimal jackknife by differences of the statistic in each weight."""
    step, ones = 1e-5, np.ones(n)
    slopes = [(statistic(ones + step * row) - statistic(ones - step * row)) / (2 * step) for row in np.eye(n)]
    return np.sqrt(np.square(slopes).sum())


@pytest.mark.parametrize("seed", range(4))
def test_errors_are_the_infinitesimal_jackknifes(seed):
    time, event, x, _ = studies(np.random.default_rng(seed))
    c, error = survival.concordance(time, event, x)
    assert c == pytest.approx(weighted_concordance(time, event, x, np.ones(40)))
    assert error == pytest.approx(jackknife_error(lambda w: weighted_concordance(time, event, x, w), 40), rel=1e-5)
    entry = survival.auc_at(time, event, x, 7)
    assert entry["value"] == pytest.approx(weighted_auc(time, event, x, np.ones(40), 7))
    error = jackknife_error(lambda w: weighted_auc(time, event, x, w, 7), 40) * np.sqrt(40 / 39)
    assert entry["se"] == pytest.approx(error, rel=1e-5)


# ---------------------------------------------------------------- AUC at a time

@pytest.mark.parametrize("t, value, error", [
    *zip(*[iter(RISK_REGRESSION)] * 3, strict=True), *zip(*[iter(TIME_ROC)] * 3, strict=True)])
def test_auc_at_a_time_as_r_prints_it(t, value, error):
    entry = survival.auc_at(LUNG_TIME, LUNG_EVENT, LUNG_AGE, float(t))
    assert entry["value"] == pytest.approx(float(value), abs=6e-5)
    if error != "-":
        assert entry["se"] == pytest.approx(float(error), abs=1.1e-4)  # timeROC's differs in the last digit


def test_auc_without_censoring_is_the_ordinary_one():
    rng = np.random.default_rng(4)
    time, x = rng.exponential(size=80), rng.integers(0, 9, 80)
    entry = survival.auc_at(time, np.ones(80), x, 0.5)
    assert entry["value"] == pytest.approx(roc_auc_score(time <= 0.5, x))
    assert (entry["n_cases"], entry["n_censored"]) == ((time <= 0.5).sum(), 0)


def test_auc_with_nobody_in_a_class_has_a_reason():
    assert "no event" in survival.auc_at([1, 2, 3], [0, 1, 0], np.arange(3), 1)["reason"]
    assert "followed" in survival.auc_at([1, 2, 3], [0, 1, 0], np.arange(3), 3)["reason"]
    apart = survival.auc_at([1, 2, 8, 9], [1, 1, 0, 0], np.array([4, 3, 2, 1]), 5)
    assert apart["value"] == apart["ci_high"] == 1 and 0.2 < apart["ci_low"] < 0.9 and "Newcombe" in apart["ci_method"]


# ---------------------------------------------------------------- properties

def everything(time, event, x, group):
    """Numbers of all statistics, NaN for none."""
    curve, ratio = survival.kaplan_meier(time, event), survival.cox(time, event, group)
    middle = float(np.median(time))
    found = [survival.concordance(time, event, x)[0], survival.log_rank(time, event, group)["chi2"], ratio["value"],
             ratio.get("p_proportional"), survival.median_time(curve)["value"],
             survival.survival_at(curve, middle, time.max())["value"], survival.auc_at(time, event, x, middle)["value"],
             survival.auc_at(time, event, x, middle).get("se")]
    return np.array([np.nan if value is None else value for value in found], dtype=float)


@given(cohorts(), st.randoms())
def test_order_of_patients_and_monotone_scores_change_nothing(cohort, random):
    time, event, x = cohort
    order = list(range(len(time)))
    random.shuffle(order)
    expected = everything(time, event, x, x > 0.5)
    other = everything(time[order], event[order], np.exp(3 * x[order]) - 7, x[order] > 0.5)
    np.testing.assert_allclose(other, expected, rtol=1e-6, atol=1e-9)


@given(cohorts())
def test_a_scale_of_time_changes_times_alone(cohort):
    time, event, x = cohort
    expected, other = everything(time, event, x, x > 0.5), everything(time * 4, event, x, x > 0.5)
    expected[4] *= 4  # the median
    np.testing.assert_allclose(other, expected, rtol=1e-6, atol=1e-9)


@given(cohorts())
def test_swapped_groups_and_scores_mirror(cohort):
    time, event, x = cohort
    group = x > 0.5
    one, two = everything(time, event, x, group), everything(time, event, -x, ~group)
    np.testing.assert_allclose(two[[0, 6]], 1 - one[[0, 6]], atol=1e-9)
    np.testing.assert_allclose(two[2], 1 / one[2], rtol=1e-5)
    np.testing.assert_allclose(two[[1, 4, 5]], one[[1, 4, 5]], rtol=1e-6, atol=1e-9)


@given(cohorts())
def test_intervals_hold_their_values(cohort):
    time, event, x = cohort
    curve = survival.kaplan_meier(time, event)
    entries = [survival.concordance_estimate(time, event, x), survival.auc_at(time, event, x, 4),
               survival.cox(time, event, x > 0.5), survival.survival_at(curve, 4, time.max())]
    for entry in entries:
        if entry["value"] is not None and entry["ci_low"] is not None:
            assert entry["ci_low"] <= entry["value"] <= entry["ci_high"]
        else:
            assert entry["reason"]
    assert (np.diff(curve.survival) < 0).all() and curve.events.sum() == event.sum()
    test = survival.log_rank(time, event, x > 0.5)
    assert test["p"] is None or chi2.sf(test["chi2"], 1) == test["p"]


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1, prognosis_helpers.FEW])
def test_coverage_of_survival_intervals(rate):
    """200 studies: of so many intervals, four standard errors of 95 % (6.2 points); 1000 are on the reference page.

    Of few events, those of the medians and of survival are left out: most studies have none.
    """
    for name, (share, without) in prognosis_helpers.coverage(200, rate).items():
        if rate == 1 or name.startswith(("AUC", "C-index", "hazard")):
            assert share >= 0.95 - 0.062 and without < 20, name
