"""The only door to peft: it imports transformers, which has a door of its own."""

import training.language_model.hugging_face as hugging_face  # noqa: F401, I001 - must come first
from peft import LoraConfig as LoraConfig
from peft import TaskType as TaskType
from peft import inject_adapter_in_model as inject_adapter_in_model
