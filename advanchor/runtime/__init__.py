"""The machine room: tasks on gangs of processes, and the run directory. Ray and DeepSpeed are imported here only."""
