"""A number with its interval: as an entry of metrics.json, and as a text.

An entry is {value, ci_low, ci_high, ci_method[, bootstrap][, reason]}. What the scans cannot give is None, with the
reason. `bootstrap` is the bootstrap's interval (see `bootstrap.bca_interval`), where ci_low and ci_high are another's.
"""
NO_ECE_INTERVAL = "too high in small samples, and higher in resamples of them"


def estimate(value: float, low: float | None, high: float | None, method: str | None,
             bootstrap: dict | None = None) -> dict:
    """An entry of metrics.json."""
    entry = {"value": float(value), "ci_low": low, "ci_high": high, "ci_method": method}
    return entry if bootstrap is None else entry | {"bootstrap": bootstrap}


def no_estimate(reason: str) -> dict:
    """The entry of a number that these scans cannot give."""
    return {"value": None, "ci_low": None, "ci_high": None, "ci_method": None, "reason": reason}


def bootstrap_estimate(value: float, interval: dict) -> dict:
    """The entry of a number whose interval is the bootstrap's."""
    entry = estimate(value, interval["low"], interval["high"], interval["method"])
    return entry | ({"reason": interval["reason"]} if interval["reason"] else {})


def short_text(entry: dict) -> str:
    """An entry as `0.951 (0.877–0.981)`, for the terminal and figures."""
    if entry["value"] is None:
        return "none"
    interval = "no interval" if entry["ci_low"] is None else f"{entry['ci_low']:.3f}–{entry['ci_high']:.3f}"
    return f"{entry['value']:.3f} ({interval})"


def long_text(entry: dict | None, digits: int = 3) -> str:
    """An entry as `0.951 (0.877 to 0.981)`, or why there is none, for pages."""
    if entry is None or entry["value"] is None:
        return f"none: {entry['reason']}" if entry else "none"
    value, low, high = ("" if entry[key] is None else f"{entry[key]:z.{digits}f}".replace("-", "−")
                        for key in ("value", "ci_low", "ci_high"))
    if low:
        return f"{value} ({low} to {high})"
    return value if entry["reason"] == NO_ECE_INTERVAL else f"{value} (no interval: {entry['reason']})"


def difference_text(entry: dict) -> str:
    """A test's difference as `+0.021 (−0.010 to +0.052)`; "" for a test that has none."""
    if entry.get("difference") is None:
        return "none" if "difference" in entry else ""
    interval = "no interval" if entry["ci_low"] is None else f"{entry['ci_low']:+z.3f} to {entry['ci_high']:+z.3f}"
    return f"{entry['difference']:+z.3f} ({interval})".replace("-", "−")


def p_text(p: float | None) -> str:
    return "none" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"
