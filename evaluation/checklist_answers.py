"""What a run of aggregate.py can say to the items of a reporting checklist: what it read and computed, no more.

An answer has a name, which tripod_ai.csv and claim.csv give to the items that it belongs to. What was not read (a
manifest without --data, settings without settings_splitS_runR.json, a view without its column) is the author's.
"""
from common.digests import NOT_CHECKED
from common.manifest import LEAKAGE, LEAKED
from common.text import counted
from evaluation.centres import others_text
from evaluation.derivation import VALIDATION
from evaluation.ensemble import ENSEMBLES


def answers(metrics: dict, flow: dict, settings: list[dict]) -> dict[str, str]:
    """{name of an answer: what this run says, then what is left to the author}; an answer without a name is theirs.

    Parameters
    ----------
    metrics : dict
        What metrics.json holds.
    flow, settings
        Of `provenance.cohort_flow` and `provenance.models_settings`.
    """
    found = _of_scans(metrics, flow) | _of_manifest(metrics, flow)
    found |= _of_analysis(metrics) | _of_models(metrics, settings)
    if LEAKAGE in metrics["overlap"] or flow["manifest"] and flow["manifest"]["leaks"]:
        found["apart"] = ("; ".join(filter(None, (f"Not apart: {LEAKED}", _seen(metrics)))),
                          "what is in two sets: the page's head, and why")
    return {name: f"{text}." + (f" For the author: {rest}." if rest else "") for name, (text, rest) in found.items()}


def _of_scans(metrics, flow):
    measured, about, views = metrics["avg"], metrics["validation"], list(metrics["views"])
    patients = "" if metrics["n_patients"] is None else f" of {counted(metrics['n_patients'], 'patient')}"
    counts = f"{counted(measured['n'], 'scan')}, {measured['n_positive']} with Deauville 4-5"
    unlabelled, lacking = metrics["n_scans"] - measured["n"], len(metrics["scans_lacking_a_model"])
    thresholds = f"{about['source']}, {counted(about['n_scans'], 'scan')}" if about["source"] else "none but 0.5"
    others, endpoints = others_text(metrics), ", ".join(metrics.get("prognosis", {}))
    also = f"; other cohorts: {others}" if others else ""
    found = {
        "sources": (f"{counted(measured['n'], 'scan')}{patients} measured, counted in section Participants{also}",
                    "origin, whom they represent"),
        "outcome": (f"Target 1 is Deauville 4-5, 0 is 1-3{f'; {endpoints}: section Prognosis' if endpoints else ''}",
                    "who read it, when, how, blinded to what"),
        "sample_size": (f"{counts}, are measured{also}", "how the size was chosen"),
        "numbers": (f"Measured: {counts}{also}; thresholds: {thresholds}; sets: section Participants",
                    "what is missing there"),
        "missing": (f"{counted(lacking, 'scan')} without a model's prediction, averaged over the other models; "
                    f"{unlabelled} without label, not measured", "why"),
        "subset": (f"Measured: set {metrics['set']}; without label: {counted(unlabelled, 'scan')}", "selection before "
                                                                                                    "that"),
        "flow": (f"Section Participants, from {flow['source']}", "what came before")}
    if views:
        found["predictors"] = f"Images, of the views {', '.join(views)}", "acquisition, choice"
    if about["source"] == VALIDATION and not about.get("applied"):
        found["partition"] = ("Validation scans of each model: section Participants; no training scans were read "
                              "(--data)", "how the sets were drawn")
    if seen := _seen(metrics):
        found["apart"] = f"{seen[0].upper()}{seen[1:]}", "how the sets were drawn"
    return found


def _seen(metrics):
    """Of the measured scans, those that the models learned from; "" where it was not checked."""
    text = metrics["overlap"]["text"]
    return "" if text == NOT_CHECKED else f"measured scans that a model learned from, or whose patients: {text}"


def _of_manifest(metrics, flow):
    manifest, excluded, seen = flow["manifest"], flow["excluded"], _seen(metrics)
    if not manifest:
        return {}
    found: dict[str, tuple[str, str]] = {}
    facts = list(manifest["images"])
    if excluded is not None:
        facts.append(f"errors.csv beside the manifest lists {counted(sum(excluded.values()), 'refusal')}")
        found["exclusions"] = f"{facts[-1]}, by reason: section Participants", "eligibility"
        found["flow"] = f"Section Participants, from {flow['source']}; {facts[-1]}", "what came before"
    if facts:
        found["preparation"] = "; ".join(facts), "how the images were made, differences between groups"
    if manifest["acquisition"]:
        found["acquisition"] = f"{flow['source']} holds {', '.join(manifest['acquisition'])}", "protocol"
    groups = [name.removeprefix("SMD, ") for name in flow["table_one"] if name.startswith("SMD, ")]
    by = f"by {', '.join(groups)}, with differences and" if groups else "of all scans together, with"
    found["characteristics"] = (f"Table 1 (section Participants, table1.csv): {by} missing values",
                                "treatments, dates, what the manifest lacks")
    if manifest["splits"]:
        found["partition"] = (f"Columns {manifest['splits']} of {flow['source']}: section Participants",
                              "how the sets were drawn")
        level = "known patient" if manifest["patients"] else "scan"
        found["apart"] = (f"In {flow['source']} no {level} is in two sets of a split" + (f"; {seen}" if seen else ""),
                          "" if manifest["patients"] else "patients, which it does not name")
    if metrics["set"] != "all":
        found["internal"] = f"Set {metrics['set']} of {flow['source']}: section Results", "whether it is internal"
    return found


def _of_analysis(metrics):
    by, models, made = ", ".join(metrics["subgroups"]), metrics["models"], metrics["provenance"]
    method, source = metrics["recalibrate"], metrics["validation"]["source"]
    thresholds = f", and from thresholds derived from {source}: section Operating points" if source else ""
    others = others_text(metrics)
    fitted = f"{method}, fitted to {source}" if method else "none"
    found = {
        "measures": (f"Section Methods; {_primary(metrics.get('primary'))}", "why these"),
        "uncertainty": (f"Intervals of 95 % by {metrics['independent_unit']}: section Methods", ""),
        "updating": (f"Recalibration: {fitted}", "other updating"),
        "updated": ("Before and after recalibration: section Calibration" if method else "No recalibration",
                    "other updating"),
        "prediction": ("A model's score of a scan is the mean (LARS-avg) or maximum (LARS-max) over its views; "
                       + (f"then the {metrics['combine']} over {counted(len(models), 'model')}" if len(models) > 1 else
                          "one model, no ensemble"), "the code that predicts"),
        "output": (f"Probability of Deauville 4-5; positive from 0.5 on{thresholds}", "why"),
        "performance": (f"Section Results; subgroups: {by or 'none (--by)'}; other cohorts: "
                        f"{others or 'none (--cohort)'}", ""),
        "diagnostic": ("Sections Results and Operating points", ""),
        "failures": (f"{counted(metrics['avg']['fn'], 'false negative')} and "
                     f"{counted(metrics['avg']['fp'], 'false positive')} at 0.5, each listed: section Failures, "
                     "failures.csv; where models disagree: disagreement.csv", "why"),
        "code": (f"Evaluated with version {made['version']}, commit {made['commit'] or 'not known'}", "where it is")}
    groups = [f"Performance by {by}, and differences with Holm's adjustment: section Subgroups"] if by else []
    groups += [f"Performance in {others}, and differences from internal: section Cohorts"] if others else []
    if groups:
        found["clusters"] = "; ".join(groups), "which are clusters"
    if others:
        found["external"] = f"Cohorts {others}, as --cohort names them: section Cohorts", "settings, places"
    if len(models) > 1:
        views = " and views" * bool(metrics["views"])
        number = "; AUC by number of models: section Disagreement" * bool(metrics["avg"]["ensemble_size"])
        found["robustness"] = f"Models{views} alone: section Views and models{number}", "other analyses"
    if metrics.get("readers", {}).get("pairs"):
        found["variability"] = "Agreement between readers, and with the model: section Readers", "within readers"
    if metrics["warnings"]:
        many = counted(len(metrics["warnings"]), "warning")
        found["limitations"] = f"{many} at the head of the page", "what they mean, others"
    return found


def _primary(entry):
    if not entry:
        return "no primary one was declared (--primary)"
    at, of = (f" {word} {entry[key]}" if entry[key] else "" for word, key in (("at", "point"), ("in", "cohort")))
    return f"primary, declared with this run: {ENSEMBLES[entry['ensemble']]} {entry['metric']}{at}{of}"


def _of_models(metrics, settings):
    values = {row["name"]: " / ".join(dict.fromkeys(row["values"])) for row in settings}
    libraries = ", ".join(f"{name} {version}" for name, version in metrics["provenance"]["versions"].items())
    found = {"software": (f"Evaluated with {libraries}", "what else was used")}
    if metrics["selection"]["ranked"]:
        found["selection"] = f"{metrics['selection']['steps']['Models']}: section Models", "why so"

    def tell(answer, rest, *names, before="section Models: "):
        known = ", ".join(f"{name} {values[name]}" for name in names if name in values)
        if known:
            found[answer] = f"{before[0].upper()}{before[1:]}{known}", rest

    tell("imbalance", "why", "--balance", "--oversample")
    tell("network_input", "why", "input: frame", "input: norm", "input: pool")
    tell("training", "why, what else was tried", "--optimizer", "--lr", "--nepochs", "--early_stopping", "--augm",
         before=f"section Models: {counted(len(metrics['models']), 'model')}, ")
    tell("initialization", "why", "--weights", "--checkpoint")
    tell("specification", "where the weights can be had", "--cls_arch", "input: frame",
         before="section Models: ResNet34 of one channel, ")
    tell("software", "what else was used", *(name for name in values if name.startswith("version of ")),
         before=f"evaluated with {libraries}; models: ")
    return found
