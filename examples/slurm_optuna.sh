#!/usr/bin/env bash
# Hyperparameter search over twenty splits: workers that share one PostgreSQL server, as a Slurm job array.
#
#   sbatch examples/slurm_optuna.sh           # from the folder of optun.py
#   sbatch examples/slurm_optuna.sh           # once more: further workers, or to go on after a time limit
#   python optun.py --storage ... --splits 0-19     # afterwards, the same command: tables and report of what is done
#
# Every task has the same command: it takes the next trial of the first split that is not done. A task that is killed or
# reaches its time limit loses one trial, which another task does again. docs/how_to/several_machines.md starts the server.
# To change for your site: the lines marked CHANGE.
#SBATCH --job-name=deauville-search
#SBATCH --array=0-7                    # CHANGE: how many workers; each holds about three connections to the server
#SBATCH --partition=gpu                # CHANGE
#SBATCH --gres=gpu:1                   # CHANGE the way your site asks for a GPU; leave it out to train on CPUs
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G                      # the images of 3000 scans are about 1 GB, read once a worker; the rest is PyTorch
#SBATCH --time=08:00:00
#SBATCH --output=slurm-%A_%a.log
set -euo pipefail

cd "$SLURM_SUBMIT_DIR"
source .venv/bin/activate              # CHANGE: your environment
DATA=mips/data_resplit.csv             # CHANGE: the manifest; its images lie beside it
OUTPUT=results                         # a folder that every node sees
# CHANGE dbhost. The password stands in ~/.pgpass (chmod 600): dbhost:5432:*:deauville:PASSWORD
STORAGE=postgresql://deauville@dbhost:5432/search

exec srun --ntasks=1 python optun.py --data "$DATA" --splits 0-19 --storage "$STORAGE" --output "$OUTPUT" \
    --trials 20 --nepochs 10 --threads "$SLURM_CPUS_PER_TASK"
