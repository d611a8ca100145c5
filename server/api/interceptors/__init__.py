"""Steps that every call passes through, one per file; `chain` lists them in order and says why."""
