"""What users' tools load: LoRA files, merged pipelines, and a model card that says what was done.

write.py writes every format, and verify.py loads each file again. lora.py, names.py and original*.py say what is in it.
"""
