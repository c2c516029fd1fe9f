"""What finetuning did to the residual stream, beside directions that were there before it."""
