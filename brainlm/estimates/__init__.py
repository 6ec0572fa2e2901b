"""What a study will take, told before anything runs: time, disk, memory, and where its jobs fit."""
