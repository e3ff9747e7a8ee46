"""The database of a search and its studies: opening, samplers, pruners, whether workers agree."""
import random
import re
import time
from pathlib import Path

import optuna
import sqlalchemy

from common.files import InputError
from common.renamed import current_names
from common.settings import differences, plain
from common.text import first_line
from search import report
from training.batches import step_seed

GRACE = 3  # heartbeats that are missed before a worker is taken for dead
RETRIES = 3  # of a trial that its worker did not survive
STARTUP = 5  # random trials before the sampler and the median pruner rely on earlier ones


def storage_url(args):
    return args.storage or f"sqlite:///{Path(args.output) / 'optuna.db'}"


def shown(args):
    """The storage's URL without its password."""
    try:
        return sqlalchemy.make_url(storage_url(args)).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return storage_url(args)


def open_storage(args):
    """The RDBStorage of --storage. Raises InputError where it cannot be had."""
    url, options = storage_url(args), {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        options = {"connect_args": {"timeout": 60}}  # seconds that it waits for another process's writing
    if not args.storage:
        Path(args.output).mkdir(parents=True, exist_ok=True)
    for attempts_left in reversed(range(5)):
        try:
            return optuna.storages.RDBStorage(url, options, heartbeat_interval=args.heartbeat,
                                              grace_period=GRACE * args.heartbeat, heartbeat_stale_trial_callback=again)
        except (sqlalchemy.exc.ArgumentError, ImportError) as error:
            raise InputError(f"--storage {shown(args)}: {first_line(error)}; give a URL such as "
                             "postgresql://user@host/name, and install its driver") from None
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
            if not attempts_left:  # two workers that make the tables at the same moment disturb each other
                raise InputError(f"--storage {shown(args)}: {first_line(error)}; is the server running, and may this "
                                 "user write there?") from None
            time.sleep(random.random())


def again(study, trial, retries=RETRIES):
    """Queue the parameters of a trial whose worker is gone."""
    trial.user_attrs = {}
    optuna.storages.RetryHeartbeatStaleTrialCallback(retries)(study, trial)


class Seeded(optuna.samplers.BaseSampler):
    """A sampler that is made anew for every trial, with a seed of its own: what a trial draws does not depend on who
    does it, and no two draw the same.

    Args:
        make: seed -> the sampler.
        seed (tuple of int): (--seed, split).
    """

    def __init__(self, make, seed):
        self.make, self.seed = make, seed

    def before_trial(self, study, trial):
        self.sampler = self.make(seed=step_seed(self.seed, trial.number))
        self.sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study, trial):
        return self.sampler.infer_relative_search_space(study, trial)

    def sample_relative(self, study, trial, search_space):
        return self.sampler.sample_relative(study, trial, search_space)

    def sample_independent(self, study, trial, param_name, param_distribution):
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study, trial, state, values):
        self.sampler.after_trial(study, trial, state, values)


def build_sampler(name, seed):
    """--sampler for one split; seed: (--seed, split)."""
    def make(seed):
        if name == "tpe":  # constant_liar: it keeps away from what other workers are trying
            return optuna.samplers.TPESampler(n_startup_trials=STARTUP, constant_liar=True, seed=seed)
        if name == "cmaes":
            return optuna.samplers.CmaEsSampler(n_startup_trials=STARTUP, warn_independent_sampling=False, seed=seed)
        return optuna.samplers.RandomSampler(seed=seed)
    return Seeded(make, seed)


def build_pruner(name, nepochs):
    """--pruner for trials of nepochs epochs."""
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=nepochs // 3)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(max_resource=nepochs)
    return optuna.pruners.NopPruner()


def build_study(args, split, nepochs, storage):
    """The study of a split, new or as it stands in the storage."""
    return optuna.create_study(study_name=f"{args.study}_split{split}", storage=storage, direction="maximize",
                               sampler=build_sampler(args.sampler, (args.seed, split)),
                               pruner=build_pruner(args.pruner, nepochs), load_if_exists=True)


def agree(study, settings, where):
    """Store what a study's trials have in common, or refuse to mix others in (InputError)."""
    settings = plain(settings)
    if "settings" not in study.user_attrs:
        study.set_user_attr("settings", settings)
    found = study.user_attrs["settings"]
    found = found | {"arguments": current_names(found["arguments"])}
    differing = [name for name in ("space", "data", "checkpoint") if found[name] != settings[name]]
    differing += differences(found["arguments"], settings["arguments"], prefix="--")
    if differing:
        raise InputError(f"the study {study.study_name} in {where} was begun with other values of "
                         f"{', '.join(differing)}; give the same, or another --study, --storage or --output")


def all_studies(args, storage):
    """{split: study} of all that the storage has trials of, by this search and by earlier ones of other splits."""
    studies, name = {}, re.compile(re.escape(args.study) + r"_split(\d+)")
    for found in optuna.get_all_study_names(storage):
        if match := name.fullmatch(found):
            studies[int(match[1])] = optuna.load_study(study_name=found, storage=storage)
    return {split: study for split, study in sorted(studies.items()) if study.get_trials(deepcopy=False)}


def best_trial(study):
    """The complete trial of the highest value, the earliest of equals, or None."""
    return next(iter(report.best_trials(study)), None)
