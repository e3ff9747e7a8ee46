#!/usr/bin/env bash
# Twenty splits, two runs each: 40 independent trainings as a Slurm job array, one GPU a task.
#
#   sbatch examples/slurm_array.sh            # from the folder of train.py
#   sbatch examples/slurm_array.sh            # once more after a failure: finished runs are left alone, others go on
#
# A task that meets its time limit saves its state, goes back into the queue and goes on from there.
# To change for your site: the lines marked CHANGE.
#SBATCH --job-name=deauville
#SBATCH --array=0-39%8                 # CHANGE 8: how many tasks at once
#SBATCH --partition=gpu                # CHANGE
#SBATCH --gres=gpu:1                   # CHANGE the way your site asks for a GPU; leave it out to train on CPUs
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G                      # the images of 3000 scans are about 1 GB; the rest is PyTorch
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120              # two minutes before the limit: the state is saved, the task queued again
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%A_%a.log
set -euo pipefail

cd "$SLURM_SUBMIT_DIR"
source .venv/bin/activate              # CHANGE: your environment
DATA=mips/data_resplit.csv             # CHANGE: the manifest; its images lie beside it
OUTPUT=results                         # a folder that every node sees

split=$((SLURM_ARRAY_TASK_ID % 20))
run=$((SLURM_ARRAY_TASK_ID / 20 + 1))

# Slurm sends its signal to the steps of the job, which is train.py, not to this shell: it looks how train.py ended.
set +e
srun --ntasks=1 python train.py --data "$DATA" --split_index "$split" --run "$run" --output "$OUTPUT" \
    --cls_arch complex --optimizer sgd --lr 0.01 --early_stopping --resume --threads "$SLURM_CPUS_PER_TASK"
code=$?
if [ "$code" = 138 ]; then  # 128 + SIGUSR1: saved before the time limit
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
