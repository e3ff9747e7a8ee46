"""The TRIPOD+AI checklist of a report: what this run can say about each item, and what is left to the author.

tripod_ai.csv holds the items in short words of our own, and the name of the answer in `answers`, empty where the author
must answer. Collins GS et al. BMJ 2024;385:e078378.
"""
from pathlib import Path

from common.files import read_csv

AUTHOR = "The author."


def answered_items(metrics: dict, flow: dict, settings: list[dict]) -> list[tuple[str, str, str]]:
    """(item, what it asks for, what this run says of it or AUTHOR) of every item.

    Parameters
    ----------
    metrics : dict
        What metrics.json holds.
    flow, settings
        Of `provenance.cohort_flow` and `provenance.models_settings`.
    """
    found = answers(metrics, flow, settings)
    items = read_csv(Path(__file__).with_name("tripod_ai.csv"))
    return [(item, asks_for, found.get(answer, AUTHOR)) for item, asks_for, answer in items.itertuples(index=False)]


def answers(metrics, flow, settings):
    """{name of an answer: what this run says}; a name without one is left to the author."""
    measured, unit = metrics["avg"], metrics["independent_unit"]
    by = ", ".join(metrics["subgroups"])
    found = {
        "cohort": f"In part: section Cohort, from {flow['source']}.",
        "preparation": "In part: DICOM to SUV and MIPs by prepro_script.py, which refuses studies that give no "
                       "trustworthy SUV; its qc.html and errors.csv list them.",
        "outcome": "In part: Deauville 4–5 against 1–3, column target. Who read it, and how, is for the author.",
        "predictors": "Coronal and sagittal maximum intensity projections of the SUV of one FDG PET series; no others.",
        "no_judgement": "No predictor needs a reader's judgement.",
        "sample_size": f"In part: {measured['n']} scans, {measured['n_positive']} with Deauville 4–5, measured; see "
                       "Cohort. How the size was chosen is for the author.",
        "missing": f"{len(metrics['scans_lacking_a_model'])} scans lack a model's prediction and are averaged over the "
                   f"others; {metrics['n_scans'] - measured['n']} have no label and are left out.",
        "partition": f"{len(metrics['models'])} models, each with its own training and validation scans (Cohort); "
                     f"thresholds: {metrics['validation']['source'] or 'none but 0.5'}.",
        "model": "In part: ResNet34 with one input channel, an ensemble of them; settings under Models.",
        "measures": "Section Methods of this page.",
        "updating": f"Recalibration: {metrics['recalibrate'] or 'none'}.",
        "prediction": f"Per model the mean (LARS-avg) or maximum (LARS-max) over the views, then the "
                      f"{metrics['combine']} over the models.",
        "output": "Probability of Deauville 4–5; thresholds and where they come from: section Operating points.",
        "performance": f"Results; intervals by {unit}" + (f"; subgroups: {by}." if by else "; subgroups: none (--by)."),
    }
    if settings:
        values = {row["name"]: " / ".join(dict.fromkeys(row["values"])) for row in settings}
        balance, oversample = (values.get(name, "not stored") for name in ("--balance", "--oversample"))
        found |= {"imbalance": f"Weights by class (--balance): {balance}; repetition of the rarer class "
                               f"(--oversample): {oversample}.",
                  "specification": "In part: architecture and settings under Models; weights in the checkpoints.",
                  "code": "In part: the commit under Models."}
    if by:
        found |= {"heterogeneity": f"In part: performance by {by}.", "fairness": f"In part: performance by {by}."}
    return found
