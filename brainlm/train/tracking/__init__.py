"""Telling others of a training: TensorBoard, Weights & Biases, MLflow.

What they are told never decides anything: the log (metrics.jsonl) is the record, and what a tracker
lacks after a stop is told from it. They work in a thread of their own, on the first process, and
when one fails the training goes on.
"""
