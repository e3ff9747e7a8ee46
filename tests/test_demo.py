"""demo.py: what it runs, how it ends."""
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import demo

ROOT = Path(__file__).parents[1]
SLOW_TO_END = """
import time
from pathlib import Path
try:
    Path("begun").touch()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    Path("ended").touch()
"""


@pytest.mark.parametrize("whole_group", [True, False])
def test_a_signal_lets_the_script_that_runs_end_by_itself(tmp_path, whole_group):
    """Ctrl-C reaches both, SIGTERM the demo alone."""
    handler = "import signal; signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
    (tmp_path / "script.py").write_text(handler + SLOW_TO_END)
    code = ("import demo; from pathlib import Path; from common.signals import interrupt_on_signals; "
            "interrupt_on_signals(); demo.HERE = Path(); demo.run('script.py')")
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
                          start_new_session=True, stderr=subprocess.DEVNULL) as process:
        while not (tmp_path / "begun").exists():
            time.sleep(0.1)
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT if whole_group else signal.SIGTERM)
    assert (tmp_path / "ended").exists()


def test_another_cohort_and_one_split(tmp_path, monkeypatch, capsys):
    """What is there is said to be used in place of what the options say; of one split one network is trained."""
    (tmp_path / "data_resplit.csv").write_text("patient_id,filename,split0\nA,1,test\nA,2,test\nB,3,train\n")
    ran = []
    monkeypatch.setattr(demo, "run", lambda script, *words: ran.append((script, *map(str, words))))
    demo.main(demo.get_args_parser().parse_args(["--output", str(tmp_path), "--patients", "1000"]))
    assert "data_resplit.csv is there: its cohort of 2 patients is used again; --overw" in capsys.readouterr().out
    assert [words[0] for words in ran] == ["train.py", "find_best_model.py", "predict.py", "aggregate.py"]
    assert ran[0][3:7] == ("--split_index", "0", "--run", "1") and ran[2][7:9] == ("--splits", "0-0")


@pytest.mark.parametrize("own", [True, False])
def test_make_clean_removes_the_demos_link_and_no_images_of_ones_own(tmp_path, own):
    shutil.copy(ROOT / "Makefile", tmp_path)
    images = tmp_path / ("images" if own else "demo/images")
    images.mkdir(parents=True)
    if not own:
        (tmp_path / "images").symlink_to(images)
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert {path.name for path in tmp_path.iterdir()} == {"Makefile", *["images"] * own}
