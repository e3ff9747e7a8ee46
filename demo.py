"""The whole chain on a synthetic cohort: DICOM, MIPs, two trained networks, ensemble, statistics, report.

python demo.py                  # what `make demo` runs; 5 to 15 minutes on two cores
python demo.py --data_only      # its first half: the cohort, its MIPs, the manifest

Writes OUTPUT/results/report.html and all before it. A cohort that OUTPUT holds is used again, whatever the options say.
In a checkout of this toolkit, `images` becomes a link to those of `demo`, the default OUTPUT, so that the commands of
the documentation find those of data.csv.
"""
import csv
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from common.arguments import Parser, natural_int, positive_int, run_script, share
from common.text import counted

HERE = Path(__file__).resolve().parent
TRAINING = "--recipe fast --nepochs 7"  # from random weights: no download
CARRIED = ("patient study n_lesions lesions liver_suv pool_suv decoys sex age weight_kg height_cm arms vendor "
           "decay_correction")  # of the phantom's labels, into data.csv, beside target, target_loc and deauville


def get_args_parser():
    parser = Parser(__doc__)
    add = parser.add_argument_group("demo").add_argument
    add("-o", "--output", type=Path, default=Path("demo"), metavar="DIR", help="folder for everything")
    add("--patients", type=positive_int, default=300, metavar="N", help="of the cohort, as of phantom.py")
    add("--seed", type=natural_int, default=1, help="of the cohort, as of phantom.py")
    add("--n_splits", type=positive_int, default=20, metavar="N", help="as of make_splits.py")
    add("--test", type=share, default=0.2, metavar="SHARE", help="as of make_splits.py")
    add("--val", type=share, default=0.2, metavar="SHARE", help="as of make_splits.py")
    add("--data_only", action="store_true", help="train nothing")
    add("--overwrite", action="store_true", help="make the cohort that is there anew")
    return parser


def main(args):
    output, dicom, results = args.output, args.output / "dicom", args.output / "results"
    data = output / "data_resplit.csv"
    if args.overwrite or not data.exists():
        run("phantom.py", "--output", dicom, "--patients", args.patients, "--seed", args.seed)
        run("prepro_script.py", "--input", dicom, "--output", output, "--labels", dicom / "labels.csv", "--keep_ids",
            "--carry", *CARRIED.split())
        run("make_splits.py", "--data", output / "data.csv", "--n_splits", args.n_splits, "--test", args.test,
            "--val", args.val, "--seed", 0, "--overwrite")
    else:
        patients = counted(len({row["patient_id"] for row in rows(data)}), "patient")
        print(f"{data} is there: its cohort of {patients} is used again; --overwrite makes another")
    if output == Path("demo") and (HERE / "data.csv").exists():
        link_images(output, data)
    if args.data_only:
        return
    splits = 2 if "split1" in rows(data)[0] else 1  # to train
    run("train.py", "--data", data, "--split_index", *range(splits), "--run", 1, "--output", results, "--overwrite",
        *TRAINING.split())
    run("find_best_model.py", "--dir", results)
    run("predict.py", "--data", data, "--output", results, "--chptfolder", results, "--splits", f"0-{splits - 1}",
        "--set", "val", "test")
    run("aggregate.py", "--dir", results, "--output", results, "--data", data, "--by", "view", "vendor", "sex")


def run(script, *words):
    """Run a script as a person would, and say so; a failure ends the demo with its exit code.

    A signal ends the script as it ends by itself, its files whole: `subprocess.run` would kill it after 0.25 s.
    """
    words = [str(word) for word in words]
    print(f"$ python {script} {shlex.join(words)}", flush=True)
    process = subprocess.Popen([sys.executable, HERE / script, *words])
    try:
        code = process.wait()
    except KeyboardInterrupt as interruption:
        if interruption.args != (signal.SIGINT,):  # Ctrl-C has reached the script, too
            process.terminate()
        process.wait()
        raise
    if code:
        sys.exit(code)


def link_images(output, data):
    """Let the checkout's data.csv find its images in `output`; say where its rows are not those of `data`."""
    images = HERE / "images"
    try:
        images.unlink(missing_ok=True)
        images.symlink_to((output / "images").resolve(), target_is_directory=True)
    except OSError as error:  # Windows asks for a right
        print(f"warning: {images} could not be made a link ({error}): give --images {output / 'images'} with data.csv")
    if rows(HERE / "data.csv") != rows(data):
        print(f"warning: data.csv differs from {data}, the manifest of these images")


def rows(path):
    """Of a manifest; without image_sha256, since the last bits of an image depend on the processor."""
    with open(path, encoding="utf-8", newline="") as file:
        return [{name: value for name, value in row.items() if name != "image_sha256"} for row in csv.DictReader(file)]


if __name__ == "__main__":
    run_script(get_args_parser, main)
