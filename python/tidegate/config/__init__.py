"""What a user writes, and what it means: a YAML file becomes `Options` (as written), then `Config` (what it means).

    document.py    the file: values with places          options/         the models, one for each mapping
    yaml12.py      types of scalars                       faults.py        errors in our words, once each
    expand.py      ${NAME}, ${file:path}                  later.py         what is not supported yet
    units.py addresses.py names.py   kinds of values      load.py          the way from a file to a Config
    routes.py websockets.py certificates.py   its parts   schema.py reference.py   made from the models

`load` is all that others need to read a configuration.
"""

from tidegate.config.config import Config
from tidegate.config.load import load
from tidegate.config.reference import reference
from tidegate.config.schema import json_schema

__all__ = ["Config", "json_schema", "load", "reference"]
