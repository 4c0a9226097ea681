"""Tasks on gangs of processes. Only this room imports Ray and DeepSpeed (and `cli/doctor.py` Ray).

place.py               where a run's tasks are done: local.py in this process, or driver.py on gangs
ray_cluster.py         starts a local Ray or joins a cluster, after addresses.py and tokens.py have agreed
driver.py, gang.py     hand packs of tasks to gangs; policy.py and ledger.py say what becomes of each task
worker.py              one process's work; deepspeed_engine.py trains
jobs.py                runs as Ray Jobs: `advanchor submit`
"""
