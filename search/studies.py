"""The database of a search and its studies: opening, samplers, pruners, whether workers agree."""
import random
import re
import time

import optuna
import pandas as pd
import sqlalchemy
from optuna.trial import FrozenTrial

from common.files import InputError
from common.manifest import LEAKED, MARK, SYNTHETIC, is_synthetic, leakage_of
from common.renamed import current_args
from common.settings import differences, plain, stored_args
from common.text import first_line
from training.batches import step_seed

GRACE = 3  # heartbeats that are missed before a worker is taken for dead
RETRIES = 3  # of a trial that its worker did not survive
STARTUP = 5  # random trials before the sampler and the median pruner rely on earlier ones


def shown(url: str) -> str:
    """A storage's URL without its password."""
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return url


def open_storage(url: str, heartbeat: int) -> optuna.storages.RDBStorage:
    """Open a database, or make its tables.

    Parameters
    ----------
    url : str
        As SQLAlchemy takes it.
    heartbeat : int
        Seconds between two signs of life of a trial; after GRACE of them without one it is queued again.

    Raises
    ------
    InputError
        It cannot be had.
    """
    # 60 s: how long SQLite waits for another process's writing
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    for attempts_left in reversed(range(5)):
        try:
            return optuna.storages.RDBStorage(url, options, heartbeat_interval=heartbeat,
                                              grace_period=GRACE * heartbeat, heartbeat_stale_trial_callback=again)
        except (sqlalchemy.exc.ArgumentError, ImportError) as error:
            raise InputError(f"--storage {shown(url)}: {first_line(error)}; give a URL such as "
                             "postgresql://user@host/name, and install its driver") from None
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
            if not attempts_left:  # two workers that make the tables at the same moment disturb each other
                raise InputError(f"--storage {shown(url)}: {first_line(error)}; is the server running, and may this "
                                 "user write there?") from None
            time.sleep(random.random())


def again(study: optuna.Study, trial: FrozenTrial, retries: int | None = RETRIES) -> None:
    """Queue the parameters of a trial whose worker is gone; no more than `retries` times (None: always)."""
    trial.user_attrs = {}
    optuna.storages.RetryHeartbeatStaleTrialCallback(retries)(study, trial)


def build_sampler(name: str, seed: tuple[int, int]) -> optuna.samplers.BaseSampler:
    """--sampler for one split.

    It is made anew for every trial, with a seed of its own: what a trial draws does not depend on who does it, and no
    two draw the same.

    Parameters
    ----------
    seed : (int, int)
        --seed and split.
    """
    kind, options = {  # constant_liar: it keeps away from what other workers are trying
        "tpe": (optuna.samplers.TPESampler, {"n_startup_trials": STARTUP, "constant_liar": True}),
        "cmaes": (optuna.samplers.CmaEsSampler, {"n_startup_trials": STARTUP, "warn_independent_sampling": False}),
        "random": (optuna.samplers.RandomSampler, {})}[name]

    class Seeded(kind):
        def before_trial(self, study, trial):
            self.__init__(**options, seed=step_seed(seed, trial.number))
            super().before_trial(study, trial)

    return Seeded(**options)


def build_pruner(name: str, nepochs: int) -> optuna.pruners.BasePruner:
    """--pruner for trials of nepochs epochs."""
    return {"median": optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=nepochs // 3),
            "hyperband": optuna.pruners.HyperbandPruner(max_resource=nepochs), "none": optuna.pruners.NopPruner()}[name]


def agree(study: optuna.Study, settings: dict, where: str) -> None:
    """Store what a study's trials have in common, or refuse to mix others in.

    Parameters
    ----------
    settings : dict
        Of `SplitTrials.settings`.
    where : str
        The storage as the error names it.

    Raises
    ------
    InputError
        The study was started with other settings, or by another program.
    """
    settings, begun = plain(settings), study.get_trials(deepcopy=False)  # before user_attrs: other workers begin, too
    if "settings" not in study.user_attrs:
        if begun:
            raise InputError(f"the study {study.study_name} in {where} is of another program: its trials are not "
                             "comparable; give another --study")
        study.set_user_attr("settings", settings)
    found = study.user_attrs["settings"]
    differing = [name for name in ("space", "data", "checkpoint") if found[name] != settings[name]]
    differing += differences(stored_args(current_args(found["arguments"])), settings["arguments"], prefix="--")
    if differing:
        raise InputError(f"the study {study.study_name} in {where} was started with other values of "
                         f"{', '.join(differing)}; give the same, or another --study")


def mark(study: optuna.Study, table: pd.DataFrame) -> None:
    """Store in `notices` what the page must say of the scans `table` that the study's trials learn from."""
    before = study.user_attrs.get("notices", [])
    found = [SYNTHETIC] * bool(is_synthetic(table).any()) + [f"{MARK}: {LEAKED}"] * bool(leakage_of(table))
    if new := [line for line in found if line not in before]:
        study.set_user_attr("notices", before + new)


def all_studies(name: str, storage: optuna.storages.BaseStorage) -> dict[int, optuna.Study]:
    """{split: study NAME_splitS} of all that have trials, by this search and by earlier ones of other splits; not those
    of other programs."""
    named = map(re.compile(re.escape(name) + r"_split(\d+)").fullmatch, optuna.get_all_study_names(storage))
    found = {int(match[1]): optuna.load_study(study_name=match[0], storage=storage) for match in named if match}
    return {split: study for split, study in sorted(found.items())
            if "settings" in study.user_attrs and study.get_trials(deepcopy=False)}
