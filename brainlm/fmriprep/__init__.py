"""fMRIPrep as an engine: its command line, its container, and how its end is judged.

Esteban O, et al. fMRIPrep: a robust preprocessing pipeline for functional MRI. Nat Methods
16:111-116, 2019.
"""
