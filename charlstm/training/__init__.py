"""Training: the loop, its state, schedule, budget, guard and data parallelism."""
