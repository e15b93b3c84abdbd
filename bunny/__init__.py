"""Bunny's models on llava's engine: this package will hold only what differs (its backbones, SigLIP, its templates)."""
