"""The TRIPOD+AI checklist of a report: what this run can say about each item, and what is left to the author."""
AUTHOR = "The author."  # must answer
ITEMS = (  # in short words of our own, and the key of what `answers` says; Collins GS et al. BMJ 2024;385:e078378
    ("1", "Title: development or evaluation, of a prediction model, population, outcome", None),
    ("2", "Abstract, by TRIPOD+AI for Abstracts", None),
    ("3a", "Background: healthcare context and why the model is needed, existing models", None),
    ("3b", "Target population, purpose and place in care, intended users", None),
    ("3c", "Known inequalities in health between groups", None),
    ("4", "Objectives: development, evaluation or both", None),
    ("5a", "Sources of data, and how representative they are", "cohort"),
    ("5b", "Dates of the data", None),
    ("6a", "Setting: number and place of centres", None),
    ("6b", "Eligibility of participants", None),
    ("6c", "Treatments received", None),
    ("7", "Data preparation and quality checks", "preparation"),
    ("8a", "Outcome: definition, time, how it was assessed", "outcome"),
    ("8b", "Who assessed the outcome, their experience", None),
    ("8c", "Blinding of that assessment", None),
    ("9a", "Choice of predictors", "predictors"),
    ("9b", "Definition and measurement of predictors", "predictors"),
    ("9c", "Who assessed predictors that need judgement", "no_judgement"),
    ("10", "Sample size and how it was reached", "sample_size"),
    ("11", "Missing data", "missing"),
    ("12a", "How the data were used and divided", "partition"),
    ("12b", "How predictors were handled in the analysis", "predictors"),
    ("12c", "Type of model, all steps of building it, internal validation", "model"),
    ("12d", "Differences between clusters (hospitals, scanners)", "heterogeneity"),
    ("12e", "Measures and plots of performance, and why", "measures"),
    ("12f", "Updating of the model (recalibration)", "updating"),
    ("12g", "How the predictions were computed", "prediction"),
    ("13", "Class imbalance and what was done about it", "imbalance"),
    ("14", "Fairness: approaches and their reasons", "fairness"),
    ("15", "Output of the model: probabilities, classes, thresholds", "output"),
    ("16", "Differences between training and evaluation data", None),
    ("17", "Ethical approval and consent", None),
    ("18a", "Funding", None),
    ("18b", "Conflicts of interest", None),
    ("18c", "Protocol", None),
    ("18d", "Registration", None),
    ("18e", "Availability of data", None),
    ("18f", "Availability of code", "code"),
    ("19", "Involvement of patients and the public", None),
    ("20a", "Flow of participants", "cohort"),
    ("20b", "Characteristics of participants", None),
    ("20c", "Development and evaluation data compared", None),
    ("21", "Numbers of participants and outcomes in each analysis", "sample_size"),
    ("22", "The full model, so that others can predict with it", "specification"),
    ("23a", "Performance with intervals, also in subgroups", "performance"),
    ("23b", "Heterogeneity of performance between clusters", "heterogeneity"),
    ("24", "Results of updating", "updating"),
    ("25", "Interpretation, with fairness, in context", None),
    ("26", "Limitations", None),
    ("27a", "Handling of poor or missing input in use", "preparation"),
    ("27b", "What users must do and know", None),
    ("27c", "Next steps of research", None),
)


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
    return [(item, text, found.get(key, AUTHOR)) for item, text, key in ITEMS]


def answers(metrics, flow, settings):
    """{key of ITEMS: what this run can say about it}; keys without an answer are left to the author."""
    measured, unit = metrics["avg"], metrics["independent_unit"]
    by = ", ".join(metrics["subgroups"])
    found = {
        "cohort": f"In part: section Cohort, from {flow['source']}.",
        "preparation": "In part: DICOM to SUV and MIPs by prepro_script.py, which refuses studies that give no "
                       "trustworthy SUV; its qc.html and errors.csv list them.",
        "outcome": "In part: Deauville 4–5 against 1–3, column target. Who read it and how is the author's.",
        "predictors": "Coronal and sagittal maximum intensity projections of the SUV of one FDG PET series; no others.",
        "no_judgement": "No predictor needs a reader's judgement.",
        "sample_size": f"In part: {measured['n']} scans, {measured['n_positive']} with Deauville 4–5, measured; see "
                       "Cohort. Why so many is the author's.",
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
