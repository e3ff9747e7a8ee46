"""Several workers of optun.py on one PostgreSQL server, which the test starts itself; one worker is killed."""
import contextlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import optuna
import pandas as pd
import pytest
from conftest import ROOT, write_cohort
from optuna.trial import TrialState

from search import space

TRIALS, EPOCHS, WORKERS = 6, 3, 3
ALWAYS = set(space.SEARCH) - set(space.ONLY_WITH)  # what every trial draws
PROGRAMS = "initdb", "pg_ctl", "createdb"
PASSWORD = "not-secret"  # of a server that lives as long as this test


def programs():
    """The folder of PostgreSQL's programs: on PATH, or where Debian puts them, the newest version; None without."""
    folders = [Path(path).resolve().parent for path in [shutil.which("initdb")] if path]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True,
                      key=lambda path: [int(n) for n in re.findall(r"\d+", path.parent.name)])
    return next((folder for folder in folders if all((folder / name).exists() for name in PROGRAMS)), None)


def account():
    """What subprocess needs to start a server as `postgres` or `nobody` where we are root, whom initdb refuses."""
    if os.getuid():
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return pytest.skip("root has no user `postgres` or `nobody` to run PostgreSQL as")


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL server on a free port of this machine, with a password -> (URL of a database, environment)."""
    if not programs():
        pytest.skip("no initdb, pg_ctl, createdb here: install PostgreSQL (Debian: apt-get install postgresql)")
    owner = account()
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # pytest's own folders are closed to other users

    def call(program, *words, **more):
        done = subprocess.run([programs() / program, *map(str, words)], cwd=folder, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=300, **owner, **more)
        log = folder / "log"
        assert done.returncode == 0, f"{program}: {done.stdout}\n{log.read_text() if log.exists() else ''}"

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, text in (("password", PASSWORD), ("pgpass", f"127.0.0.1:{port}:*:deauville:{PASSWORD}\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    if owner:
        for path in (folder, *folder.iterdir()):
            os.chown(path, owner["user"], owner["group"])
    environment = {**os.environ, "PGPASSFILE": str(folder / "pgpass"), "OMP_NUM_THREADS": "1"}
    started = False
    try:
        call("initdb", "-D", folder / "data", "-U", "deauville", "--auth=scram-sha-256", "--no-sync",
             f"--pwfile={folder / 'password'}")
        started = True
        call("pg_ctl", "-D", folder / "data", "-l", folder / "log", "-w", "-t", 120, "-o",
             f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off", "start")
        call("createdb", "-h", "127.0.0.1", "-p", port, "-U", "deauville", "search", env=environment)
        yield f"postgresql://deauville@127.0.0.1:{port}/search", environment
    finally:
        if started:
            subprocess.run([programs() / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"], cwd=folder,
                           stdout=subprocess.DEVNULL, timeout=120, **owner)
        shutil.rmtree(folder, ignore_errors=True)


def start(folder, name, url, environment):
    """One worker; its output goes to NAME.log."""
    with open(folder / f"{name}.log", "w") as log:
        return subprocess.Popen(
            [sys.executable, ROOT / "optun.py", "--data", folder / "data.csv", "--splits", "0", "0", "--trials",
             str(TRIALS), "--nepochs", str(EPOCHS), "--heartbeat", "2", "--storage", url, "--output", folder / name,
             "--weights", "none", "--image_size", "auto", "--pool", "2", "--threads", "1"],
            stdout=log, stderr=subprocess.STDOUT, env=environment)


def all_trials(url):
    """The trials of the one study, or []."""
    summaries = optuna.get_all_study_summaries(url)
    return optuna.load_study(study_name=summaries[0].study_name, storage=url).trials if summaries else []


def wait_for(condition, workers, folder, seconds=600):
    """`condition()` once it holds; the workers' output where one of them ends before."""
    end = time.monotonic() + seconds
    while not (held := condition()):
        codes = [worker.poll() for worker in workers]
        if any(code is not None for code in codes) or time.monotonic() > end:
            pytest.fail("\n".join([f"exit codes {codes}", *(log.read_text() for log in sorted(folder.glob("*.log")))]))
        time.sleep(0.05)
    return held


def in_their_middle(url):
    """Whether every worker has a trial whose parameters are drawn and that has an epoch or more to go."""
    with contextlib.suppress(Exception):  # the first worker is making the tables
        running = [trial for trial in all_trials(url) if trial.state == TrialState.RUNNING]
        drawn = all(ALWAYS <= set(trial.params) for trial in running)
        return len(running) == WORKERS and drawn and all(len(t.intermediate_values) < EPOCHS - 1 for t in running)
    return False


@pytest.mark.slow
def test_three_workers_one_killed(server, tmp_path, monkeypatch):
    url, environment = server
    monkeypatch.setenv("PGPASSFILE", environment["PGPASSFILE"])
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    write_cohort(tmp_path)
    workers = [start(tmp_path, f"worker{n}", url, environment) for n in range(WORKERS)]
    try:
        wait_for(lambda: in_their_middle(url), workers, tmp_path)
        workers[0].kill()
        codes = [worker.wait(900) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert codes == [-9, 0, 0], "\n".join(log.read_text() for log in sorted(tmp_path.glob("*.log")))

    # a worker may begin a trial at the moment when another begins the last one; it then lets go of it at once
    trials = [trial for trial in all_trials(url) if not trial.user_attrs.get("reason", "").startswith("one too many")]
    states = Counter(trial.state for trial in trials)
    assert states[TrialState.COMPLETE] + states[TrialState.PRUNED] == TRIALS, "no fewer, no more than asked for"
    assert states[TrialState.FAIL] == 1 and sum(states.values()) == TRIALS + 1, "none is left running or waiting"
    killed = next(trial for trial in trials if trial.state == TrialState.FAIL)
    again = [trial for trial in trials if trial.system_attrs.get("retry_history") == [killed.number]]
    assert len(again) == 1 and again[0].state != TrialState.FAIL
    assert ALWAYS <= set(killed.params) and killed.params.items() <= again[0].params.items()
    drawn = Counter(tuple(sorted(trial.params.items())) for trial in trials if trial.state != TrialState.FAIL)
    assert max(drawn.values()) == 1, "no parameters twice"

    for n in (1, 2):  # each worker that came to its end wrote what is known of all
        written = pd.read_csv(tmp_path / f"worker{n}" / "optuna_results_split0.csv")
        done = written[written["state"].isin(["COMPLETE", "PRUNED"])]
        assert done["number"].is_unique and len(done) <= TRIALS
        assert (tmp_path / f"worker{n}" / "optuna_report.html").exists()
    joined = start(tmp_path, "worker3", url, environment)  # the same command again: nothing is left to do
    assert joined.wait(300) == 0, (tmp_path / "worker3.log").read_text()
    after = all_trials(url)
    assert {trial.number for trial in after if trial.state != TrialState.FAIL} == {
        trial.number for trial in trials if trial.state != TrialState.FAIL}
    written = pd.read_csv(tmp_path / "worker3" / "optuna_results_split0.csv")
    assert list(written["number"]) == list(range(len(after)))
    assert list(written["state"]) == [trial.state.name for trial in after]
