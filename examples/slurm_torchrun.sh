#!/usr/bin/env bash
# One training on several nodes: two nodes of four GPUs here, as eight processes with one batch between them.
#
#   sbatch examples/slurm_torchrun.sh         # from the folder of train.py
#
# The batch keeps its size (--batch_size is that of all processes together), so the recipe stays what it was. These
# networks are small: one GPU trains a split in minutes, and an array over splits (slurm_array.sh) uses many GPUs better.
# To change for your site: the lines marked CHANGE.
#SBATCH --job-name=deauville-nodes
#SBATCH --nodes=2                      # CHANGE
#SBATCH --ntasks-per-node=1            # one torchrun a node; it starts the processes
#SBATCH --partition=gpu                # CHANGE
#SBATCH --gres=gpu:4                   # CHANGE; without GPUs: leave it out, gloo between CPUs is used
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=02:00:00
#SBATCH --signal=TERM@120              # two minutes before the limit: torchrun hands SIGTERM, not SIGUSR1, to train.py
#SBATCH --output=slurm-%j.log
set -euo pipefail

cd "$SLURM_SUBMIT_DIR"
source .venv/bin/activate              # CHANGE: your environment
PROCESSES=4                            # CHANGE: GPUs of a node
PORT=29500                             # CHANGE where it is taken
FIRST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / PROCESSES))

# --output must be a folder that every node sees: each process reads last_*.pth there when it goes on (--resume).
srun torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc_per_node "$PROCESSES" --rdzv_id "$SLURM_JOB_ID" \
    --rdzv_backend c10d --rdzv_endpoint "$FIRST:$PORT" \
    train.py --data mips/data_resplit.csv --split_index 0 --run 1 --output results --batch_size 256 --resume
