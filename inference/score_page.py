"""score.html: one scan's page, or the index of many."""
import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import __version__
from common.files import read_csv
from common.html import write_page
from common.settings import plain
from common.text import some
from evaluation.model_card import INPUT, trained_row, values_text
from inference.prediction import Model
from inference.scoring import Scan, Scores

BINS = 40  # of the chart, over 0..1
WIDTH, HALF = 640, 70  # of the chart: pixels from 0 to 1, and from its middle to its highest bar


def write_scan(path: Path, scan: Scan, scores: Scores, about: dict[str, Any], picture: bytes, back: str = "") -> None:
    """The page of one scan.

    Parameters
    ----------
    about : dict
        Of `about_models`.
    picture : bytes
        PNG.
    back : str
        Where the index is, as a link; "": there is none.
    """
    calls = [(call.name, call.threshold if call.key != "label" else "", call.text) for call in scan.calls]
    write_page(path, "score.html", scan=scan, scores=scores, about=about, back=back, version=__version__, calls=calls,
               picture=base64.b64encode(picture).decode(), chart=chart_of(scan, scores.reference.get("scores")))


def write_index(path: Path, scores: Scores, pages: dict[str, str], refused: Sequence[dict],
                about: dict[str, Any]) -> None:
    """The index of many scans; `pages`: {scan: path from the index}, `refused`: rows of errors.csv."""
    calls = [call.name for call in scores.scans[0].calls]
    columns = [("Scan", False), ("Probability", True), ("SD", True), *((f"At {name}", False) for name in calls),
               ("Uptake, min", True), ("Highest SUV", True), ("Scanner", False), ("Warnings", True)]
    rows = [(pages[scan.scan_id], _cells(scan), scan.warnings) for scan in scores.scans]
    write_page(path, "scores.html", scores=scores, columns=columns, rows=rows, refused=len(refused), about=about,
               version=__version__)


def earlier_files(output: Path) -> list[str]:
    """What an earlier call of score.py wrote, by its scores.csv: paths below `output`."""
    if not (output / "scores.csv").exists():
        return []
    scans = read_csv(output / "scores.csv", ["scan_id"])["scan_id"]
    return ["score.html", "scores.csv", *(f"scans/{scan}.html" for scan in scans)]


def remove_stale(output: Path, earlier: Sequence[str], written: Sequence[str]) -> None:
    """Remove, and say so, what an earlier call wrote (of `earlier_files`) that is not `written`."""
    if stale := [name for name in earlier if name not in written and (output / name).exists()]:
        for name in stale:
            (output / name).unlink()
        print(f"removed, of an earlier call: {some(stale, 3)}")


def _cells(scan: Scan) -> list[tuple[str, Any]]:
    """(text, what it sorts by) of each column of the index but the last, the warnings."""
    known = {fact.name: fact.value for fact in scan.facts}
    spread = "" if np.isnan(scan.sd) else f"{scan.sd:.3f}"
    texts = [*(call.text for call in scan.calls), known["Uptake time"].removesuffix(" min"), known["Highest SUV"],
             known["Scanner"]]
    texts = ["" if text == "not stored" else text for text in texts]
    return [(scan.scan_id, scan.scan_id), (f"{scan.probability:.3f}", scan.probability), (spread, spread),
            *zip(texts, [*texts[:-2], texts[-2].partition(" ")[0], texts[-1]], strict=True)]  # SUV as a number


def about_models(models: Sequence[Model]) -> dict[str, Any]:
    """What pages say of the models: rows `trained` (epoch, validation AUC, scans), `inputs`, `versions`, `data`."""
    known = [model.content | {"split": model.split, "run": model.run, "value": model.content.get("auc"),
                              "input": plain(vars(model.batches.network_input))} for model in models]
    return {"trained": [trained_row(each) for each in known],
            "inputs": [(shown, values_text(each["input"][name] for each in known))
                       for name, shown in INPUT.items()],
            "versions": values_text(each.get("version") for each in known),
            "data": values_text(each.get("args", {}).get("data", "unknown").replace("\\", "/").rpartition("/")[2]
                                for each in known),
            "count": len(models)}


def chart_of(scan: Scan, reference: dict[str, Any] | None) -> dict[str, Any] | None:
    """The probability among the reference's: bars (x, y, width, height, class) and counts; None without reference."""
    if not reference:
        return None
    bars, counts, shares = [], [], {}
    for name in ("positive", "negative"):
        values = np.array(reference[name], float)
        shares[name] = np.histogram(values, BINS, (0, 1))[0] / max(len(values), 1)
        counts.append((len(values), int((values < scan.probability).sum())))
    highest = max(share.max() for share in shares.values()) or 1
    for name, share in shares.items():
        for k in np.flatnonzero(share):
            height = HALF * share[k] / highest
            places = WIDTH * k / BINS, HALF - height if name == "positive" else HALF, WIDTH / BINS - 1, height
            bars.append((*(round(place, 1) for place in places), name))
    return {"bars": bars, "at": round(WIDTH * scan.probability, 1), "width": WIDTH, "half": HALF, "counts": counts,
            "ticks": [(WIDTH * k // 5, f"{k / 5:g}") for k in range(6)], "source": reference["source"],
            "models": " to ".join(map(str, dict.fromkeys(reference["models_per_scan"])))}
