"""What `launch=slurm` needs: asking SLURM, the batch script, and the program that runs on a node."""
