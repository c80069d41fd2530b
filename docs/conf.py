"""Configuration of the Sphinx site: ``sphinx-build -W -b html docs docs/_build/html``."""

import os
import sys
from pathlib import Path

import jinja2

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))
# The examples run one after another on small tables: more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import skflows.bijections  # noqa: E402  (the import needs the path above)

project = "skflows"
author = "the skflows developers"
copyright = author
version = release = skflows.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
myst_enable_extensions = ["dollarmath"]
default_role = "code"

# Links by URL, not by intersphinx: the site then builds with -W on a machine without a network.
extlinks = {"sklearn": ("https://scikit-learn.org/stable/modules/generated/%s.html", "%s")}

html_theme = "pydata_sphinx_theme"
html_title = "skflows"
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["skflows.css"]
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "logo": {"text": "skflows"},
    "footer_start": ["copyright"],
    "footer_end": [],
}
# Pages without children have nothing to show in the left sidebar.
WITHOUT_SIDEBAR = """
    getting_started choosing mathematics benchmarks add_an_architecture changelog
"""
html_sidebars = {page: [] for page in WITHOUT_SIDEBAR.split()}

autosummary_generate = True
# Docstrings that come from scikit-learn refer to its glossary.
suppress_warnings = ["ref.term"]
autodoc_typehints = "none"
# The class template lists the methods; numpydoc would list them a second time.
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples"),
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "doc_module": ("skflows",),
    "backreferences_dir": "generated/backreferences",
    "remove_config_comments": True,
    # Tables and estimators, but not the lists of artists that matplotlib's calls return.
    "capture_repr": ("_repr_html_",),
    "show_memory": False,
    "min_reported_time": 1,
}


def write_if_changed(path, text):
    """Write a generated page only when it differs, so that an incremental build can skip it."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def render(name, **values):
    """Write the page ``name`` from its template."""
    template = jinja2.Template((DOCS / "_templates" / name).read_text(encoding="utf-8"))
    write_if_changed(DOCS / name, template.render(**values) + "\n")


# Two pages follow the repository: the API lists every estimator and bijection, and the benchmarks
# page holds every table that benchmarks/ has.
render(
    "api.rst",
    estimators=skflows.__all__,
    bijections=skflows.bijections.__all__,
)
tables = {path.name for path in (ROOT / "benchmarks").glob("*.md")} - {"README.md"}
render("benchmarks.md", tables=sorted(tables))
