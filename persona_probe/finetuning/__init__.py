"""Before to after: supervised finetuning with LoRA, and adapters that stand on each other."""
