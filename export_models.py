"""Put the best networks into one file: weights, network input, thresholds, calibration and a model card.

python export_models.py --dir results --top 10 --output models.zip
python export_models.py --dir results --top 10 --output models.zip --precision float32    # to the bit, twice the size
python predict.py --chptfolder models.zip --data NEW.csv --set all --output new           # at another centre
python aggregate.py --dir new --output new --operating_points models.zip

Run find_best_model.py first and, for thresholds and the card's numbers, aggregate.py with the same --top. The zip holds
README.md, the model card; best_run.csv; operating_points.json, thresholds and recalibration; reference.json, scores of
both classes without names, beside which score.py shows new ones; and for each network
checkpoint_splitS_runR.safetensors: its weights and, as text in the header, what else its checkpoint says (keyed digests
of its training patients, too; folders' names are left out). Every script that takes a folder of networks takes the zip.
It is data alone: reading it runs no code.
"""
from pathlib import Path

from common.arguments import Parser, positive_int, run_script
from common.text import counted


def get_args_parser():
    parser = Parser(__doc__)
    add = parser.add_argument_group("input and output").add_argument
    add("--dir", type=Path, default=Path("results"), help="folder of checkpoints and best_run.csv and, where they are "
        "there, metrics.json and operating_points.json of aggregate.py")
    add("--top", type=positive_int, metavar="K", help="the K best of best_run.csv (default: all)")
    add("--precision", default="half", choices=("half", "float32"), help="of the weights; half: float16, but float32 "
        "for biases and batch norms")
    add("-o", "--output", type=Path, default=Path("models.zip"), metavar="ZIP", help="the file to write")
    return parser


def main(args):
    from evaluation import model_card, reference
    from inference import export

    runs = export.best_models(args.dir, args.top)
    with export.new_zip(args.output) as archive:
        models = [export.add_model(archive, run, args.precision, args.dir) for run in runs]
        rules = export.find_rules(args.dir, models)
        metrics = export.find_metrics(args.dir, models)
        export.add_texts(archive, {"best_run.csv": export.ranking(runs), "operating_points.json": rules,
                                   reference.FILE: reference.collect(args.dir, export.checkpoints(models)),
                                   "README.md": model_card.write_card(models, metrics, rules, args.precision)})
    print(f"{counted(len(models), 'model')}, {args.output.stat().st_size / 1e6:.0f} MB: {args.output}")


if __name__ == "__main__":
    run_script(get_args_parser, main)
