"""The lowerings, by family of ops. Importing this package fills the table."""

from importlib import import_module
from pkgutil import iter_modules

for _module in sorted(item.name for item in iter_modules(__path__)):
    import_module(f"{__name__}.{_module}")
