"""The settings of every stage, as frozen pydantic models: the one home of every default.

Light on purpose: the CLI reads its options from here, and `zarrloc --help` imports no torch.
"""
