"""Tasks on gangs of processes. Only this room imports Ray and DeepSpeed (and `cli/doctor.py` Ray)."""
