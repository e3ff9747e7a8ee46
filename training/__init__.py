"""One epoch, the loop around it, batches, objectives, the files of a run."""
