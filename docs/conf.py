"""How the documentation is built: `sphinx-build -W --keep-going -b html docs docs/_build/html`. It needs no network."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "ganatomy"
author = "the authors of ganatomy"
copyright = author
try:
    release = metadata.version("ganatomy")
except metadata.PackageNotFoundError:  # a checkout on the path
    release = ""

extensions = [
    "docstrings",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_design",
    "wings",
]
exclude_patterns = ["_build", "_ext", "jupyter_execute"]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist", "substitution"]
myst_heading_anchors = 4

# Tutorials are executed when they or their cache are out of date. Each takes one to two minutes on two cores.
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / ".jupyter_cache")
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_in_temp = True
nb_execution_timeout = 1200
nb_output_stderr = "remove"  # warnings of libraries, with paths of the machine; errors stop the build
os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning")  # of libraries, in the kernels of the tutorials

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give shapes and ranges, the signatures the names
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Columns", "params_style")]
smartquotes = False  # -- begins an option
default_role = "literal"  # docstrings write `code` in single backticks
add_module_names = False
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = "ganatomy"
html_static_path = ["_static"]
html_css_files = ["ganatomy.css"]
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = r">>> |\$ "
copybutton_prompt_is_regexp = True
