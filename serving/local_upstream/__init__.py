"""A small OpenAI-compatible server that generates real text with the base model on this CPU.

It lets every part of Pointsman run without an API key. `python -m serving.local_upstream --help`.

Limits, since a 135M model on two cores is a demonstration: one generation at a time and a short
queue (429 beyond it), 128 tokens an answer unless the request says otherwise, prompts of at most
2048 tokens (the system message and the latest turns are kept), one choice, text only. Tools are
not offered to the model; requests for logprobs, JSON output or a forced tool call are refused.
"""
