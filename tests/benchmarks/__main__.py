"""Run every benchmark: `make bench`. Each prints ratios or growth, measured in one run."""

from __future__ import annotations

import importlib
import pkgutil

import tests.benchmarks as package

for module in sorted(entry.name for entry in pkgutil.iter_modules(package.__path__)):
    if module.startswith("bench_"):
        print(f"\n== {module.removeprefix('bench_')} ==", flush=True)
        importlib.import_module(f"tests.benchmarks.{module}").main()
