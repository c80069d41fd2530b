"""Configuration of the Sphinx site: ``sphinx-build -W -b html docs docs/_build/html``."""

import os
import sys
from pathlib import Path

import jinja2

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))
# On the small tables of the examples, more threads only wait for each other.
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

# Links by URL, not by intersphinx, so that the site builds without a network.
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
# Pages without children have an empty left sidebar.
WITHOUT_SIDEBAR = """
    getting_started choosing mathematics benchmarks add_an_architecture changelog
"""
html_sidebars = {page: [] for page in WITHOUT_SIDEBAR.split()}

autosummary_generate = True
# Docstrings inherited from scikit-learn refer to its glossary.
suppress_warnings = ["ref.term"]
autodoc_typehints = "none"
# The class template lists the methods already.
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples"),
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "doc_module": ("skflows",),
    "backreferences_dir": "generated/backreferences",
    "remove_config_comments": True,
    # Show tables and estimators, but not the lists of artists that matplotlib returns.
    "capture_repr": ("_repr_html_",),
    "show_memory": False,
    "min_reported_time": 1,
}


def write_if_changed(path, text):
    """Write a generated page if it has changed, so that incremental builds can skip it."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def render(name, **values):
    """Render the page ``name`` from its template."""
    template = jinja2.Template((DOCS / "_templates" / name).read_text(encoding="utf-8"))
    write_if_changed(DOCS / name, template.render(**values) + "\n")


# Generated pages: the API lists all estimators and bijections, and the benchmarks page includes all
# tables in benchmarks/.
render(
    "api.rst",
    estimators=skflows.__all__,
    bijections=skflows.bijections.__all__,
)
tables = {path.name for path in (ROOT / "benchmarks").glob("*.md")} - {"README.md"}
render("benchmarks.md", tables=sorted(tables))
