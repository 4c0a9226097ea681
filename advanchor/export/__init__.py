"""What users' tools load: LoRA files, merged pipelines, and a model card that says what was done."""
