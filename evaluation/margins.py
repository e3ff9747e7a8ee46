"""Non-inferiority and equivalence of the first of two ensembles, by the two-sided 95 % interval of a difference.

The first is non-inferior where the interval lies above -margin, equivalent where it lies within +-margin: one-sided
tests at 2.5 % each. Schuirmann DJ. J Pharmacokinet Biopharm 1987;15:657-80; Piaggio G et al. JAMA 2012;308:2594-604
(CONSORT).
"""
from common.files import InputError

PRIMARY = {"auc": "delong", "accuracy": "accuracy", "sensitivity": "sensitivity", "specificity": "specificity"}


def check_primary(primary: str | None, margin: float | None) -> None:
    """Raise InputError where a margin is not one, or belongs to no difference."""
    if margin is not None and primary is None:
        raise InputError(f"--margin {margin:g}: of which difference? give --primary, such as --primary auc")
    if margin is not None and not 0 < margin < 1:
        raise InputError(f"--margin {margin:g}: give the largest difference that does not matter, such as 0.05")


def verdict(low: float | None, high: float | None, margin: float) -> dict:
    """What the interval low..high of a difference, the larger the better, says of the first ensemble.

    Returns
    -------
    dict
        margin; non_inferior, equivalent, superior, inferior (bool, None without interval); text.
    """
    names = ("non_inferior", "equivalent", "superior", "inferior")
    if low is None or high is None:
        return {"margin": margin, **dict.fromkeys(names), "text": f"not judged at a margin of {margin:g}: no interval"}
    found = dict(zip(names, (low > -margin, -margin < low and high < margin, low > 0, high < -margin), strict=True))
    said = [name.replace("_", "-") for name, holds in found.items() if holds] or ["not shown to be non-inferior"]
    return {"margin": margin, **found, "text": f"{' and '.join(said)} at a margin of {margin:g}"}


def name_primary(pairs: list[dict], primary: str | None, margin: float | None) -> dict | None:
    """Mark the primary test of each pair of `comparison.compare`: {metric, test, margin}, or None without one.

    Its entry gets primary, a text for tables, and with a margin `verdict`.
    """
    if primary is None:
        return None
    test = PRIMARY[primary]
    for pair in pairs:
        entry = pair[test]
        entry["primary"] = "primary"
        if margin is not None:
            entry["verdict"] = verdict(entry["ci_low"], entry["ci_high"], margin)
            entry["primary"] += f": {entry['verdict']['text']}"
    return {"metric": primary, "test": test, "margin": margin}
