"""What users write, and what becomes of it: a batch file, its settings, its tasks.

file.py        reads a batch, once; yaml_lines.py knows where in the file everything stands
spec.py        its settings; schema.py makes the JSON Schema of them
plan.py        its tasks; estimate.py, memory.py and disk.py say what they will cost
explain.py     mistakes of form, as lines that name the field (the words are those of advanchor/messages.py)
problems.py    what keeps it from being run, for which the model is asked
findings.py    what is doubtful in its list of concepts: `advanchor check`
lists.py       lists of names as people keep them, for `advanchor init`; starter.py writes the batch
"""
