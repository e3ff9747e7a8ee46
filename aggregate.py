"""Average the predictions of several models into one score per scan, and measure it: tables, figures, report.html.

python aggregate.py --dir results --output results             # every pred_splitS_runR.csv in results
python aggregate.py --dir results --output results --top 10    # the ten best by best_run.csv
python aggregate.py --dir results --output results --data data.csv --by view sex --recalibrate platt
python aggregate.py --dir new --output new --operating_points results/operating_points.json   # new patients

LARS-avg: per model the mean over a scan's views; LARS-max: their maximum; then the mean over the models. Thresholds and
recalibration come from validation predictions (predict.py --set val test), a scan's from the models that did not train
on it. Writes ensemble_avg.csv, ensemble_max.csv and disagreement.csv, and, where the scans have targets, metrics.json,
operating_points.json, figures (PNG, SVG) and report.html. LARS's own files (scan_id, target, probs) are read too. Of
predict_loca.py's files the lesion sites, too: ensemble_sites.csv (mean over views and models) and site_metrics.csv.
"""
import json
from pathlib import Path

from common.arguments import Parser, natural_int, positive_int, run_script
from common.files import InputError, progress, write_csv, write_json
from common.manifest import SYNTHETIC

THRESHOLDS_ON_TEST = "OPTIMISTIC: thresholds{} were derived from the very scans that they are measured on."
SHOWN = ("auc", "accuracy", "sensitivity", "specificity")
FIGURES = ("roc", "precision_recall", "reliability", "decision_curve", "confusion", "scores", "ensemble_size",
           "selective")


def get_args_parser():
    parser = Parser(__doc__)
    group = parser.add_argument_group("input")
    group.add_argument("--dir", type=Path, default=Path("results"), help="folder of pred_splitS_runR.csv of "
                       "predict.py or predict_loca.py")
    group.add_argument("--set", choices=("train", "val", "test", "all"), help="rows to use, by the column `set` of "
                       "those files (default: test; all where the files hold nothing but that)")
    group.add_argument("--best_run", type=Path, metavar="FILE", help="ranking of the models by find_best_model.py "
                       "(default: best_run.csv in --dir, where it is there)")
    group.add_argument("--top", type=positive_int, metavar="K", help="use the K best models of that ranking "
                       "(default: every model in --dir)")
    group = parser.add_argument_group("scores, thresholds")
    group.add_argument("--combine", default="mean", choices=("mean", "median"), help="of the models' scores of a scan")
    group.add_argument("--recalibrate", choices=("platt", "isotonic"), help="map the ensembles' probabilities by the "
                       "validation predictions (default: leave them as they are)")
    group.add_argument("--operating_points", type=Path, metavar="FILE", help="apply the thresholds and recalibration "
                       "of an earlier run's operating_points.json instead of deriving them")
    group.add_argument("--threshold_on_test", action="store_true", help="derive thresholds (and recalibration) from "
                       "the scans that are measured; every output is then marked OPTIMISTIC")
    group = parser.add_argument_group("statistics")
    group.add_argument("--by", nargs="+", default=[], metavar="COLUMN", help="subgroups by these columns of the "
                       "prediction files (view, scanner, sex, ...); numbers are cut at their tertiles")
    group.add_argument("--resamples", type=positive_int, default=2000, metavar="N", help="of the bootstrap")
    group.add_argument("--seed", type=natural_int, default=0, help="of the bootstrap and of subsets of models")
    group = parser.add_argument_group("report")
    group.add_argument("--data", metavar="CSV", help="manifest, for the report's cohort flow (default: what the "
                       "prediction files hold)")
    group.add_argument("--chptfolder", type=Path, metavar="DIR", help="checkpoints, for the report's settings of every "
                       "model (default: --dir)")
    group = parser.add_argument_group("output")
    group.add_argument("--output", type=Path, default=Path("results"), help="folder to write to")
    return parser


def main(args):
    from evaluation import ensemble, site_ensemble

    models, warnings = ensemble.find_models(args.dir, args.best_run, args.top)
    wanted = ensemble.read_models(models, args.set, args.by)
    scans, more = ensemble.join_scans(models)
    warnings += more + set_warnings(wanted, scans)
    sites = site_ensemble.join_sites(args.dir, models, scans, warnings)
    source, about = derivation(args, models, scans, warnings)
    ensembles = {name: build(args, models, scans, name, source) for name in ensemble.ENSEMBLES}
    metrics = describe(args, models, scans, wanted, about, warnings)
    if scans["target"].notna().any():
        measure(args, models, scans, ensembles, metrics)
        if sites:
            metrics["sites"] = site_ensemble.measure(sites, scans, args.resamples, args.seed, warnings)
    else:
        warnings.append("no scan has a target: no metrics, no figures, no report")

    print(f"{wanted} set: {len(scans)} scans, {(scans['target'] == 1).sum()} with target 1, "
          f"{(scans['target'] == 0).sum()} with target 0; {len(models)} models")
    for line in warnings:
        print(f"warning: {line}")
    written = write_outputs(args, models, scans, ensembles, sites, metrics)
    if "avg" in metrics:
        print_table(metrics)
        print_sites(metrics)
    for line in filter(None, (metrics["notice"], metrics["optimistic"])):
        print(line)
    drawn = sum(path.suffix == ".png" for path in written)
    print(f"wrote to {args.output}: " + ", ".join(path.name for path in written if path.suffix not in (".png", ".svg"))
          + (f", {drawn} figures (.png, .svg)" if drawn else ""))


def set_warnings(wanted, scans):
    """What a reader of the numbers must know about the set they come from."""
    if scans["target"].isna().all():
        return []
    if wanted == "all":
        return ["set all: these numbers hold for new patients only if no model was trained or chosen on these scans"]
    done = {"train": "trained", "val": "chosen"}.get(wanted)
    return [f"set {wanted}: the models were {done} on these scans; the numbers are OPTIMISTIC"] if done else []


# ---------------------------------------------------------------- thresholds and recalibration

def derivation(args, models, scans, warnings):
    """Where thresholds and recalibration come from: ((models' rows to use, their scans) or the stored ones or None,
    what metrics.json says of it). Adds to `warnings`; InputError where what was asked for cannot be had."""
    from evaluation import ensemble

    if args.operating_points:
        if args.threshold_on_test or args.recalibrate:
            raise InputError("--operating_points: brings its own thresholds and recalibration; leave out "
                             "--threshold_on_test and --recalibrate")
        stored = read_operating_points(args, models, warnings)
        return stored, {"source": f"{args.operating_points.name} of an earlier run", **stored["derived_from"]}
    if args.threshold_on_test:
        labelled = scans[scans["target"].notna()]
        if labelled["target"].nunique() < 2:
            raise InputError("--threshold_on_test: the scans that are measured are not of both classes")
        return ("rows", labelled), {"source": "the scans that are measured", "n_scans": len(labelled)}
    found, about = ensemble.validation_scans(models, scans)
    if found is None:
        if args.recalibrate:
            raise InputError(f"--recalibrate {args.recalibrate}: {about['reason']}; run predict.py --set val test")
        if scans["target"].notna().any():
            warnings.append(f"no threshold but 0.5 is used, since {about['reason']}; predict.py --set val test writes "
                            "validation predictions (--threshold_on_test would be optimistic)")
        return None, {"source": None, **about}
    if about["left_out_because_measured"]:
        warnings.append(f"{about['left_out_because_measured']} validation scans are measured here, or are of patients "
                        "who are; no threshold was derived from them")
    return ("val_rows", found), {"source": "validation predictions", **about}


def read_operating_points(args, models, warnings):
    """operating_points.json of an earlier run, checked against this one."""
    path = args.operating_points
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        for name in ("avg", "max"):
            stored[name]["recalibration"], dict(stored[name]["thresholds"])
        combined, files, _ = stored["combine"], list(stored["models"]), stored["derived_from"]["source"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not an operating_points.json of aggregate.py ({error})") from None
    if combined != args.combine:
        raise InputError(f"{path}: was made with --combine {combined}, this run has {args.combine}; give the same")
    if files != [model["file"] for model in models]:
        warnings.append(f"{path.name} was made with other models ({len(files)}: {', '.join(files[:3])}, ...): its "
                        "thresholds may not fit these")
    return stored


def build(args, models, scans, name, source):
    """One ensemble: its models' scores, its probabilities before and after recalibration, its thresholds."""
    from evaluation import calibration, ensemble, metrics

    scores = ensemble.score_models(models, scans, name)
    raw = ensemble.combine(scores, args.combine)
    fit, points = None, {}
    if isinstance(source, dict):
        fit, points = source[name]["recalibration"], source[name]["thresholds"]
    elif source:
        rows_of, known = source
        y = known["target"].to_numpy(dtype=int)
        p = ensemble.combine(ensemble.score_models(models, known, name, rows_of), args.combine).to_numpy()
        fit = calibration.fit_recalibration(args.recalibrate, y, p) if args.recalibrate else None
        points = metrics.choose_thresholds(y, calibration.recalibrate(fit, p))
    return {"scores": scores, "raw": raw, "prob": raw.map(lambda p: float(calibration.recalibrate(fit, p))), "fit": fit,
            "points": points}


# ---------------------------------------------------------------- measuring

def describe(args, models, scans, wanted, about, warnings):
    """The part of metrics.json that needs no target."""
    from evaluation.metrics import CONFIDENCE

    synthetic, clustered = bool(scans["synthetic"].any()), "patient_id" in scans
    optimistic = [THRESHOLDS_ON_TEST.format(" and recalibration" if args.recalibrate else "")] * args.threshold_on_test
    optimistic += [about["optimistic"]] if about.get("optimistic") else []  # of an earlier run's thresholds
    optimistic += [f"OPTIMISTIC: {line}" for line in warnings if line.startswith(("set train", "set val"))]
    lacking = scans.index[scans["n_models"] < len(models)]
    return {"set": wanted, "synthetic": synthetic, "notice": SYNTHETIC if synthetic else None,
            "optimistic": " ".join(optimistic) or None, "n_scans": len(scans),
            "n_patients": int(scans["patient_id"].nunique()) if clustered else None,
            "independent_unit": "patient" if clustered else "scan", "confidence": CONFIDENCE, "combine": args.combine,
            "resamples": args.resamples, "seed": args.seed, "recalibrate": None, "validation": about,
            "warnings": warnings, "scans_lacking_a_model": {scan: int(scans.at[scan, "n_models"]) for scan in lacking}}


def measure(args, models, scans, ensembles, result):
    """Add every number to `result`, the dict of metrics.json."""
    from evaluation import calibration, disagreement, ensemble
    from evaluation.metrics import THRESHOLD

    warnings = result["warnings"]
    labelled = scans[scans["target"].notna()]
    if "patient_id" not in scans:
        warnings.append("the files have no patient_id: the intervals take scans as independent, which is too narrow "
                        "where a patient has several")
    y = labelled["target"].to_numpy(dtype=int)
    jobs = [(result.setdefault(name, {}), each["prob"], each["points"]) for name, each in ensembles.items()]
    result["views"], result["models"] = view_jobs(args, models, labelled, jobs), []
    for k, model in enumerate(models):
        entry = {key: model[key] for key in ("file", "split", "run", "rank")}
        entry |= {"n_scans": int(ensembles["avg"]["scores"].iloc[:, k].notna().sum())}
        result["models"].append(entry)
        jobs += [(entry.setdefault(name, {}), each["scores"].iloc[:, k].dropna(), {})
                 for name, each in ensembles.items()]
    result["subgroups"] = {column: subgroup_jobs(args, models, labelled, ensembles, column, jobs)
                           for column in dict.fromkeys(args.by)}
    with progress(jobs, "bootstrap", "set of scores") as bar:
        for entry, scores, points in bar:
            entry |= measure_one(args, labelled, scores, points)
    if result["avg"]["auc"]["value"] is None:
        warnings.append(f"no AUC and no figures: {result['avg']['auc']['reason']}")
    result["recalibrate"] = ensembles["avg"]["fit"] and ensembles["avg"]["fit"]["method"]
    for name, each in ensembles.items():
        raw, p = (each[key][labelled.index].to_numpy() for key in ("raw", "prob"))
        entry = result[name]
        entry["reliability"] = calibration.reliability(y, p)
        if each["fit"]:
            entry["before_recalibration"] = measure_one(args, labelled, each["raw"], {}) | {
                "reliability": calibration.reliability(y, raw)}
            if each["fit"].get("b", 1) <= 0:
                warnings.append(f"recalibration turned the scores of {ensemble.ENSEMBLES[name]} round: on the "
                                "validation scans a higher probability was the less likely positive")
        scores, correct = each["scores"].loc[labelled.index], (p >= THRESHOLD) == y
        entry["ensemble_size"] = disagreement.auc_by_size(scores, y, args.combine, args.seed)
        entry["selective"] = {label: disagreement.selective_summary(correct, doubt)
                              for label, doubt in doubts(scores, p).items()}
    lonely = min(class_counts(y))
    if lonely < 10:
        warnings.append(f"only {lonely} scans in one of the classes: the intervals are rough")


def class_counts(y):
    return int((y == 0).sum()), int((y == 1).sum())


def measure_one(args, labelled, scores, points):
    """`metrics.evaluate` of a Series of scores, over the scans that have a target; n = 0 where none has."""
    from evaluation import ensemble
    from evaluation.estimates import no_estimate
    from evaluation.metrics import THRESHOLD, evaluate

    known = labelled.loc[labelled.index.intersection(scores.index)].sort_index()
    if known.empty:
        return {"n": 0, "n_positive": 0} | {name: no_estimate("no scan with a target") for name in SHOWN}
    return evaluate(known["target"].to_numpy(dtype=int), scores[known.index].to_numpy(), THRESHOLD, points,
                    ensemble.patients(known), args.resamples, args.seed)


def view_jobs(args, models, labelled, jobs):
    """{view: metrics, filled by the jobs that it adds}; {} where the files name no views."""
    from evaluation import ensemble

    if not all("view" in model["rows"] for model in models):
        return {}
    views = {}
    for value, (mine, scans) in ensemble.subgroups(models, labelled, "view").items():
        scores = ensemble.combine(ensemble.score_models(mine, scans, "avg"), args.combine)
        jobs.append((views.setdefault(value, {}), scores, {}))
    return views


def subgroup_jobs(args, models, labelled, ensembles, column, jobs):
    """{value: {avg, max: metrics}}, filled by the jobs that it adds. A column that differs between the rows of a scan,
    as view does, is measured on those rows, without recalibration and derived thresholds, which are for whole scans."""
    from evaluation import ensemble

    groups = {}
    found = ensemble.subgroups(models, labelled, column)
    whole = sum(len(scans) for _, scans in found.values()) == len(labelled)
    for value, (mine, scans) in found.items():
        groups[value] = {}
        for name, each in ensembles.items():
            scores = (each["prob"][scans.index] if whole else
                      ensemble.combine(ensemble.score_models(mine, scans, name), args.combine))
            jobs.append((groups[value].setdefault(name, {}), scores, each["points"] if whole else {}))
    return groups


def doubts(scores, p):
    """What sends a scan to a human first: {label: (n,) float}."""
    from evaluation import disagreement
    from evaluation.metrics import THRESHOLD

    sd = disagreement.per_scan(scores, THRESHOLD)["sd"].to_numpy()
    both = {"probability nearest 0.5": -abs(p - THRESHOLD)}
    return both if (sd != sd).all() else both | {"largest SD between models": [0 if s != s else s for s in sd]}


# ---------------------------------------------------------------- writing

def ensemble_table(scans, each):
    """The table of ensemble_avg.csv or ensemble_max.csv."""
    from evaluation.metrics import THRESHOLD

    table = each["scores"].assign(ensemble_prob=each["prob"], pred_label=(each["prob"] >= THRESHOLD).astype(int))
    table.insert(0, "target", scans["target"].astype("Int64"))
    if each["fit"]:
        table["ensemble_prob_uncalibrated"] = each["raw"]
    for name, value in each["points"].items():
        if value is not None:
            table[f"pred_{name}"] = (each["prob"] >= value).astype(int)
    if "patient_id" in scans:
        table["patient_id"] = scans["patient_id"].str.strip()
    return table.reset_index(names="scan_id")


def write_outputs(args, models, scans, ensembles, sites, metrics):
    """Write what there is; return the paths. Outputs of an earlier call that this one has none of go."""
    from evaluation import disagreement, site_ensemble
    from evaluation.metrics import THRESHOLD

    folder, listed = args.output, disagreement.disagreement_list(scans, ensembles["avg"]["scores"],
                                                                 ensembles["avg"]["prob"], THRESHOLD)
    tables = {f"ensemble_{name}.csv": ensemble_table(scans, each) for name, each in ensembles.items()}
    tables["disagreement.csv"] = listed
    if sites:
        tables["ensemble_sites.csv"] = site_ensemble.scan_table(sites, scans)
    if metrics.get("sites", {}).get("ensemble"):
        tables["site_metrics.csv"] = site_ensemble.metrics_table(metrics["sites"])
    for name, table in tables.items():
        write_csv(table.assign(notice=metrics["optimistic"]) if metrics["optimistic"] else table, folder / name)
    paths = [folder / name for name in tables]
    if "avg" in metrics:
        from evaluation import provenance, report

        settings, more = provenance.models_settings(args.chptfolder or args.dir, models)
        metrics["warnings"] += more
        if any(each["points"] for each in ensembles.values()) and not args.operating_points:
            paths.append(folder / "operating_points.json")
            write_json({"combine": args.combine, "models": [model["file"] for model in models],
                        "derived_from": metrics["validation"] | {"optimistic": metrics["optimistic"]},
                        **{name: {"recalibration": each["fit"], "thresholds": each["points"]}
                           for name, each in ensembles.items()}}, paths[-1])
        write_json(metrics, folder / "metrics.json")
        drawn = draw(args, scans, ensembles, metrics) if metrics["avg"]["auc"]["value"] is not None else []
        drawn += draw_sites(args, metrics)
        flow = provenance.cohort_flow(models, metrics["set"], args.data)
        report.write_report(folder / "report.html", metrics, drawn, listed, flow, settings)
        paths += [folder / "metrics.json", *drawn, folder / "report.html"]
    remove_stale(folder, paths)
    return paths


def remove_stale(folder, paths):
    names = ["metrics.json", "operating_points.json", "report.html", "ensemble_sites.csv", "site_metrics.csv"]
    names += [f"{name}.{suffix}" for name in (*FIGURES, "site_confusion") for suffix in ("png", "svg")]
    for path in [folder / name for name in names] + sorted(folder.glob("forest_*.[ps][nv]g")):
        if path not in paths and path.exists():
            path.unlink()
            print(f"removed {path}: it belonged to earlier predictions")


def draw(args, scans, ensembles, metrics):
    """All figures; returns their paths."""
    from evaluation import figures
    from evaluation.ensemble import ENSEMBLES, patients
    from evaluation.metrics import THRESHOLD

    labelled = scans[scans["target"].notna()]
    y, groups = labelled["target"].to_numpy(dtype=int), patients(labelled)
    note = note_of(metrics)
    counts = metrics["avg"]
    title = (f"{metrics['set'].capitalize()} set: {counts['n']} scans, {counts['n_positive']} Deauville 4–5; "
             f"{len(metrics['models'])} models")
    curves = {ENSEMBLES[name]: (y, each["prob"][labelled.index].to_numpy()) for name, each in ensembles.items()}
    blocks = {label: [(point, block) for point, block in ({"0.5": metrics[name]}
                                                          | metrics[name]["operating_points"]).items()
                      if block["threshold"] is not None] for name, label in ENSEMBLES.items()}
    places = {label: {point: (block["fp"] / (block["fp"] + block["tn"]), block["tp"] / (block["tp"] + block["fn"]))
                      for point, block in each} for label, each in blocks.items()}

    def with_interval(metric, shown):
        return {label: f"{label}: {shown} {interval_text(metrics[name][metric])}" for name, label in ENSEMBLES.items()}

    states = {"before": "raw", metrics["recalibrate"]: "prob"} if metrics["recalibrate"] else {"as predicted": "prob"}
    panels = {label: {state: (y, ensembles[name][key][labelled.index].to_numpy()) for state, key in states.items()}
              for name, label in ENSEMBLES.items()}
    precisions = with_interval("average_precision", "average precision")
    paths = figures.roc(args.output, curves, with_interval("auc", "AUC"), places, groups, title, note, args.seed)
    paths += figures.precision_recall(args.output, curves, precisions, title, note)
    paths += figures.reliability(args.output, panels, title, note)
    paths += figures.decision_curve(args.output, curves, title, note)
    paths += figures.confusion_matrices(args.output, blocks, title, note)
    thresholds = {label: {point: block["threshold"] for point, block in each} for label, each in blocks.items()}
    paths += figures.score_distribution(args.output, curves, thresholds, title, note)
    sizes = {label: metrics[name]["ensemble_size"] for name, label in ENSEMBLES.items()}
    if len(metrics["models"]) > 1 and all(sizes.values()):
        paths += figures.ensemble_size(args.output, sizes, title, note)
    p = curves[ENSEMBLES["avg"]][1]
    scores = ensembles["avg"]["scores"].loc[labelled.index]
    paths += figures.selective(args.output, {label: ((p >= THRESHOLD) == y, doubt)
                                             for label, doubt in doubts(scores, p).items()},
                               f"LARS-avg at {THRESHOLD}. {title}", note)
    for column, groups_of in metrics["subgroups"].items():
        rows = [("all scans", metrics["avg"])]
        rows += [(f"{column}: {value}", each["avg"]) for value, each in groups_of.items()]
        paths += figures.forest(args.output, column, rows, f"LARS-avg at {THRESHOLD} by {column}. {title}", note)
    return paths


def draw_sites(args, metrics):
    """The confusion matrix of the sites, where there is one; returns its paths."""
    from evaluation import figures

    result = metrics.get("sites", {}).get("ensemble")
    if not result or "confusion" not in result:
        return []
    n_models = len(metrics["sites"]["models"])
    title = (f"Lesion site, {metrics['set']} set: {result['n']} scans, {n_models} model{'s' * (n_models > 1)}, "
             f"balanced accuracy {interval_text(result['loc_bacc'])}")
    return figures.site_confusion(args.output, result, title, note_of(metrics))


def note_of(metrics):
    """What stands under every figure."""
    return " ".join(filter(None, (metrics["notice"], metrics["optimistic"])))


def interval_text(entry):
    """An estimate as `0.951 (0.877–0.981)`."""
    if entry["value"] is None:
        return "none"
    interval = "no interval" if entry["ci_low"] is None else f"{entry['ci_low']:.3f}–{entry['ci_high']:.3f}"
    return f"{entry['value']:.3f} ({interval})"


def print_sites(metrics):
    """The lesion sites' metrics, of all models together and of each."""
    from evaluation import site_ensemble
    from evaluation.site_metrics import NAMES

    result = metrics.get("sites", {})
    if not result.get("ensemble"):
        return
    names = site_ensemble.shown(result)
    print(f"{'lesion site':<22}{'scans':>6}  " + "".join(f"{NAMES[name]:<22}" for name in names).rstrip())
    blocks = {"all models": result["ensemble"]} if len(result["models"]) > 1 else {}
    for label, block in (blocks | {Path(each["file"]).stem: each for each in result["models"]}).items():
        print(f"{label:<22}{block['n']:>6}  " + "".join(f"{interval_text(block[name]):<22}" for name in names
                                                        if block["n"]).rstrip())
    print("; ".join(filter(None, (f"{len(result['names'])} sites", site_ensemble.chance(result),
                                  "each site's recall: site_metrics.csv, report.html\n"))))


def print_table(metrics):
    from evaluation.ensemble import ENSEMBLES
    from evaluation.metrics import DERIVED

    heading = f"{'':<32}" + "".join(f"{name.replace('auc', 'AUC') + ' (95 % CI)':<22}" for name in SHOWN)
    print("\n" + heading.rstrip())
    for name, label in ENSEMBLES.items():
        blocks = {"at 0.5": metrics[name]} | {DERIVED[point]: block for point, block in
                                              metrics[name]["operating_points"].items()}
        for point, block in blocks.items():
            if block["threshold"] is None:
                print(f"{'':<10}{point}: {block['reason']}")
                continue
            first = interval_text(block["auc"]) if "auc" in block else ""
            cells = [first] + [interval_text(block[metric]) for metric in SHOWN[1:]]
            print(f"{label if block is metrics[name] else '':<10}{point:<22}"
                  + "".join(f"{cell:<22}" for cell in cells).rstrip())
    source, unit = metrics["validation"].get("source"), metrics["independent_unit"]
    print(f"intervals: DeLong and Wilson, by {unit}; " + (f"thresholds: {source}; " if source else "")
          + "everything else: report.html\n")


if __name__ == "__main__":
    run_script(get_args_parser, main)
