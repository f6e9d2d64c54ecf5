"""Re-ViLM (arXiv 2302.04858): a Flamingo whose language model reads the captions of similar pictures.

Needs torch; the rest (tokenizers, safetensors, open_clip) is imported by the function that needs it.
"""
