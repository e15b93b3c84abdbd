"""The page of `python -m visual_region demo`. Only layout.py imports gradio."""
