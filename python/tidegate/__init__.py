"""Tidegate: a gateway built from the long-lived connection outwards.

    tidegate.config     a YAML file and what it means: `load(path) -> Config`
    tidegate.snapshot   what the engine runs from: `compile(config) -> Snapshot`
    tidegate.gateway    the running gateway
    tidegate.testing    a gateway and an echo upstream for your own tests
    tidegate.errors     everything that is raised on purpose

Importing this package loads none of them.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
