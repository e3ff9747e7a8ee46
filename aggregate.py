"""Average the predictions of several models into one score per scan, and measure it: tables, figures, report.html.

python aggregate.py --dir results --output results             # every pred_splitS_runR.csv in results
python aggregate.py --dir results --output results --top 10    # the ten best by best_run.csv
python aggregate.py --dir results --output results --data data.csv --by view sex --recalibrate platt
python aggregate.py --dir results --output results --pooled_folds                 # of make_splits.py --cv
python aggregate.py --dir results --output results --survival pfs_months pfs_event months     # prognosis
python aggregate.py --dir results --output results --readers readers.csv          # the model against readers
python aggregate.py --dir results --output results --prevalence 0.1 0.3 --decision_range 0.1 0.6
python aggregate.py --dir results --output results --data data.csv --heatmaps heatmaps    # of explain.py
python aggregate.py --dir new --output new --operating_points results/operating_points.json   # new patients

LARS-avg: per model the mean over a scan's views; LARS-max: their maximum; then the mean over the models. Thresholds and
recalibration are those of this mean on a calibration set (make_splits.py --calibration; predict.py --set cal val test),
or without one each model's own, from its validation predictions (predict.py --set val test): then the models are
recalibrated before they are averaged, and the majority of their calls decides. Writes ensemble_avg.csv,
ensemble_max.csv and disagreement.csv, and, where the scans have targets, failures.csv, metrics.json,
operating_points.json, figures (PNG, SVG, PDF), report.html and the checklists of TRIPOD+AI and CLAIM 2024, to be filled
in (CSV, DOCX). LARS's own files (scan_id, target, probs) are read too. Of predict_loca.py's files also the sites:
ensemble_sites.csv (mean over views and models) and site_metrics.csv.
"""
import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.arguments import SEVERAL, Parser, images_folder, natural_int, positive_int, run_script, share
from common.files import InputError, write_csv, write_json
from common.text import counted


def get_args_parser():
    parser = Parser(__doc__)
    add = parser.add_argument_group("input").add_argument
    add("--dir", type=Path, default=Path("results"), help="folder of the pred_splitS_runR.csv of predict.py")
    add("--set", choices=("train", "val", "test", "cal", "all"), help="rows to use, by the column `set` of those files "
        "(default: test; all where the files hold nothing but that)")
    add("--best_run", type=Path, metavar="FILE", help="ranking by find_best_model.py (default: --dir's best_run.csv)")
    add("--top", type=positive_int, metavar="K", help="use the K best of that ranking (default: every model in --dir)")
    add("--pooled_folds", action="store_true", help="the splits are folds of a cross-validation: a scan's score is "
        "that of the runs of its own fold, and the scans of all folds are measured together")
    add("--cohort", **SEVERAL, type=named_folder, default=[], metavar="NAME=DIR", help="other centres: the same "
        "models' prediction files, measured with the thresholds and recalibration of --dir")
    add = parser.add_argument_group("scores, thresholds").add_argument
    add("--combine", default="mean", choices=("mean", "median"), help="of the models' scores of a scan")
    add("--recalibrate", choices=("platt", "logistic", "temperature", "isotonic"),
        help="fitted to the calibration set, or without one to each model's validation predictions (default: none)")
    add("--operating_points", type=Path, metavar="FILE", help="apply the thresholds and recalibration of an earlier "
        "run's operating_points.json, or those in a zip of models, instead of deriving them")
    add("--threshold_on_test", action="store_true", help="derive thresholds (and recalibration) from the scans that "
        "are measured; every output is then marked OPTIMISTIC")
    add = parser.add_argument_group("statistics").add_argument
    add("--by", **SEVERAL, default=[], metavar="COLUMN", help="subgroups by these columns of the prediction files "
        "(view, scanner, sex, ...); numbers are cut at their tertiles")
    add("--primary", metavar="TEXT", help="the number that was planned, such as \"LARS-avg auc\", \"LARS-max "
        "sensitivity at youden\", \"LARS-avg auc in NAME\" (of --cohort): first on the page; others are exploratory")
    add("--prevalence", **SEVERAL, type=share, default=[], metavar="P", help="predictive values where this share of "
        "patients has Deauville 4-5 (0.3), beside those of the scans at hand")
    add("--decision_range", nargs=2, type=share, default=(0.01, 0.99), metavar=("LOW", "HIGH"), help="threshold "
        "probabilities of the decision curve: those at which one would act")
    add("--resamples", type=positive_int, default=2000, metavar="N", help="of the bootstrap")
    add("--seed", type=natural_int, default=0, help="of the bootstrap and of subsets of models")
    add("--survival", nargs=3, action="append", default=[], metavar=("TIME", "EVENT", "UNIT"), help="prognosis: "
        "columns of the prediction files with the time to an event or censoring, and with 0 (censored) or 1 (event); "
        "days, weeks, months or years; several times for several endpoints")
    add("--readers", type=Path, **SEVERAL, metavar="CSV", help="reader study: scan_id and a column for each reader, "
        "calls 0 and 1 or Deauville scores 1 to 5; or CSVs of review.html; one file or several")
    add = parser.add_argument_group("report").add_argument
    add("--data", metavar="CSV", help="manifest, for the flow of the cohort and Table 1, by set and by the columns of "
        "--by (default: what the prediction files hold, without Table 1)")
    add("--images", metavar="DIR", help="folder of the manifest's MIPs, which the page shows of failures (default: the "
        "manifest's folder)")
    add("--heatmaps", type=Path, metavar="DIR", help="--output of explain.py, whose heat maps the page "
        "shows of failures")
    add("--chptfolder", type=Path, metavar="DIR", help="checkpoints, or a zip of models, for the settings of every "
        "model; predictions of others are refused (default: --dir)")
    add = parser.add_argument_group("output").add_argument
    add("-o", "--output", type=Path, default=Path("results"), help="folder to write to")
    return parser


def named_folder(text):
    name, equals, folder = text.partition("=")
    if not (name.strip() and equals and folder) or name.strip() == "internal":
        raise argparse.ArgumentTypeError(f"{text}: give NAME=DIR; the name internal is that of --dir")
    return name.strip(), Path(folder)


@dataclass
class Study:
    """What is read (of each cohort a `centres.Centre`, that of --dir first; lesion sites, endpoints, readers' calls)
    and derived (rules, where from, from which rows; warnings)."""
    cohort: list
    sites: Any
    endpoints: dict
    calls: Any
    rules: dict
    about: dict
    derived_from: Any
    warnings: list


def main(args):
    from evaluation import aggregation, decision_curve, ensemble, primary

    if args.operating_points and (args.threshold_on_test or args.recalibrate):
        raise InputError("--operating_points: brings its own thresholds; leave out --threshold_on_test, --recalibrate")
    if args.cohort and args.pooled_folds:
        raise InputError("--cohort with --pooled_folds: another centre's scans are of no fold; leave out one")
    if args.heatmaps and not args.heatmaps.is_dir():
        raise InputError(f"--heatmaps {args.heatmaps}: no such folder; give the --output of explain.py")
    if args.images and not args.data:
        raise InputError(f"--images {args.images}: is the folder of --data's images; give --data, too")
    names = [name for name, _ in args.cohort]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--cohort {name}: is given twice; each cohort has a name of its own")
    planned = primary.read_primary(args.primary, names) if args.primary else None
    thresholds = decision_curve.thresholds_of(*args.decision_range)

    study = read(args)
    own = study.cohort[0]
    scans, target = own.scans, own.scans["target"]
    metrics = aggregation.describe(own.models, scans, own.ensembles, own.wanted, study.about, own.overlap, args.combine,
                                   args.resamples, args.seed, study.warnings)
    page = {}
    if target.notna().any():
        page = measure(args, study, metrics, planned, thresholds)
    else:
        study.warnings.append("no scan has a target: no metrics, no figures, no report")
    print(f"{own.wanted} set: {counted(len(scans), 'scan')}, {(target == 1).sum()} with target 1, "
          f"{(target == 0).sum()} with target 0; "
          f"{counted(len(own.models), 'model')}{ensemble.folds_text(own.models)}")
    for line in study.warnings:
        print(f"warning: {line}")
    write(args, study, metrics, page)


def read(args):
    """Read the predictions, check that they belong together, derive thresholds, average the models -> Study."""
    from evaluation import (
        aggregation,
        centres,
        cohorts,
        ensemble,
        operating_points,
        overlap,
        prognosis,
        readers,
        site_ensemble,
    )
    from evaluation.averaging import average_models

    models, warnings = ensemble.find_models(args.dir, args.best_run, args.top)
    columns = [*args.by, *prognosis.columns(args.survival)]
    wanted = ensemble.read_models(models, args.set, columns)
    warnings += cohorts.check_cohort(models, args.pooled_folds, args.top)
    warnings += overlap.check_manifest(models, wanted, args.data, columns)
    overlap.check_checkpoints(models, args.chptfolder or args.dir)
    seen, not_checked = overlap.find_overlap(models, wanted, args.chptfolder or args.dir)
    scans, more = ensemble.join_scans(models)
    warnings += not_checked + more + aggregation.set_warnings(wanted, scans)
    sites = site_ensemble.join_sites(args.dir, models, scans, warnings)
    endpoints = prognosis.read_endpoints(models, scans, args.survival, warnings)
    calls = readers.read_calls(args.readers, scans, warnings) if args.readers else None

    if args.operating_points:
        rules, about = operating_points.read_rules(args.operating_points, models, args.combine, warnings)
    else:
        rules, about = operating_points.derive_rules(models, scans, args.combine, args.recalibrate,
                                                     args.threshold_on_test, warnings)
    derived_from = about.pop("scans", None)
    ensembles = {name: average_models(models, scans, name, args.combine, each) for name, each in rules.items()}
    cohort = [centres.Centre(centres.INTERNAL, wanted, models, scans, ensembles, seen)]
    for name, folder in args.cohort:
        cohort.append(centres.read_centre(name, folder, cohort, rules, args.combine, args.chptfolder or args.dir,
                                          derived_from, warnings))
    return Study(cohort, sites, endpoints, calls, rules, about, derived_from, warnings)


def measure(args, study, metrics, planned, thresholds):
    """Fill in metrics -> what the page shows beside them: wrong, flow, settings."""
    from evaluation import (
        aggregation,
        centres,
        failures,
        primary,
        prognosis,
        provenance,
        readers,
        selection,
        site_ensemble,
    )

    own, *others = study.cohort
    models, scans, ensembles, warnings = own.models, own.scans, own.ensembles, study.warnings
    statistics = args.resamples, args.seed, warnings
    metrics |= aggregation.measure(models, scans, ensembles, args.by, args.combine, *statistics, args.prevalence,
                                   thresholds)
    if args.cohort:
        metrics |= centres.measure_centres(study.cohort, metrics, *statistics)
    if planned:
        metrics["primary"] = primary.primary_entry(planned, metrics)
    if study.sites:
        metrics["sites"] = site_ensemble.measure_sites(study.sites, scans, *statistics)
    if study.endpoints:
        metrics["prognosis"] = prognosis.measure(study.endpoints, scans, ensembles, warnings)
    if study.calls:
        metrics["readers"] = readers.measure(study.calls, scans, ensembles["avg"], *statistics)

    folder, best_run = args.chptfolder or args.dir, args.best_run or args.dir / "best_run.csv"
    wrong = failures.on_page(failures.list_failures(scans, ensembles["avg"]), models, own.wanted, args.data,
                             args.data and images_folder(args), args.heatmaps, folder)
    settings, more = provenance.models_settings(folder, models)
    source = f"an earlier run's {study.about['source']}" if args.operating_points else study.about["source"]
    metrics["selection"] = selection.describe_selection(models, args.top, best_run, folder, source)
    warnings += more
    metrics["provenance"] = provenance.this_run([
        *provenance.model_files(folder, models), best_run, args.dir / "sites.json", args.operating_points,
        *(args.readers or []), args.data, args.data and Path(args.data).with_name("errors.csv"),
        *(model.path for each in others for model in each.models)])
    return {"wrong": wrong, "settings": settings, "flow": provenance.cohort_flow(
        models, own.wanted, args.data, args.by, {each.name: each.models for each in others})}


def write(args, study, metrics, page):
    """Write tables and, where there are targets, metrics, figures and page; remove what an earlier call wrote."""
    from evaluation import centres, checklists, figures, operating_points, outputs, report

    own, earlier = study.cohort[0], outputs.earlier_files(args.output)
    tables = outputs.tables(own.scans, own.ensembles, study.sites, metrics)
    if args.data and page:
        tables["table1.csv"] = page["flow"]["table_one"].assign(**({"synthetic": 1} if metrics["synthetic"] else {}))
    if args.cohort and page:
        tables["cohorts.csv"] = centres.cohorts_table(metrics)
    for name, table in tables.items():
        write_csv(table, args.output / name)
    written, drawn = list(tables), []
    if args.operating_points or page and any(study.rules.values()):
        operating_points.write_rules(args.output / "operating_points.json", own.models, study.rules, metrics,
                                     study.derived_from, args.operating_points)
        written.append("operating_points.json")
    if page:
        files = [*tables, *(path.name for path in earlier)]  # of a call that is cut, and of those before it
        write_json(metrics | {"files": files}, args.output / "metrics.json")  # first: it leaves no numbers of before
        drawn = figures.write_figures(args.output, own.scans, own.ensembles, metrics, study.endpoints, page["flow"])
        lists = checklists.write_checklists(args.output, metrics, page["flow"], page["settings"])
        report.write_report(args.output / "report.html", metrics, drawn, tables["disagreement.csv"], page["wrong"],
                            page["flow"], page["settings"], lists)
        metrics["files"] = [*written, "report.html", *(path.name for path in drawn)]
        write_json(metrics, args.output / "metrics.json")
        written += ["metrics.json", "report.html", *(f"{each['file']} (.csv, .docx)" for each in lists)]
        outputs.print_metrics(metrics)
    else:
        checklists.remove_stale(args.output)
    outputs.remove_stale(earlier, [args.output / name for name in written] + drawn)
    for line in filter(None, (metrics["notice"], metrics["optimistic"])):
        print(line)
    written += [counted(len({path.stem for path in drawn}), "figure") + " (.png, .svg, .pdf)"] * bool(drawn)
    print(f"wrote to {args.output}: {', '.join(written)}")


if __name__ == "__main__":
    run_script(get_args_parser, main)
